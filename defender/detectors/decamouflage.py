"""Decamouflage's blind detectors: a minimum or maximum filter, and bright points of the spectrum.

Source of both: B. Kim, A. Abuadbba, Y. Gao, Y. Zheng, M. Ahmed, S. Nepal, H. Kim, "Decamouflage: A
Framework to Detect Image-Scaling Attacks on CNN", 2021, arXiv 2010.03735.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from defender.detectors.scoring import COMPARISONS, LEVELS, ImageScore, dissimilarity, luma
from defender.detectors.spectrum import log_spectrum
from defender.norms import to_uint8
from defender.shifted_sums import correlate, gaussian_weights
from defender.smoothing import minimum_filter
from defender.types import Images, Knowledge, Scores, Seeds, parameter

_PAPER = (
    "B. Kim et al., Decamouflage: A Framework to Detect Image-Scaling Attacks on CNN, 2021, "
    "arXiv 2010.03735"
)
_MEDIAN = 3


@dataclass(frozen=True)
class DecamouflageFiltering(ImageScore):
    """How far an image is from its minimum or maximum filter: hidden pixels stand out of both.

    Args:
        filter: smallest or largest value of the window around each pixel, cut at the border,
            channel by channel.
        window: odd side of the window.
        metric: ``"mse"``: mean squared error of grey levels, summed over the channels; ``"ssim"``:
            1 minus SSIM, which is 0 for images with a side below 11 pixels.

    Raises:
        ValueError: an even window.

    Source: B. Kim et al., "Decamouflage: A Framework to Detect Image-Scaling Attacks on CNN", 2021,
    arXiv 2010.03735, method 2.
    Differs: SSIM with population covariance; the authors' code compares with a filtered image
    that went through a JPEG file.
    """

    paper: ClassVar[str] = _PAPER
    knowledge: ClassVar[Knowledge] = "blind"

    filter: str = parameter(
        "minimum", doc="the filter that the image is compared with", choices=("minimum", "maximum")
    )
    window: int = parameter(3, doc="odd side of the window", low=1, unit="pixels")
    metric: str = parameter("mse", doc="how both are compared", choices=COMPARISONS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window % 2 == 0:
            raise ValueError(f"window: expected an odd number >= 1, got {self.window}")

    def score(self, images: Images, seeds: Seeds) -> Scores:
        """Dissimilarity (n,), >= 0."""
        if self.filter == "minimum":
            filtered = minimum_filter(images, self.window)
        else:
            filtered = -minimum_filter(-images, self.window)
        return dissimilarity(images, filtered, self.metric)


@dataclass(frozen=True)
class DecamouflageSteganalysis(ImageScore):
    """How many bright points the centred spectrum has (CSP); a benign image has one, its centre.

    ``20 ln|F|`` of the grey image, rounded to 8 bits and clipped; 255 where it exceeds ``level``,
    else 0; 3 x 3 median; Gaussian of ``blur x blur``, rounded to 8 bits; the score is the number of
    contours of what is not 0, outer ones of 8-connected regions and those of their holes.

    Args:
        level: grey level of the spectrum above which a coefficient is bright. The paper's 250 is
            for photographs of several hundred pixels; coefficients grow with the number of
            pixels, and at 224 x 224 about 200 is the counterpart.
        blur: odd side of the Gaussian, whose standard deviation is ``0.15 blur + 0.35`` pixels.

    Raises:
        ValueError: an even blur; when called, images with neither 1 nor 3 channels.

    Source: B. Kim et al., "Decamouflage: A Framework to Detect Image-Scaling Attacks on CNN", 2021,
    arXiv 2010.03735, method 3.
    Differs: the score is the number itself (CSP-improved of Quiring et al., 2023, DOI
    10.1145/3627106.3627134), where the paper asks whether it exceeds 1; no JPEG file between
    spectrum and threshold; the Gaussian is that of real numbers, OpenCV's has 8-bit weights.
    """

    paper: ClassVar[str] = _PAPER
    knowledge: ClassVar[Knowledge] = "blind"

    level: int = parameter(
        250, doc="level above which the spectrum is bright", low=0, high=254, unit="grey levels"
    )
    blur: int = parameter(21, doc="odd side of the Gaussian", low=1, unit="coefficients")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blur % 2 == 0:
            raise ValueError(f"blur: expected an odd number >= 1, got {self.blur}")

    def score(self, images: Images, seeds: Seeds) -> Scores:
        """Number of contours (n,)."""
        spectrum = log_spectrum(luma(to_uint8(images)).double()).round_()
        bright = _median(spectrum > self.level)
        spread = _gaussian(bright, self.blur) * LEVELS >= 0.5
        counts = [contours(mask) for mask in spread.cpu().numpy()]
        return torch.tensor(counts, dtype=torch.float64, device=images.device)


def contours(mask: NDArray[np.bool_]) -> int:
    """Contours of the 8-connected regions of a mask (h, w) and of their holes."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return 0
    inside = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    regions = scipy.ndimage.label(inside, structure=np.ones((3, 3)))[1]
    # holes are 4-connected; the rim joins all background that is not one
    background = scipy.ndimage.label(np.pad(~inside, 1, constant_values=True))[1]
    return int(regions + background - 1)


def _median(mask: Tensor) -> Tensor:
    """3 x 3 median of masks (n, h, w), the border repeated."""
    margin = _MEDIAN // 2
    padded = functional.pad(mask.float().unsqueeze(1), [margin] * 4, mode="replicate")
    counted = functional.avg_pool2d(padded, _MEDIAN, stride=1, divisor_override=1)
    return counted.squeeze(1) > _MEDIAN**2 / 2


def _gaussian(mask: Tensor, side: int) -> Tensor:
    """Gaussian of ``side x side`` of masks (n, h, w), the border reflected: float32 (n, h, w)."""
    reach = side // 2
    values = mask.float()
    for axis in (1, 2):
        size = values.shape[axis]
        places = np.pad(np.arange(size), reach, mode="reflect" if size > 1 else "edge")
        values = values.index_select(axis, torch.from_numpy(places).to(values.device))
    return correlate(values, gaussian_weights(0.15 * side + 0.35, reach))
