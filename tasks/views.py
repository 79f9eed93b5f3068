"""What is asked of the images of a stored run, and what is shown of them."""

from __future__ import annotations

from dataclasses import dataclass, field

ORDERS = ("worst", "best", "place")
DETECTOR = "detector: "
"""Before the label of a detector where its score is what images are ordered by."""


@dataclass(frozen=True)
class View:
    """Which images are looked at, and in which order.

    Args:
        attack: label, or ``"none"``.
        purifier: label, or ``"none"``.
        show: ``"all"``, ``"fooled"``, ``"restored"``, ``"wrong"`` or ``"flagged"``.
        detector: that flags; the first of the attack's where it is empty.
        by: column that says what is worst; the first that there is where it is empty.
        order: one of :data:`ORDERS`.
        search: part of a name, in either case.
    """

    attack: str = "none"
    purifier: str = "none"
    show: str = "all"
    detector: str = ""
    by: str = ""
    order: str = "place"
    search: str = ""


@dataclass(frozen=True)
class Answer:
    """What a model said of a picture: class, confidence, and whether that is right if known."""

    said: str
    confidence: float
    right: bool | None


@dataclass(frozen=True)
class Pane:
    """One picture of a strip.

    Args:
        role: what it shows.
        node: number of the stage that made it.
        difference: it shows what the stage changed, not what it made.
        answer: what a model said of it.
        score: of a quality metric or face encoder, with its name.
    """

    role: str
    node: int
    difference: bool = False
    answer: Answer | None = None
    score: tuple[str, float] | None = None


@dataclass(frozen=True)
class Flag:
    """What a detector said of an image; ``flagged`` is None where it has no threshold."""

    detector: str
    score: float
    flagged: bool | None


@dataclass(frozen=True)
class Shot:
    """One image of a page: its pictures and its figures."""

    place: int
    name: str
    truth: str
    panes: list[Pane]
    figures: list[tuple[str, float]]
    flags: list[Flag]
    by: tuple[str, float] | None = None


@dataclass(frozen=True)
class Page:
    """Some images of a run.

    Args:
        shots: the images.
        number: of the page, from 1.
        pages: how many there are, at least 1.
        found: images that the filters leave.
        total: images of the run.
    """

    shots: list[Shot] = field(default_factory=list)
    number: int = 1
    pages: int = 1
    found: int = 0
    total: int = 0
