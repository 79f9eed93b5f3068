"""Prevention: an image is scaled by area before a weaker scaler can look at a part of it only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from defender.scaling import Pipeline, Scaler
from defender.types import Images, Knowledge, Seeds


@dataclass(frozen=True)
class AreaScaling:
    """Scales images by area to the size that the model sees, in place of the pipeline's resize.

    Every pixel enters the small image by its area, so that nothing can be hidden in some of them.
    The pipeline, given images of its own target size, leaves them as they are. Smaller images are
    enlarged to that size, as OpenCV's ``INTER_AREA`` does it.

    Args:
        pipeline: how the model's pipeline resizes; only its target size is used.

    Source: E. Quiring, D. Klein, D. Arp, M. Johns, K. Rieck, "Adversarial Preprocessing:
    Understanding and Preventing Image-Scaling Attacks in Machine Learning", 2020, USENIX Security.
    Differs: none; the coefficients are OpenCV's in closed form, without its rounding.
    """

    version: ClassVar[int] = 1
    keeps_size: ClassVar[bool] = False
    paper: ClassVar[str] = (
        "E. Quiring, D. Klein, D. Arp, M. Johns, K. Rieck, Adversarial Preprocessing: "
        "Understanding and Preventing Image-Scaling Attacks in Machine Learning, 2020, "
        "USENIX Security"
    )

    pipeline: Pipeline

    @property
    def knowledge(self) -> Knowledge:
        """``"pipeline"``: the image and the size that the model's pipeline makes of it."""
        return "pipeline"

    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Images:
        """Scale images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            seeds: unused, scaling is deterministic.
            reference: unused.

        Returns:
            (n, c, height, width) of the pipeline's target size, in [0, 1]; differentiable.
        """
        source = (images.shape[2], images.shape[3])
        scaler = Scaler("opencv", "area", source=source, target=self.pipeline.target)
        return scaler.linear(images).clamp(0.0, 1.0)

    def parts(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> dict[str, Tensor]:
        """The scaled images under ``"purified"``; arguments as for the call."""
        return {"purified": self(images, seeds=seeds, reference=reference)}
