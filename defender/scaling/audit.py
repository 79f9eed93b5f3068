"""What can be hidden from a resize: a certificate that needs neither an attack nor an image.

``scale(A) - scale(S) = L (A - S) R`` is at most ``||L|| ||R||`` times as long as ``A - S``, so an
image A that scales to a target T is at least that far from its source S, whatever made it:
``PSNR(A, S) <= PSNR(scale(S), T) + G``, with the hiding gain G of :class:`Scaler`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from defender.scaling.libraries import ALGORITHMS
from defender.scaling.scaler import Scaler, Size
from defender.types import Images, Scores

Verdict = Literal["safe in general", "safe for unrelated pairs", "open"]

SAFE = 0.5
UNRELATED = 5.0
RATIOS = (2, 500 / 224, 3, 4, 1024 / 224)
"""Ratios of the table, at a target of 224 pixels."""

Method = tuple[str, str, bool]
"""Library, algorithm, antialias."""


def psnr_bound(scaler: Scaler, source: Images, target: Images, epsilon: float = 0.0) -> Scores:
    """The largest PSNR that an attack image can have to its source, whatever the attack.

    ``||A - S|| >= max(0, ||T - L S R|| - epsilon sqrt(c n m)) / (||L|| ||R||)``. The bound is on
    ``L A R``. Rounding to 8 bits moves what a library makes of A by half a level or more, which
    belongs in ``epsilon``.

    Args:
        scaler: the resize.
        source: (n, c, h, w) in [0, 1].
        target: (n, c, height, width) in [0, 1].
        epsilon: root mean square, or largest, difference of ``L A R`` from the target that still
            counts as reaching it, >= 0, in [0, 1] units.

    Returns:
        float64 (n,), dB at peak 1; inf where the source itself scales to the target.

    Raises:
        ValueError: sizes that do not fit, or a negative epsilon.
    """
    if epsilon < 0:
        raise ValueError(f"epsilon: expected >= 0, got {epsilon}")
    small = scaler.linear(source.double())
    if target.shape != small.shape:
        raise ValueError(f"target: expected {tuple(small.shape)}, got {tuple(target.shape)}")
    difference = (target.double() - small).square().mean(dim=(1, 2, 3)).sqrt()
    reached = -20 * torch.log10((difference - epsilon).clamp_min(0))
    return reached + scaler.hiding_gain()


def verdict(gain: float) -> Verdict:
    """What a hiding gain in dB means.

    Unrelated natural images lie 8 to 10 dB apart, and an attack passes for its source from 15 dB
    on. Below 5 dB of gain none does; below 0.5 dB an attack is as visible as the target painted
    over the source, also for targets that resemble it.
    """
    if gain < SAFE:
        return "safe in general"
    return "safe for unrelated pairs" if gain < UNRELATED else "open"


@dataclass(frozen=True)
class Audit:
    """What there is to say of a resize.

    Args:
        scaler: the resize.
        hiding_gain: G in dB, >= 0.
        considered_fraction: share of pixels with any influence on the output.
        effective_fraction: the same with pixels counted by their weight.
        verdict: the gain in words.
        change: the nearest resize to the same size that is safe in general; None where this one
            is, or where none is found.
    """

    scaler: Scaler
    hiding_gain: float
    considered_fraction: float
    effective_fraction: float
    verdict: Verdict
    change: Scaler | None

    @property
    def advice(self) -> str:
        """What to do, in a sentence."""
        if self.verdict == "safe in general":
            return "no change is needed"
        if self.change is None:
            return "no resize to this size is safe in general"
        return f"use {method_name(self.change)} ({self.change.hiding_gain():.1f} dB)"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        change = self.change and {
            **_method_fields(self.change),
            "hiding_gain": round(self.change.hiding_gain(), 4),
        }
        return {
            **_method_fields(self.scaler),
            "source": list(self.scaler.source),
            "target": list(self.scaler.target),
            "hiding_gain": round(self.hiding_gain, 4),
            "considered_fraction": round(self.considered_fraction, 6),
            "effective_fraction": round(self.effective_fraction, 6),
            "verdict": self.verdict,
            "advice": self.advice,
            "change": change,
        }


def _method_fields(scaler: Scaler) -> dict[str, Any]:
    return {
        "library": scaler.library,
        "algorithm": scaler.algorithm,
        "antialias": scaler.antialias,
    }


def method_name(scaler: Scaler) -> str:
    """Library and algorithm in words."""
    smooth = " antialiased" if scaler.antialias else ""
    return f"{scaler.library} {scaler.algorithm}{smooth}"


def audit(scaler: Scaler) -> Audit:
    """Rate a resize by its matrices."""
    gain = scaler.hiding_gain()
    return Audit(
        scaler=scaler,
        hiding_gain=gain,
        considered_fraction=scaler.considered_fraction(),
        effective_fraction=scaler.effective_fraction(),
        verdict=verdict(gain),
        change=None if gain < SAFE else _change(scaler),
    )


def _change(scaler: Scaler) -> Scaler | None:
    """The first safe one of: antialiased, area, antialiased linear; then Pillow, then torch."""
    others = [library for library in ("pillow", "torch") if library != scaler.library]
    wanted: list[Method] = [(scaler.library, scaler.algorithm, True)]
    for library in (scaler.library, *others):
        if library != scaler.library:
            wanted.append((library, scaler.algorithm, library == "torch"))
        wanted += [(library, "area", False), (library, "linear", library == "torch")]
    known = [Scaler(*one, scaler.source, scaler.target) for one in wanted if one in METHODS]
    return next((one for one in known if one.hiding_gain() < SAFE), None)


def _methods() -> Iterator[Method]:
    for library, algorithms in ALGORITHMS.items():
        for algorithm in algorithms:
            # Pillow's box is its area
            if (library, algorithm) != ("pillow", "box"):
                yield library, algorithm, False
                if library == "torch" and algorithm in ("linear", "cubic"):
                    yield library, algorithm, True


METHODS = tuple(_methods())
"""Every resize that the libraries offer, once."""


def table(
    sizes: Sequence[tuple[Size, Size]] | None = None, methods: Sequence[Method] = METHODS
) -> list[list[Audit]]:
    """Audits of methods at pairs of source and target size.

    Args:
        sizes: pairs of sizes; None for squares of the ratios 2, 500/224, 3, 4 and 1024/224.
        methods: library, algorithm and antialias of each.

    Returns:
        A row a method, a column a pair of sizes.
    """
    if sizes is None:
        sides = [round(224 * ratio) for ratio in RATIOS]
        sizes = [((side, side), (224, 224)) for side in sides]
    return [[audit(Scaler(*method, *pair)) for pair in sizes] for method in methods]
