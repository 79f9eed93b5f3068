"""Purifiers, by the name used in spec files; docs/algorithms.md maps names to papers and files."""

from __future__ import annotations

from typing import Any

from defender.purifiers.area import AreaScaling
from defender.purifiers.filters import JPEG, BitDepth, Gaussian, Median
from defender.purifiers.selective import SelectiveMedian, SelectiveRandom
from defender.purifiers.selective_interpolation import SelectiveInterpolation
from defender.purifiers.separate_correct_combine import SeparateCorrectCombine
from defender.purifiers.xray_filters import Minimum, PeakRemoval, Unsharp

PURIFIERS: dict[str, type[Any]] = {
    "SeparateCorrectCombine": SeparateCorrectCombine,
    "Median": Median,
    "Gaussian": Gaussian,
    "BitDepth": BitDepth,
    "JPEG": JPEG,
    "SelectiveMedian": SelectiveMedian,
    "SelectiveRandom": SelectiveRandom,
    "SelectiveInterpolation": SelectiveInterpolation,
    "AreaScaling": AreaScaling,
    "Minimum": Minimum,
    "PeakRemoval": PeakRemoval,
    "Unsharp": Unsharp,
}

__all__ = [
    "JPEG",
    "PURIFIERS",
    "AreaScaling",
    "BitDepth",
    "Gaussian",
    "Median",
    "Minimum",
    "PeakRemoval",
    "SelectiveInterpolation",
    "SelectiveMedian",
    "SelectiveRandom",
    "SeparateCorrectCombine",
    "Unsharp",
]
