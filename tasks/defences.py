"""A user's own defence, from a file that nobody vouches for, as a purifier of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from defender.purifiers import PURIFIERS
from defender.types import Images, Knowledge, Seeds, check_parameters, parameter
from storage.files import Place
from tasks.errors import DefenseError
from tasks.sandbox.defence import SandboxedDefense
from tasks.sandbox.limits import Limits

MEGABYTE = 1_000_000
WEIGHTS = frozenset(
    [
        ".py",
        ".pt",
        ".pth",
        ".safetensors",
        ".npz",
        ".npy",
        ".onnx",
        ".bin",
        ".json",
        ".yaml",
        ".yml",
        ".pkl",
        ".csv",
        ".txt",
    ]
)
"""Files beside the defence that count as part of it."""


def hidden_from(root: Place) -> list[Path]:
    """The folders of a store, which a defence must not see; one in a cloud it cannot reach."""
    return [root.resolve()] if isinstance(root, Path) else []


@dataclass(frozen=True)
class DefenceFile:
    """The class ``Defense`` of a Python file, run in a process of its own.

    Args:
        path: the file, relative to the specification.
        time_limit: seconds an image.
        memory_limit: megabytes of resident memory, torch itself included.
        parameter_limit: parameters of the networks it holds.
        home: what a relative path is relative to.

    Raises:
        DefenseError: where there is no such file.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "none: the user's own"
    keeps_size: ClassVar[bool] = False

    path: str = parameter(doc="Python file with the class Defense, relative to the specification")
    time_limit: float = parameter(10.0, doc="time limit", low=0, open_low=True, unit="s an image")
    memory_limit: int = parameter(4096, doc="limit of resident memory", low=400, unit="MB")
    parameter_limit: int | None = parameter(None, doc="limit of the networks' parameters", low=0)
    home: Path = field(default=Path(), repr=False)

    def __post_init__(self) -> None:
        check_parameters(self)
        if not self.file.is_file():
            raise DefenseError(f"path: expected a Python file with the class Defense: {self.file}")

    @property
    def file(self) -> Path:
        """Where the file lies."""
        path = Path(self.path)
        return path if path.is_absolute() else self.home / path

    @property
    def knowledge(self) -> Knowledge:
        """``"blind"``: it is handed nothing but the images."""
        return "blind"

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the file and what lies beside it and may belong to it."""
        found = hashlib.sha256(self.file.read_bytes())
        for beside in sorted(self.file.parent.iterdir()):
            if beside != self.file and beside.suffix in WEIGHTS and beside.is_file():
                with beside.open("rb") as stream:
                    found.update(f"{beside.name} ".encode())
                    found.update(hashlib.file_digest(stream, "sha256").digest())
        return found.hexdigest()

    def __repr__(self) -> str:
        limits = f"{self.time_limit:g} s, {self.memory_limit} MB, {self.parameter_limit} parameters"
        return f"Defense({self.file.name}@{self.digest[:12]}, {limits})"

    def sandbox(self, hidden: Sequence[Path] = ()) -> SandboxedDefense:
        """A process for it, not yet started.

        Args:
            hidden: folders that stay out of its sight.
        """
        limits = Limits(
            seconds_per_image=self.time_limit,
            memory_bytes=self.memory_limit * MEGABYTE,
            parameters=self.parameter_limit,
        )
        return SandboxedDefense(self.file, limits, hidden=hidden)

    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Images:
        """Put one batch through it, in a fresh process.

        Raises:
            DefenseError: saying what went wrong.
        """
        with self.sandbox() as box:
            answer = box.apply(images.cpu().contiguous(), seed=int(seeds[0]))
        if answer.images is None:
            raise DefenseError(f"{self.file.name}: {answer.failure}")
        return answer.images.to(images.device)

    def parts(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> dict[str, Tensor]:
        """Nothing: it has no parts to show, and a report does not run it again."""
        return {}


PURIFIER_KINDS: dict[str, type[Any]] = {**PURIFIERS, "Defense": DefenceFile}
"""Every purifier that a specification can name."""
