"""Scaling attacks show when an image is scaled down and up again: A against U = up(down(A))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.detectors.scoring import COMPARISONS, ImageScore, dissimilarity, luma
from defender.norms import from_uint8, to_uint8
from defender.scaling import Pipeline
from defender.types import Images, Knowledge, Scores, Seeds, parameter

_XIAO = (
    "Q. Xiao, Y. Chen, C. Shen, Y. Chen, K. Li, Seeing is Not Believing: Camouflage Attacks on "
    "Image Scaling Algorithms, 2019, USENIX Security"
)
_BINS = 256


def down_and_up(images: Images, pipeline: Pipeline) -> tuple[Tensor, Tensor]:
    """A and U as uint8 (n, c, h, w), U by the pipeline's own 8-bit scaler in both directions."""
    pixels, scaler = to_uint8(images), pipeline.of(images)
    return pixels, scaler.reverse()(scaler(pixels))


@dataclass(frozen=True)
class HistogramCosine(ImageScore):
    """Do the grey-level histograms of A and U differ: ``1 - <h_A, h_U> / (|h_A| |h_U|)``.

    256 bins; in [0, 1], 0 for equal histograms.

    Args:
        pipeline: how the model's pipeline resizes.

    Raises:
        ValueError: when called, images with neither 1 nor 3 channels.

    Source: Q. Xiao, Y. Chen, C. Shen, Y. Chen, K. Li, "Seeing is Not Believing: Camouflage
    Attacks on Image Scaling Algorithms", 2019, USENIX Security, section 6.
    Differs: the score is one minus the similarity.
    """

    paper: ClassVar[str] = _XIAO
    knowledge: ClassVar[Knowledge] = "pipeline"

    pipeline: Pipeline

    def score(self, images: Images, seeds: Seeds) -> Scores:
        """One minus the cosine (n,)."""
        attacked, restored = (_histogram(luma(p)) for p in down_and_up(images, self.pipeline))
        return _one_minus_cosine(attacked, restored).to(images.device)


@dataclass(frozen=True)
class ColourScattering(ImageScore):
    """Do the grey levels of A and U lie at other distances from the centre.

    For each level the mean Euclidean distance of its pixels from ``(h // 2, w // 2)``, 0 for
    levels of fewer than 2 pixels: 256 numbers; the score is one minus the cosine of those of A
    and U, in [0, 1].

    Args:
        pipeline: how the model's pipeline resizes.

    Raises:
        ValueError: when called, images with neither 1 nor 3 channels.

    Source: Q. Xiao, Y. Chen, C. Shen, Y. Chen, K. Li, "Seeing is Not Believing: Camouflage
    Attacks on Image Scaling Algorithms", 2019, USENIX Security, section 6.
    Differs: the score is one minus the similarity; 0 where no level of either has 2 pixels, 1
    where only one of them has such.
    """

    paper: ClassVar[str] = _XIAO
    knowledge: ClassVar[Knowledge] = "pipeline"

    pipeline: Pipeline

    def score(self, images: Images, seeds: Seeds) -> Scores:
        """One minus the cosine (n,)."""
        attacked, restored = (_scattering(luma(p)) for p in down_and_up(images, self.pipeline))
        return _one_minus_cosine(attacked, restored).to(images.device)


@dataclass(frozen=True)
class DecamouflageScaling(ImageScore):
    """How far U is from A: mean squared error of grey levels, or 1 minus SSIM.

    Args:
        pipeline: how the model's pipeline resizes.
        metric: ``"mse"``, summed over the channels, or ``"ssim"``, which is 0 for images with a
            side below 11 pixels.

    Source: B. Kim, A. Abuadbba, Y. Gao, Y. Zheng, M. Ahmed, S. Nepal, H. Kim, "Decamouflage: A
    Framework to Detect Image-Scaling Attacks on CNN", 2021, arXiv 2010.03735, method 1.
    Differs: SSIM with population covariance, the authors' code has the sample covariance.
    """

    paper: ClassVar[str] = (
        "B. Kim et al., Decamouflage: A Framework to Detect Image-Scaling Attacks on CNN, 2021, "
        "arXiv 2010.03735"
    )
    knowledge: ClassVar[Knowledge] = "pipeline"

    pipeline: Pipeline
    metric: str = parameter("mse", doc="how A and U are compared", choices=COMPARISONS)

    def score(self, images: Images, seeds: Seeds) -> Scores:
        """Dissimilarity (n,), >= 0."""
        attacked, restored = down_and_up(images, self.pipeline)
        return dissimilarity(from_uint8(attacked), from_uint8(restored), self.metric)


def _by_level(grey: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sum of weights of the pixels of each level, float64 (n, 256), of grey images (n, h, w)."""
    # on the CPU, whose sums have one order
    images = torch.arange(len(grey)).view(-1, 1, 1) * _BINS
    bins = (grey.cpu().long() + images).flatten()
    given = None if weights is None else weights.expand(grey.shape).flatten()
    counts = torch.bincount(bins, given, minlength=len(grey) * _BINS)
    return counts.view(-1, _BINS).double()


def _histogram(grey: Tensor) -> Tensor:
    return _by_level(grey)


def _scattering(grey: Tensor) -> Tensor:
    height, width = grey.shape[1:]
    rows = torch.arange(height, dtype=torch.float64) - height // 2
    columns = torch.arange(width, dtype=torch.float64) - width // 2
    distance = torch.hypot(rows.unsqueeze(1), columns)
    pixels = _by_level(grey)
    return torch.where(pixels > 1, _by_level(grey, distance) / pixels.clamp_min(1), 0.0)


def _one_minus_cosine(first: Tensor, second: Tensor) -> Scores:
    lengths = torch.linalg.vector_norm(first, dim=1) * torch.linalg.vector_norm(second, dim=1)
    cosine = (first * second).sum(1) / lengths
    neither = ((first == 0) & (second == 0)).all(1)
    # where lengths are 0: nothing to compare, or nothing in common
    cosine = torch.where(lengths > 0, cosine, neither.double())
    return (1 - cosine).clamp_(0, 1)
