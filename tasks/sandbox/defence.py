"""A defence from a file that nobody vouches for, as an object to call.

The file holds a class ``Defense`` with ``apply_defense(self, images)``: float32 (n, c, h, w) in
[0, 1] in, images of any size out. It runs on the CPU in a process of its own, is handed nothing
but the images, and answers through a buffer (`tasks.sandbox.channel`). `tasks.sandbox.enforce`
says what that process can do.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy
import torch
from torch import Tensor

from tasks.errors import DefenseError, SandboxError
from tasks.sandbox import answers, channel, view
from tasks.sandbox.answers import Unusable
from tasks.sandbox.channel import IMAGES, REQUEST, Buffer, Header, Status
from tasks.sandbox.contents import Unseen, contents
from tasks.sandbox.enforce import Enforcement, Setup
from tasks.sandbox.limits import Limits
from tasks.sandbox.process import Ended, Late, Process, Refused

MUTATES = "it changes the batch it is given (harmless here: it works on a copy)"

_PACKAGES = Path(__file__).resolve().parents[2]
WEIGHTS = _PACKAGES / "tasks" / "weights"
OWN = (_PACKAGES / "defender", WEIGHTS)
"""What a defence may import and load of this package, wherever it is installed."""

_refusals: list[str] = []
"""Why this system refuses namespaces, once it has."""


class NotReady(DefenseError):
    """The file was run, and that did not make a defence.

    Args:
        path: the file.
        reason: one sentence without a subject.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"defence: {path}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class Started:
    """A defence that is ready.

    Args:
        parameters: parameters of the networks it holds, counted in its own process, so that a file
            made to deceive can state any number.
        enforcement: how each limit is enforced.
        seconds: time it took to start.
    """

    parameters: int
    enforcement: Enforcement
    seconds: float


@dataclass(frozen=True)
class Answer:
    """What came of one batch.

    Args:
        images: float32 (n, c, H, W) in [0, 1], or None after a failure.
        failure: one sentence without a subject, or None.
        seconds: wall-clock time, without a start.
        peak_memory: largest resident memory since the process started, in bytes; 0 after a failure.
        notes: what a user should know of though it breaks nothing.
    """

    images: Tensor | None
    failure: str | None
    seconds: float
    peak_memory: int
    notes: tuple[str, ...] = ()


