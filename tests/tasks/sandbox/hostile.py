"""What hostile defences do, as the bodies of ``apply_defense(self, images)``.

One file serves all tests of a process: it runs what lies beside it in ``body.txt``, so that only a
test that ends the process costs a new one. Bodies that try several things answer with a picture
whose first values are 1 for what succeeded and 0 for what did not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from tasks.sandbox import processes
from tasks.sandbox.contents import Unseen
from tasks.sandbox.defence import Answer, SandboxedDefense
from tasks.sandbox.limits import Limits

FILE = """
import ctypes, mmap, os, signal, socket, subprocess, sys, threading, time
from pathlib import Path

import torch

HERE = Path(__file__).parent


def tried(images, attempts):
    out = torch.zeros_like(images)
    for place, attempt in enumerate(attempts):
        try:
            out.view(-1)[place] = float(attempt() is not False)
        except (OSError, ValueError):
            pass
    return out


class Defense:
    def __init__(self):
        self.net = torch.nn.Linear(3, 4)
        self.count = 0

    def apply_defense(self, images):
        text = (HERE / "body.txt").read_text()
        lines = "".join("    " + line + "\\n" for line in text.splitlines())
        scope = dict(globals())
        exec("def answer(self, images):\\n" + lines, scope)
        return scope["answer"](self, images)
"""

SMALL = Limits(
    seconds_per_image=20.0,
    start_seconds=60.0,
    memory_bytes=1 << 30,
    processes=128,
    file_bytes=1 << 20,
)


def batch(count: int = 2, side: int = 12) -> Tensor:
    """Images (count, 3, side, side) to be sent."""
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


class Hostile:
    """A sandboxed defence whose behaviour is written before each call."""

    def __init__(self, folder: Path, limits: Limits = SMALL, *, namespaces: bool = True) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "defense.py").write_text(FILE)
        (folder / "side-car.txt").write_text("0.25")
        self.store = folder.parent / "store"
        self.store.mkdir(exist_ok=True)
        (self.store / "clean.bin").write_text("secret")
        self.defense = SandboxedDefense(
            folder / "defense.py",
            limits,
            unseen=Unseen(stores=(self.store,)),
            namespaces=namespaces,
        )

    def answer(self, body: str, images: Tensor | None = None) -> Answer:
        """Let it do what the body says."""
        (self.folder / "body.txt").write_text(body)
        self.defense.start()
        return self.defense.apply(batch() if images is None else images)

    def failure(self, body: str, images: Tensor | None = None) -> str:
        """The failure that a body ends in; afterwards nothing that it started runs."""
        (self.folder / "body.txt").write_text(body)
        self.defense.start()
        mark = self.mark()
        answer = self.defense.apply(batch() if images is None else images)
        assert answer.images is None
        assert gone(mark, 30)  # what was killed takes its time on a busy machine
        return str(answer.failure)

    def succeeded(self, body: str, attempts: int) -> list[bool]:
        """Which of the attempts of a body succeeded."""
        answer = self.answer(body)
        assert answer.images is not None, answer.failure
        return [bool(value) for value in answer.images.view(-1)[:attempts] > 0.5]

    def mark(self) -> str:
        """The name of every process of the sandbox."""
        process = self.defense._process
        assert process is not None
        return process.setup.name


@contextmanager
def hostile(folder: Path, limits: Limits = SMALL, *, namespaces: bool = True) -> Iterator[Hostile]:
    """A `Hostile` that is closed, and has left nothing running."""
    made = Hostile(folder, limits, namespaces=namespaces)
    with made.defense:
        yield made
        process = made.defense._process
        mark = process.setup.name if process is not None else None
    if mark is not None:
        assert gone(mark)


def gone(mark: str, seconds: float = 2.0) -> bool:
    """Whether nothing of that name runs, or soon will not."""
    deadline = time.monotonic() + seconds
    while left := processes.named(mark):
        if time.monotonic() > deadline:
            return not left
        time.sleep(0.02)
    return True


def defense_file(folder: Path, text: str) -> Path:
    """A file of this text in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "defense.py"
    path.write_text(text)
    return path
