"""Detectors, by the name used in spec files; docs/algorithms.md maps names to papers and files."""

from __future__ import annotations

from typing import Any

from defender.detectors.gradient_mask import GradientMask

DETECTORS: dict[str, type[Any]] = {"GradientMask": GradientMask}

__all__ = ["DETECTORS", "GradientMask"]
