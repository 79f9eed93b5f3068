"""A user's own defence, from a file that nobody vouches for, as a purifier of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from defender.purifiers import PURIFIERS
from defender.types import Images, Knowledge, Seeds, check_parameters, parameter
from storage.ledger import digest_of
from tasks.errors import DefenseError
from tasks.sandbox.contents import Unseen, contents
from tasks.sandbox.defence import WEIGHTS, SandboxedDefense
from tasks.sandbox.limits import Limits

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class DefenceFile:
    """The class ``Defense`` of a Python file, run in a process of its own.

    Args:
        path: the file, relative to the specification.
        time_limit: seconds an image.
        memory_limit: megabytes of resident memory, torch itself included.
        parameter_limit: parameters of the networks it holds.
        start_limit: seconds to import torch, load the file and make the ``Defense``.
        home: what a relative path is relative to.
        unseen: says what it must not see.

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
    start_limit: float = parameter(
        60.0, doc="time limit of loading it", low=0, open_low=True, unit="s"
    )
    home: Path = field(default=Path(), repr=False)
    unseen: Callable[[], Unseen] = field(default=Unseen, repr=False, compare=False)

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

    @property
    def digest(self) -> str:
        """SHA-256 over the file and everything else that it sees of its folder, as it is now.

        Raises:
            DefenseError: where too much lies there.
        """
        folder = self.file.resolve().parent
        return contents(folder, self.unseen().resolved()).digest(folder)

    def __repr__(self) -> str:
        limits = f"{self.time_limit:g} s, {self.memory_limit} MB, {self.parameter_limit} parameters"
        limits += f", {self.start_limit:g} s to start"
        return f"Defense({self.file.name}@{self.digest[:12]}, {limits}, beside {_own_digest()})"

    def sandbox(self) -> SandboxedDefense:
        """A process for it, not yet started."""
        limits = Limits(
            seconds_per_image=self.time_limit,
            start_seconds=self.start_limit,
            memory_bytes=self.memory_limit * MEGABYTE,
            parameters=self.parameter_limit,
        )
        return SandboxedDefense(self.file, limits, unseen=self.unseen())

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


def _own_digest() -> str:
    """What a defence may import and load of this package, in a few letters."""
    stated = {name: getattr(kind, "version", None) for name, kind in PURIFIERS.items()}
    versions = {name: value for name, value in stated.items() if isinstance(value, int)}
    weights = contents(WEIGHTS, Unseen()).digest(WEIGHTS) if WEIGHTS.is_dir() else None
    return digest_of([versions, weights])[:12]


PURIFIER_KINDS: dict[str, type[Any]] = {**PURIFIERS, "Defense": DefenceFile}
"""Every purifier that a specification can name."""
