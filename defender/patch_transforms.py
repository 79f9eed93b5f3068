"""What printing, hanging up and photographing do to a patch, drawn at random and differentiable."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from defender.boxes import bounding_boxes
from defender.noise import derive_seeds, normal, uniform
from defender.types import Images, Seeds

_MIDDLE = 0.5
_NARROWEST = 1e-3
"""Standard deviation of a blur, in pixels, below which it is none."""

_CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
"""x and y of a patch's corners, in halves of its side from its centre."""


@dataclass(frozen=True)
class Transforms:
    """Ranges from which every image draws how its patch is changed.

    The tone is changed first, ``(p - 1/2) (1 + contrast u) + 1/2 + brightness u'``, then the patch
    is blurred by a Gaussian of ``blur |u''|`` pixels, noise of standard deviation ``noise`` is
    added and the result clipped to [0, 1], all in the patch's own pixels; then it is moved in
    space, around its centre: its corners by up to ``perspective`` halves of its side each, all of
    it turned by ``rotation u`` degrees and enlarged ``1 + scale u`` times. Every u is uniform in
    [-1, 1). With all ranges 0 nothing is drawn and nothing changed.

    Source: A. Athalye, L. Engstrom, A. Ilyas, K. Kwok, "Synthesizing Robust Adversarial
    Examples", 2018, arXiv 1707.07397.
    Differs: one draw an image and step; the draws are keyed by image.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    perspective: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether the patch changes its outline."""
        return bool(self.rotation or self.scale or self.perspective)

    def toned(self, patches: Tensor, seeds: Seeds) -> Tensor:
        """Patches with another tone, blurred and noisy, in their own pixels.

        Args:
            patches: (n, c, a, a) in [0, 1].
            seeds: int64 (n,).

        Returns:
            (n, c, a, a) in [0, 1]; gradients pass.
        """
        if self.brightness or self.contrast:
            drawn = uniform(derive_seeds(seeds, "patch tone"), (2,), -1, 1).to(patches)
            shift, factor = (self.brightness * drawn[:, 0], 1 + self.contrast * drawn[:, 1])
            patches = (patches - _MIDDLE) * factor.view(-1, 1, 1, 1) + _MIDDLE
            patches = patches + shift.view(-1, 1, 1, 1)
        if self.blur:
            drawn = uniform(derive_seeds(seeds, "patch blur"), (), 0, self.blur).to(patches)
            patches = blurred(patches, drawn, math.ceil(3 * self.blur))
        if self.noise:
            drawn = normal(derive_seeds(seeds, "patch noise"), tuple(patches.shape[1:]))
            patches = patches + self.noise * drawn.to(patches)
        if self.brightness or self.contrast or self.noise:
            patches = patches.clamp(0.0, 1.0)
        return patches

    def outlines(self, seeds: Seeds) -> Tensor:
        """Where the corners of each patch go: float64 (n, 4, 2), x and y as in the square [-1, 1].

        Args:
            seeds: int64 (n,).
        """
        drawn = uniform(derive_seeds(seeds, "patch outline"), (10,), -1, 1).double().cpu()
        angle = math.radians(self.rotation) * drawn[:, 0]
        factor = 1 + self.scale * drawn[:, 1]
        jitter = self.perspective * drawn[:, 2:].view(-1, 4, 2)
        x, y = (torch.tensor(_CORNERS, dtype=torch.float64) + jitter).unbind(dim=2)
        cosine, sine = angle.cos()[:, None], angle.sin()[:, None]
        # rows point down, so that this turns counter-clockwise as one looks at the image
        turned = torch.stack([cosine * x + sine * y, cosine * y - sine * x], dim=2)
        return factor[:, None, None] * turned


