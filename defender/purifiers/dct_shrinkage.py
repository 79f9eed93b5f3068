"""Denoising by the cosine transform: small coefficients of shifted blocks are set to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from defender.block_dct import BLOCK, dct_matrix
from defender.purifiers.filters import Filter, clamp_through, in_blocks
from defender.types import Images, check_parameters, parameter


@dataclass(frozen=True)
class DCTShrinkage(Filter):
    """Hard threshold on the DCT of 8 x 8 blocks, averaged over shifts of the blocks.

    Colours are decorrelated by an orthonormal DCT of the channels. The mean of each block stays.
    Blocks that reach over the border see its pixels repeated.

    Args:
        threshold: size below which a coefficient of the orthonormal transform is set to zero,
            [0, 1] units; three standard deviations of the noise are usual.
        step: pixels between two shifts on either axis: 1, 2, 4 or 8, which are 64, 16, 4 and 1
            shifts; fewer are faster and leave traces of the blocks.

    Raises:
        ValueError: a step that does not divide 8.

    Source: G. Yu, G. Sapiro, "DCT Image Denoising: a Simple and Effective Image Denoising
    Algorithm", 2011, DOI 10.5201/ipol.2011.ys-dct; L. Yaroslavsky, "Local Adaptive Image
    Restoration and Enhancement with the Use of DFT and DCT in a Running Window", 1996,
    DOI 10.1117/12.255218.
    Differs: blocks of 8 x 8, not 16 x 16; ``step`` 2 by default, not 1; means of blocks stay.
    """

    paper: ClassVar[str] = (
        "G. Yu, G. Sapiro, DCT Image Denoising: a Simple and Effective Image Denoising Algorithm, "
        "2011, DOI 10.5201/ipol.2011.ys-dct"
    )

    threshold: float = parameter(0.06, doc="size below which a coefficient vanishes", low=0)
    step: int = parameter(2, doc="pixels between two shifts", low=1, high=BLOCK, unit="pixels")

    def __post_init__(self) -> None:
        check_parameters(self)
        if BLOCK % self.step:
            raise ValueError(f"step: expected 1, 2, 4 or 8, got {self.step}")

    def filtered(self, images: Images) -> Images:
        """Denoised images; gradients pass to the coefficients that stay."""
        return clamp_through(in_blocks(self._denoised, images, alone=True))

    def _denoised(self, images: Images) -> Images:
        height, width = images.shape[2:]
        margin = BLOCK - self.step
        # every shift covers all pixels of the image with whole blocks
        down, across = (-(-(side + margin) // BLOCK) * BLOCK for side in (height, width))
        frame = [margin, across - width, margin, down - height]
        colours = dct_matrix(images.shape[1]).to(images)
        planes = torch.einsum("dc,nchw->ndhw", colours, images)
        planes = functional.pad(planes, frame, mode="replicate")
        total = torch.zeros_like(planes)
        for top in range(0, BLOCK, self.step):
            total[:, :, top : top + down] += self._rows(planes[:, :, top : top + down], across)
        total = total[:, :, margin : margin + height, margin : margin + width]
        mixed = torch.einsum("dc,ndhw->nchw", colours, total)
        return mixed / (BLOCK // self.step) ** 2

    def _rows(self, planes: Tensor, across: int) -> Tensor:
        """The sum over all shifts along the rows, for one shift down.

        Args:
            planes: (n, c, h, w), h whole blocks.
            across: pixels that each shift covers along the rows.

        Returns:
            (n, c, h, w).
        """
        matrix = dct_matrix().to(planes)
        n, c, height, width = planes.shape
        vertical = matrix @ planes.reshape(n, c, height // BLOCK, BLOCK, width)
        total = torch.zeros_like(vertical)
        for left in range(0, BLOCK, self.step):
            covered = vertical[..., left : left + across]
            blocks = covered.reshape(*covered.shape[:-1], across // BLOCK, BLOCK) @ matrix.T
            kept = functional.hardshrink(blocks, self.threshold)
            kept[..., 0, :, 0] = blocks[..., 0, :, 0]
            total[..., left : left + across] += (kept @ matrix).flatten(-2)
        return (matrix.T @ total).flatten(2, 3)
