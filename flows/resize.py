"""The resize of a run as a page shows it: source sizes, other methods, bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from defender.scaling import Scaler
from defender.scaling.audit import Audit
from flows.scorecard import DASH, PERCENT, count
from tasks.resize_facts import Resize

LIBRARIES = ("opencv", "pillow", "torch", "torch antialiased")


@dataclass(frozen=True)
class Gain:
    """A hiding gain as a cell of a table.

    Args:
        value: in dB.
        verdict: in words.
        kind: class of the cell: ``safe``, ``unrelated`` or ``open``.
        own: it is the run's own resize.
    """

    value: str
    verdict: str
    kind: str
    own: bool = False


@dataclass(frozen=True)
class View:
    """What the page shows of a resize.

    Args:
        method: library and algorithm.
        target: height and width the model sees.
        sources: size, number of images, gain, considered and effective share of each source size.
        more: words on the sizes that are not listed, or empty.
        source: the most frequent size.
        libraries: headings of the table of other methods.
        methods: algorithm and one gain a library of each row, None where a library lacks it.
        bounds: attack, number of images, what was seen, bound, measured and margin, in dB.
    """

    method: str
    target: str
    sources: list[tuple[str, int, Gain, str, str]]
    more: str
    source: str
    libraries: tuple[str, ...]
    methods: list[tuple[str, list[Gain | None]]]
    bounds: list[tuple[str, int, str, str, str, str]]


def view(resize: Resize) -> View:
    """Arrange the facts for the page."""
    own = resize.sources[0].audit
    more = ""
    if resize.more_sizes:
        sizes = f"{count(resize.more_sizes)} more size{'s' * (resize.more_sizes > 1)}"
        more = f"{sizes}, of {count(resize.more_images)} images together."
    return View(
        method=resize.method,
        target=sides(resize.target),
        sources=[
            (
                sides(source.audit.scaler.source),
                source.images,
                _gain(source.audit),
                _share(source.audit.considered_fraction),
                _share(source.audit.effective_fraction),
            )
            for source in resize.sources
        ],
        more=more,
        source=sides(own.scaler.source),
        libraries=LIBRARIES,
        methods=_methods(resize.others, own),
        bounds=[
            (
                one.attack,
                one.images,
                _decibels(one.seen),
                _decibels(one.bound),
                _decibels(one.measured),
                f"{round(one.margin, 2) + 0.0:.2f}",
            )
            for one in resize.bounds
        ],
    )


def sentence(resize: Resize) -> str:
    """The resize in the words of a verdict."""
    source = resize.sources[0]
    gain = source.audit.hiding_gain
    which = "the size of all images"
    if source.images < resize.images:
        which = f"the size of {count(source.images)} of {count(resize.images)} images"
    size = sides(source.audit.scaler.source)
    return (
        f"The model sees {sides(resize.target)} pixels, made by {resize.method}. From {size}, "
        f"{which}, an attack image can be {_decibels(gain)} dB closer to the original than the "
        f"picture it hides is (hiding gain): {source.audit.verdict}; {source.audit.advice}."
    )


def sides(size: tuple[int, int]) -> str:
    """Height and width in one word."""
    return f"{size[0]}\u00d7{size[1]}"


def _methods(audits: Sequence[Audit], own: Audit) -> list[tuple[str, list[Gain | None]]]:
    found: dict[str, list[Gain | None]] = {}
    for one in audits:
        scaler = one.scaler
        library = f"{scaler.library}{' antialiased' * scaler.antialias}"
        row = found.setdefault(scaler.algorithm, [None] * len(LIBRARIES))
        row[LIBRARIES.index(library)] = _gain(one, own=_method(scaler) == _method(own.scaler))
    return list(found.items())


def _method(scaler: Scaler) -> tuple[str, str, bool]:
    """A method by one name: Pillow's box is its area, and it antialiases whatever is said."""
    algorithm = "area" if scaler.algorithm == "box" else scaler.algorithm
    return scaler.library, algorithm, scaler.antialias and scaler.library == "torch"


def _gain(one: Audit, *, own: bool = False) -> Gain:
    kind = {"safe in general": "safe", "safe for unrelated pairs": "unrelated", "open": "open"}
    return Gain(_decibels(one.hiding_gain), one.verdict, kind[one.verdict], own)


def _decibels(value: float) -> str:
    return DASH if value != value else f"{round(value, 1) + 0.0:.1f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f}{PERCENT}"
