"""The gradient mask of the Image-Defender chain, as a detector that says where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.objectives import Classifier
from defender.separation import gradient_magnitude, predict, suspected
from defender.smoothing import median_filter
from defender.types import Images, Knowledge, Scores, Seeds, check_parameters, parameter

WINDOW = 3


@dataclass(frozen=True)
class GradientMask:
    """Values whose input gradient stands out, and how much of the gradient they hold.

    ``G = |d/dx CE(f(x), y0)|``; the map is ``M = [G > mean(G) + k * std(G)]``; the score is the
    share of the gradient's energy inside it, ``sum_M G^2 / sum G^2``, in [0, 1]. It says where
    the model is sensitive, not where the image was changed: report its precision and recall
    against the true change.

    Args:
        model: maps images in [0, 1] to logits.
        k: standard deviations above the mean, per image over all channels together, N - 1.
        labelled_by: whose predicted class is y0: that of the median-smoothed image (3 x 3), of the
            image itself (``"own"``), or of the clean ``reference``.

    Raises:
        ValueError: ``labelled_by="reference"`` without a reference.
        TypeError: a model without a gradient.
        FloatingPointError: a gradient that is not finite.

    Source: XuanZhao777, Image-Defender (repository), separation step.
    Differs: the repository uses the mask only to split images and its label is that of the clean
    image; the score and the blind labels are ours.
    """

    version: ClassVar[int] = 1
    paper: ClassVar[str] = "XuanZhao777, Image-Defender, GitHub repository"

    model: Classifier
    k: float = parameter(1.0, doc="standard deviations above the mean gradient")
    labelled_by: str = parameter(
        "smoothed",
        doc="image whose predicted class the gradient is taken for",
        choices=("smoothed", "own", "reference"),
    )

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def knowledge(self) -> Knowledge:
        """``"reference"`` if the label is that of the clean image, else ``"model"``."""
        return "reference" if self.labelled_by == "reference" else "model"

    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Scores:
        """Share (n,) in [0, 1] of the gradient energy inside the map; 0 without a gradient.

        Args:
            images: (n, c, h, w) in [0, 1].
            seeds: unused, the detector is deterministic.
            reference: (n, c, h, w) clean images, for ``labelled_by="reference"``.
        """
        magnitude = self._magnitude(images, reference)
        energy = magnitude.square()
        inside = (energy * suspected(magnitude, self.k)).sum(dim=(1, 2, 3))
        whole = energy.sum(dim=(1, 2, 3))
        return torch.where(whole > 0, inside / whole, 0.0)

    def map(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> Tensor | None:
        """The mask M, bool (n, c, h, w); arguments as for the score."""
        return suspected(self._magnitude(images, reference), self.k)

    def _magnitude(self, images: Images, reference: Images | None) -> Tensor:
        images = images.detach()
        if self.labelled_by == "own":
            labelled = images
        elif self.labelled_by == "smoothed":
            labelled = median_filter(images, WINDOW)
        elif reference is None:
            raise ValueError(
                "reference: expected clean images for labelled_by='reference', got None"
            )
        else:
            labelled = reference
        return gradient_magnitude(self.model, images, predict(self.model, labelled))