def blurred(patches: Tensor, sigmas: Tensor, radius: int) -> Tensor:
    """Gaussian blur with a width of each patch's own; the border pixels are repeated outside.

    Args:
        patches: (n, c, a, b).
        sigmas: (n,) standard deviations in pixels; next to 0 changes nothing.
        radius: pixels at which the kernel is cut on either side.
    """
    offsets = torch.arange(-radius, radius + 1, device=patches.device)
    sigmas = sigmas.clamp_min(_NARROWEST)[:, None]
    weights = torch.exp(-0.5 * (offsets / sigmas).square())
    weights = weights / weights.sum(dim=1, keepdim=True)
    for axis in (2, 3):
        size = patches.shape[axis]
        places = torch.arange(size, device=patches.device)
        shifted = (
            weights[:, k].view(-1, 1, 1, 1)
            * patches.index_select(axis, (places + k - radius).clamp(0, size - 1))
            for k in range(2 * radius + 1)
        )
        total = next(shifted)
        for part in shifted:
            total = total + part
        patches = total
    return patches


def homographies(outlines: Tensor) -> Tensor:
    """The projective maps (n, 3, 3) that take quadrilaterals to the square [-1, 1].

    Args:
        outlines: float64 (n, 4, 2) images of the corners, in the order upper left, upper right,
            lower right, lower left; x and y.
    """
    square = torch.tensor(_CORNERS, dtype=outlines.dtype)
    x, y = outlines.unbind(dim=2)
    u, v = square.unbind(dim=1)
    one, nought = torch.ones_like(x), torch.zeros_like(x)
    first = torch.stack([x, y, one, nought, nought, nought, -u * x, -u * y], dim=2)
    second = torch.stack([nought, nought, nought, x, y, one, -v * x, -v * y], dim=2)
    system = torch.cat([first, second], dim=1)
    wanted = torch.cat([u, v]).expand(len(outlines), 8)
    solved = torch.linalg.solve(system, wanted)
    return torch.cat([solved, torch.ones_like(solved[:, :1])], dim=1).view(-1, 3, 3)


def laid(
    images: Images, patches: Tensor, top: Tensor, left: Tensor, outlines: Tensor
) -> tuple[Images, Tensor]:
    """Patches laid over images, bilinearly interpolated; what lies outside an image is cut off.

    Args:
        images: (n, c, h, w) in [0, 1].
        patches: (n, c, a, a) in [0, 1]; gradients pass to them.
        top: int64 (n,) first row of the square that the patch would fill unmoved.
        left: int64 (n,) its first column.
        outlines: float64 (n, 4, 2) where the corners go, in halves of the side from the centre;
            those of the square itself leave the patch as it is.

    Returns:
        Images (n, c, h, w), and int64 (n, 4) boxes of the pixels that the patch covers by more
        than half; zeros where there is none.
    """
    height, width = images.shape[2:]
    half = patches.shape[2] / 2
    rows = torch.arange(height) + 0.5 - half - top.cpu()[:, None]
    columns = torch.arange(width) + 0.5 - half - left.cpu()[:, None]
    y = (rows / half)[:, :, None].expand(-1, height, width)
    x = (columns / half)[:, None, :].expand(-1, height, width)
    maps = homographies(outlines).float()[:, :, :, None, None]
    across, down, depth = (maps[:, k, 0] * x + maps[:, k, 1] * y + maps[:, k, 2] for k in range(3))
    # what lies behind the viewer belongs to no place of the patch
    seen = depth > _NARROWEST
    depth = depth.masked_fill(~seen, 1.0)
    far = torch.full_like(x, 4.0)
    grid = torch.stack(
        [torch.where(seen, across / depth, far), torch.where(seen, down / depth, far)], dim=3
    ).clamp(-4.0, 4.0)
    grid = grid.to(patches)
    whole = torch.ones_like(patches[:, :1].detach())
    cover = functional.grid_sample(whole, grid, padding_mode="zeros", align_corners=False)
    colours = functional.grid_sample(patches, grid, padding_mode="border", align_corners=False)
    blended = images + cover * (colours - images)
    return blended.clamp(0.0, 1.0), bounding_boxes(cover > 0.5)