class SandboxedDefense:
    """Runs a defence from a file in a separate process; a context manager.

    After a failure the process is ended, and the next batch starts a fresh one. Threads may share
    an object; their batches are served one at a time.

    Args:
        path: the file. It may read the folder in which it lies.
        limits: what it may use.
        threads: threads that torch computes with over there.
        unseen: what stays out of its sight even where it lies in a folder that it may read.
        namespaces: False does without namespaces, as on a system that refuses them.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        *,
        threads: int = 1,
        unseen: Unseen | None = None,
        namespaces: bool = True,
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads: expected at least 1, got {threads}")
        self.path = path
        self.limits = limits
        self.threads = threads
        self.unseen = unseen or Unseen()
        self.namespaces = namespaces
        self._lock = threading.RLock()
        self._process: Process | None = None
        self._buffer: Buffer | None = None
        self._sequence = 0
        self._started: Started | None = None

    def __enter__(self) -> SandboxedDefense:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> Started:
        """Start the process and load the file, unless that has been done.

        Raises:
            NotReady: where the file is not what was expected, or goes past a limit on loading.
            DefenseError: where it is not there, or not in a folder that can be shown to it.
            SandboxError: on a system on which no process can be locked up.
        """
        with self._lock:
            if self._process is None:
                self._started = self._start()
            if self._started is None:  # set together with the process
                raise DefenseError(f"defence: {self.path}: is not running")
            return self._started

    def restart(self) -> Started:
        """Start a fresh process; see `start`."""
        with self._lock:
            self.close()
            return self.start()

    def close(self) -> None:
        """End the process with everything that it has started."""
        with self._lock:
            process, self._process = self._process, None
            buffer, self._buffer = self._buffer, None
            if process is not None:
                process.end()
            if buffer is not None:
                buffer.close()

    def apply(self, images: Tensor, *, seed: int | None = None) -> Answer:
        """Put a batch through the defence.

        Args:
            images: float32 (n, c, h, w) in [0, 1] on the CPU, n at least 1.
            seed: where torch's, numpy's and Python's generators start over there, so that a
                randomised defence can be repeated; None lets them run on.

        Raises:
            DefenseError, SandboxError: where nothing of the file could be run; see `start`.
            ValueError: for other images.
        """
        if images.dtype != torch.float32 or images.ndim != 4 or not images.numel():
            got = f"{images.dtype} of shape {tuple(images.shape)}"
            raise ValueError(f"images: expected float32 (n, c, h, w) with n >= 1, got {got}")
        with self._lock:
            try:
                self.start()
            except NotReady as error:
                return Answer(None, f"could not be loaded: {error.reason}", 0.0, 0)
            start = time.monotonic()
            try:
                return self._apply(images, seed, start)
            except (Ended, Unusable) as error:
                seconds = time.monotonic() - start
                self.close()
                return Answer(None, str(error), seconds, 0)
            except BaseException:
                self.close()  # interrupted; a later reply would be taken for the next one's
                raise

    def _apply(self, images: Tensor, seed: int | None, start: float) -> Answer:
        count, channels, height, width = images.shape
        length = 4 * images.numel()
        allowed = 4 * count * channels * self.limits.pixels_out(height, width)
        header = Header(
            Status.APPLY,
            self._next(),
            dtype=channel.FLOAT32,
            dimensions=4,
            flags=0 if seed is None else channel.SEEDED,
            shape=(count, channels, height, width),
            length=length,
            seed=0 if seed is None else seed % (1 << 63),
        )
        buffer, fresh = self._buffer_of(channel.padded(length) + allowed)
        sent = torch.frombuffer(
            buffer.memory, dtype=torch.float32, count=images.numel(), offset=IMAGES
        )
        sent.view(images.shape).copy_(images)
        seconds = count * self.limits.seconds_per_image
        try:
            reply = self._ask(header, buffer, fresh, start + seconds, Status.ANSWER)
        except Late:
            each = f"{self.limits.seconds_per_image:g} s an image, {count} images"
            raise Ended(f"no answer within {seconds:g} s ({each})") from None
        peak = self._running().peak_memory()
        result = answers.images_of(buffer, reply, images, self.limits)
        notes = (MUTATES,) if reply.flags & channel.MUTATED else ()
        return Answer(result, None, time.monotonic() - start, peak, notes)

    def _running(self) -> Process:
        if self._process is None:
            raise Ended("is not running")
        return self._process

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _buffer_of(self, size: int) -> tuple[Buffer, bool]:
        """A buffer for so many bytes, and whether it is a new one."""
        if self._buffer is not None and self._buffer.size >= IMAGES + size:
            return self._buffer, False
        if self._buffer is not None:
            self._buffer.close()
        self._buffer = Buffer.create(size)
        return self._buffer, True

    def _ask(
        self, header: Header, buffer: Buffer, fresh: bool, deadline: float, expected: Status
    ) -> Header:
        """One request and its reply."""
        process = self._running()
        buffer.put(REQUEST, header)
        process.give_turn(buffer.descriptor if fresh else None)
        process.await_turn(deadline)
        reply = answers.reply_to(buffer, header.sequence, expected)
        answers.check_parameters(reply, self.limits)
        return reply

    def _start(self) -> Started:
        start = time.monotonic()
        deadline = start + self.limits.start_seconds
        setup = self._setup()
        try:
            enforcement = self._launch(setup, deadline)
            buffer, fresh = self._buffer_of(0)
            header = Header(Status.LOAD, self._next())
            reply = self._ask(header, buffer, fresh, deadline, Status.READY)
        except (Ended, Unusable) as error:
            self.close()
            raise NotReady(self.path, str(error)) from None
        except Late:
            self.close()
            limit = f"{self.limits.start_seconds:g} s"
            raise NotReady(self.path, f"was not ready within {limit}") from None
        except BaseException:
            self.close()
            raise
        return Started(reply.parameters, enforcement, time.monotonic() - start)

    def _launch(self, setup: Setup, deadline: float) -> Enforcement:
        """Start the process, without namespaces where they are refused."""
        while True:
            self._process = Process(setup, _libraries(), deadline)
            try:
                return self._process.begin(deadline)
            except Refused as error:
                self._process.end()
                self._process = None
                if setup.refused:
                    raise SandboxError(f"cannot lock up a process here: {error}") from None
                _refusals.append(f"namespaces are refused ({error})")
                setup = self._setup()

    def _setup(self) -> Setup:
        if sys.platform != "linux":
            raise SandboxError(f"defences from files run on Linux only, not on {sys.platform}")
        file = self.path.resolve()
        folder = file.parent
        if not file.is_file():
            raise DefenseError(f"defence: expected a Python file, got {self.path}")
        unseen = self.unseen.resolved()
        if folder in unseen.stores or folder == Path(folder.anchor):
            raise DefenseError(f"defence: {self.path}: expected a file in a folder of its own")
        hidden = [*unseen.paths, *contents(folder, unseen).hidden]
        refused = "; ".join(_refusals[:1]) if self.namespaces else "namespaces are not wanted"
        return Setup(
            name=f"defence-{uuid.uuid4().hex[:7]}",
            file=str(file),
            folder=str(folder),
            seen=view.places(folder, [*map(Path, _libraries()), *OWN], hidden),
            hidden=[str(path) for path in hidden],
            scratch=tempfile.mkdtemp(prefix="image-defender-"),
            threads=self.threads,
            limits=self.limits,
            refused=refused,
        )


def _libraries() -> list[str]:
    """Folders that torch and numpy are imported from."""
    files = [module.__file__ for module in (torch, numpy)]
    return sorted({str(Path(file).parents[1]) for file in files if file is not None})
