"""The iterative window mean filter: random blocks replaced by their means, over and over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from defender.iwmf_means import draw, fits, replaced
from defender.noise import derive_seeds
from defender.purifiers.randomised import Randomised
from defender.types import Images, Seeds, parameter


@dataclass(frozen=True)
class IWMF(Randomised):
    """Replaces random square blocks by their means, one after the other, channel by channel.

    ``int(lambda_0 * height * width)`` windows are drawn; a later one sees what earlier ones left,
    so their order matters. A pixel lies in ``lambda_0 * window ** 2`` windows on average, and about
    ``exp(-lambda_0 * window ** 2)`` of the pixels stay as they are. Images in which no window fits
    (no side longer than ``2 * floor(window / 2)``) stay as they are.

    Args:
        lambda_0: windows a pixel.
        window: side of the windows in pixels (the paper's s).
        shared: all images of a size get the same windows, whatever their seeds, as the original
            gives them to the images of a batch; several draws of a defended model are then one.

    Source: H. Wang, R. Sun, C. Chen, M. Xue, L.-K. Soon, S. Wang, Z. Jin, "Iterative Window Mean
    Filter: Thwarting Diffusion-based Adversarial Purification", 2024, arXiv 2408.10673.
    Differs: each image has windows of its own. The original draws one sequence for each batch, so
    its results depend on the batch; ``shared`` has one sequence for each size of images instead.
    """

    paper: ClassVar[str] = (
        "H. Wang, R. Sun, C. Chen, M. Xue, L.-K. Soon, S. Wang, Z. Jin, Iterative Window Mean "
        "Filter: Thwarting Diffusion-based Adversarial Purification, 2024, arXiv 2408.10673"
    )

    lambda_0: float = parameter(0.4, doc="windows a pixel", low=0)
    window: int = parameter(3, doc="side of the windows", low=1, unit="pixels")
    shared: bool = parameter(False, doc="the same windows for all images of a size")

    def drawn(self, images: Images, seeds: Seeds) -> Images:
        """Filtered images; differentiable, the windows being fixed by the seeds."""
        height, width = images.shape[2:]
        if not fits((height, width), self.window):
            return images.clone()
        keys = derive_seeds(seeds, "iwmf windows")
        if self.shared:
            keys = derive_seeds(seeds.new_zeros(1), "iwmf shared windows")
        count = int(self.lambda_0 * height * width)
        return replaced(images, draw(keys, count, (height, width), self.window), self.window)

    def apply(self, images: Images, windows: Tensor) -> Images:
        """Images filtered by windows that are given, the same for all of them.

        Args:
            images: (n, c, h, w); left unchanged.
            windows: int (k, 2), row and column of the centre of each window in the order in which
                they are applied; a window of side s has ``floor(s / 2)`` rows above its centre and
                ``ceil(s / 2) - 1`` below it.

        Returns:
            (n, c, h, w); differentiable.

        Raises:
            ValueError: windows of another shape, or one that is not within the images.
        """
        height, width = images.shape[2:]
        if windows.ndim != 2 or windows.shape[1] != 2 or windows.is_floating_point():
            raise ValueError(
                f"windows: expected int (k, 2), got {windows.dtype} {tuple(windows.shape)}"
            )
        corners = windows.to(torch.int64) - self.window // 2
        ends = torch.tensor([height, width], device=corners.device) - self.window
        if bool(((corners < 0) | (corners > ends)).any()):
            raise ValueError(
                f"windows: expected windows of side {self.window} within {height} x {width}"
            )
        flat = (corners[:, 0] * width + corners[:, 1]).to(torch.int32)
        return replaced(images, flat[None].contiguous(), self.window)
