"""Fewer levels a channel, evenly spaced, in any number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from defender.purifiers.filters import Filter
from defender.types import Images, parameter


@dataclass(frozen=True)
class ColourQuantisation(Filter):
    """Rounds each value to the nearest of evenly spaced levels: ``round(x (L - 1)) / (L - 1)``.

    :class:`~defender.purifiers.filters.BitDepth` is the same for powers of two.

    Args:
        levels: L, levels a channel.

    Source: W. Xu, D. Evans, Y. Qi, "Feature Squeezing: Detecting Adversarial Examples in Deep
    Neural Networks", 2018, arXiv 1704.01155, section II.A (colour depth).
    Differs: any number of levels; halves are rounded to even.
    """

    paper: ClassVar[str] = (
        "W. Xu, D. Evans, Y. Qi, Feature Squeezing: Detecting Adversarial Examples in Deep Neural "
        "Networks, 2018, arXiv 1704.01155"
    )

    levels: int = parameter(16, doc="levels a channel", low=2, high=256)

    def filtered(self, images: Images) -> Images:
        """Rounded images; the exact gradient is zero."""
        top = self.levels - 1
        rounded: Images = (images * top).round() / top
        return rounded
