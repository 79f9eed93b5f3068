"""A printed grid patch found by its gradient energy, all of which lies on a lattice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.boxes import box_mask
from defender.detectors.patch_lattice import SCANNED, Evidence, Square, strongest_square
from defender.detectors.scoring import ImageScore
from defender.types import Images, Knowledge, Scores, Seeds, parameter


@dataclass(frozen=True)
class PatchEnergy(ImageScore):
    """How much the most suspicious square looks like a grid of flat cells, and where it is.

    A printed grid patch has edges on the lines of a square lattice and none inside its cells. For
    every square of 4 to 16 cells a side, cells of 2 pixels or more, and every place, the score is

    ``S = 2 / sqrt(N) min over both directions of (sum over pairs across inner lines of (e - t)
    - w / (k - 1) sum over pairs inside cells of i)``

    with N pairs across lines, cells of k pixels, t ``least_step`` and w ``flatness``. e and i are
    differences of neighbouring pixels as shares of ``contrast``, at most 1: of luma, or of the
    most different channel times 1/2 (e) or 1/4 (i). Texture, noise and edges are as strong inside
    cells as at lines and cancel, flat regions have no steps. Of clean photographs 99 % score below
    0 or little above, patches of random colours 5 to 15. Cells of a single pixel are not found.

    Args:
        contrast: difference from which on neighbours count as fully different.
        least_step: what lines must exceed on average, as a share of ``contrast``.
        flatness: weight of differences inside cells.
        smallest: least side of a square as a share of the shorter side of the image.
        largest: greatest side of a square, as such a share.
        threshold: score above which the map shows the square; scores do not depend on it.

    Raises:
        ValueError: ``largest`` below ``smallest``; when called, neither 1 nor 3 channels.

    Source: after Z. Fan, R. de Queiroz, "Identification of Bitmap Compression History: JPEG
    Detection and Quantizer Estimation", 2003, DOI 10.1109/TIP.2002.807361, who compare differences
    across block lines with those inside blocks.
    Differs: the lattice is unknown and covers a part of the image; sums and search are ours.
    """

    paper: ClassVar[str] = (
        "after Z. Fan, R. de Queiroz, Identification of Bitmap Compression History: JPEG Detection "
        "and Quantizer Estimation, 2003, DOI 10.1109/TIP.2002.807361"
    )
    knowledge: ClassVar[Knowledge] = "blind"

    contrast: float = parameter(
        16.0, doc="difference that counts fully", low=0, high=255, open_low=True, unit="levels"
    )
    least_step: float = parameter(0.2, doc="share of it that lines exceed", low=0, high=1)
    flatness: float = parameter(1.2, doc="weight of differences inside cells", low=0)
    smallest: float = parameter(0.06, doc="least side of a square, share of the side", low=0)
    largest: float = parameter(0.3, doc="greatest side of a square, share of the side", high=1)
    threshold: float = parameter(1.0, doc="score above which the map shows the square")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.largest < self.smallest:
            raise ValueError(f"largest: expected >= smallest {self.smallest}, got {self.largest}")

    def score(self, images: Images, seeds: Seeds) -> Scores:
        """S of the best square (n,); of a flat image where no square fits in."""
        flat = -self.least_step * (2 * (SCANNED[0] - 1) * SCANNED[0] * 2) ** 0.5
        scores = [flat if square is None else square.score for square in self._squares(images)]
        return torch.tensor(scores, dtype=torch.float64, device=images.device)

    def where(self, images: Images, seeds: Seeds) -> Tensor:
        """The best square where its score exceeds the threshold, bool (n, c, h, w)."""
        return box_mask(self.boxes(images), (images.shape[2], images.shape[3])).expand(images.shape)

    @torch.no_grad()
    def boxes(self, images: Images) -> Tensor:
        """The best squares whose score exceeds the threshold.

        Args:
            images: (n, c, h, w) in [0, 1].

        Returns:
            int64 (n, 4) top, left, height, width; zeros where nothing is found.
        """
        found = [
            (0, 0, 0, 0) if square is None or square.score <= self.threshold else square.box
            for square in self._squares(images)
        ]
        return torch.tensor(found, dtype=torch.int64, device=images.device).view(-1, 4)

    def _squares(self, images: Images) -> list[Square | None]:
        # image by image: sums then do not depend on the batch, and stay in the core's cache
        evidence = Evidence(self.contrast, self.least_step, self.flatness)
        return [strongest_square(image, evidence, self.smallest, self.largest) for image in images]
