"""Purifiers, by the name used in spec files; docs/algorithms.md maps names to papers and files."""

from __future__ import annotations

from typing import Any

from defender.purifiers.filters import JPEG, BitDepth, Gaussian, Median
from defender.purifiers.separate_correct_combine import SeparateCorrectCombine

PURIFIERS: dict[str, type[Any]] = {
    "SeparateCorrectCombine": SeparateCorrectCombine,
    "Median": Median,
    "Gaussian": Gaussian,
    "BitDepth": BitDepth,
    "JPEG": JPEG,
}

__all__ = ["JPEG", "PURIFIERS", "BitDepth", "Gaussian", "Median", "SeparateCorrectCombine"]
