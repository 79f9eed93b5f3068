"""The UNet of diffusion models: predicts the noise in a noisy image, at every noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-6
"""Added to variances by group normalisation."""


def _norm(groups: int, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=EPSILON)


def time_embedding(steps: Tensor, width: int) -> Tensor:
    """Sines, then cosines, of a step number at ``width / 2`` frequencies from 1 down to 1/10000.

    Args:
        steps: int64 (n,).
        width: even, 4 or more.

    Returns:
        float32 (n, width).
    """
    half = width // 2
    powers = torch.arange(half, dtype=torch.float32, device=steps.device) / (half - 1)
    angles = steps.float()[:, None] * torch.exp(-math.log(10_000.0) * powers)[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ResidualBlock(nn.Module):
    """Two convolutions with the step number added between them, and a shortcut around both."""

    def __init__(self, inside: int, outside: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.norm1 = _norm(groups, inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.temb_proj = nn.Linear(embedding, outside)
        self.norm2 = _norm(groups, outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        if inside != outside:
            self.nin_shortcut = nn.Conv2d(inside, outside, 1)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Map features (n, inside, h, w) and embeddings (n, embedding) to (n, outside, h, w)."""
        made = self.conv1(functional.silu(self.norm1(x)))
        made = made + self.temb_proj(functional.silu(embedded))[:, :, None, None]
        made = self.conv2(functional.silu(self.norm2(made)))
        shortcut: Tensor = self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x
        summed: Tensor = shortcut + made
        return summed


class Attention(nn.Module):
    """Every place looks at every other, with one head."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = _norm(groups, channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n, channels, h, w) to such features."""
        normed = self.norm(x)
        # contiguous: the arithmetic of strided products depends on the place in the batch
        query, key, value = (
            layer(normed).flatten(2).transpose(1, 2).unsqueeze(1).contiguous()
            for layer in (self.q, self.k, self.v)
        )
        seen = functional.scaled_dot_product_attention(query, key, value)
        made: Tensor = self.proj_out(seen.squeeze(1).transpose(1, 2).reshape(x.shape))
        return x + made


class Downsample(nn.Module):
    """A strided convolution that sees one more row below and one more column to the right."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to (n, channels, h // 2, w // 2)."""
        made: Tensor = self.conv(functional.pad(x, (0, 1, 0, 1)))
        return made


class Upsample(nn.Module):
    """Every value becomes four, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, h, w) to (n, channels, 2 h, 2 w)."""
        made: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return made


class Level(nn.Module):
    """The blocks of one resolution, with attention after each where there is any."""

    block: nn.ModuleList
    attn: nn.ModuleList
    downsample: Downsample | None
    upsample: Upsample | None

    def __init__(self) -> None:
        super().__init__()
        self.block, self.attn = nn.ModuleList(), nn.ModuleList()
        self.downsample = self.upsample = None

    def step(self, index: int, x: Tensor, embedded: Tensor) -> Tensor:
        """Block ``index`` and the attention behind it."""
        x = self.block[index](x, embedded)
        return self.attn[index](x) if len(self.attn) else x


class UNet(nn.Module):
    """The network of denoising diffusion models, with the parameter names of its first port.

    Features go down through levels of half the size each and up again, where every block also
    sees what the block opposite to it made. Sides must be multiples of ``side_unit``.

    Args:
        width: channels of the first level, a multiple of ``groups``.
        multipliers: channels of each level as multiples of ``width``.
        attention: numbers of the levels, from 0, whose blocks are followed by attention.
        blocks: blocks of a level on the way down; one more on the way up.
        channels: of the images.
        outputs: channels of the result; more than ``channels`` for networks that also predict a
            variance.
        groups: of the group normalisation.
        patch: side of the squares of pixels that become channels first: the network then works at
            1/patch of the size.

    Source: J. Ho, A. Jain, P. Abbeel, "Denoising Diffusion Probabilistic Models", 2020, arXiv
    2006.11239; squares as channels: E. Hoogeboom, J. Heek, T. Salimans, "simple diffusion", 2023,
    arXiv 2301.11093.
    Differs: no dropout.
    """

    def __init__(
        self,
        width: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        attention: Sequence[int] = (1,),
        *,
        blocks: int = 2,
        channels: int = 3,
        outputs: int | None = None,
        groups: int = 32,
        patch: int = 1,
    ) -> None:
        super().__init__()
        if width % groups or width < 4:
            raise ValueError(f"width: expected a multiple of {groups}, got {width}")
        self.width, self.blocks, self.patch = width, blocks, patch
        self.channels, self.outputs = channels, outputs or channels
        embedding, levels = 4 * width, len(multipliers)
        self.temb = nn.Module()
        self.temb.dense = nn.ModuleList(
            [nn.Linear(width, embedding), nn.Linear(embedding, embedding)]
        )
        self.conv_in = nn.Conv2d(channels * patch**2, width, 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        inside, kept = width, [width]
        for index, factor in enumerate(multipliers):
            level = Level()
            for _ in range(blocks):
                level.block.append(ResidualBlock(inside, width * factor, embedding, groups))
                inside = width * factor
                kept.append(inside)
                if index in attention:
                    level.attn.append(Attention(inside, groups))
            if index < levels - 1:
                level.downsample = Downsample(inside)
                kept.append(inside)
            self.down.append(level)
        self.mid = nn.Module()
        self.mid.block_1 = ResidualBlock(inside, inside, embedding, groups)
        self.mid.attn_1 = Attention(inside, groups)
        self.mid.block_2 = ResidualBlock(inside, inside, embedding, groups)
        for index in reversed(range(levels)):
            level, outside = Level(), width * multipliers[index]
            for _ in range(blocks + 1):
                level.block.append(ResidualBlock(inside + kept.pop(), outside, embedding, groups))
                inside = outside
                if index in attention:
                    level.attn.append(Attention(inside, groups))
            if index:
                level.upsample = Upsample(inside)
            self.up.insert(0, level)
        self.norm_out = _norm(groups, inside)
        self.conv_out = nn.Conv2d(inside, self.outputs * patch**2, 3, padding=1)
        self.side_unit = patch * 2 ** (levels - 1)

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        """Predict the noise in images.

        Args:
            x: (n, channels, h, w), noisy images of which clean ones lie in [-1, 1].
            steps: int64 (n,), how far the noise has come.

        Returns:
            (n, outputs, h, w).

        Raises:
            ValueError: for sides that are not multiples of ``side_unit``.
        """
        if x.shape[2] % self.side_unit or x.shape[3] % self.side_unit:
            unit = self.side_unit
            raise ValueError(f"expected sides that are multiples of {unit}, got {tuple(x.shape)}")
        first, second = self.dense
        embedded = second(functional.silu(first(time_embedding(steps, self.width).to(x))))
        if self.patch > 1:
            x = functional.pixel_unshuffle(x, self.patch)
        x = self.conv_in(x)
        kept = [x]
        for level in self.levels(self.down):
            for index in range(self.blocks):
                x = level.step(index, x, embedded)
                kept.append(x)
            if isinstance(level.downsample, Downsample):
                x = level.downsample(x)
                kept.append(x)
        middle: Any = self.mid
        x = middle.block_2(middle.attn_1(middle.block_1(x, embedded)), embedded)
        for level in reversed(self.levels(self.up)):
            for index in range(self.blocks + 1):
                x = level.step(index, torch.cat([x, kept.pop()], dim=1), embedded)
            if isinstance(level.upsample, Upsample):
                x = level.upsample(x)
        made: Tensor = self.conv_out(functional.silu(self.norm_out(x)))
        return functional.pixel_shuffle(made, self.patch) if self.patch > 1 else made

    @property
    def dense(self) -> tuple[nn.Module, nn.Module]:
        """The two layers that embed step numbers."""
        both: Any = self.temb.dense
        return both[0], both[1]

    @staticmethod
    def levels(part: nn.ModuleList) -> list[Level]:
        """The levels of one way, from the largest images to the smallest."""
        return [level for level in part if isinstance(level, Level)]


def ddpm_cifar10() -> UNet:
    """The network of Ho et al. for 32 x 32 images: 35.7 M parameters."""
    return UNet(128, (1, 2, 2, 2), (1,))


def ddpm_celeba_hq() -> UNet:
    """The network of Ho et al. for 256 x 256 images: 113.7 M parameters."""
    return UNet(128, (1, 1, 2, 2, 4, 4), (4,))


def small_prior() -> UNet:
    """A network for 32 x 32 colour images that works on squares of 2 x 2 pixels."""
    return UNet(48, (1, 2), (), blocks=1, groups=16, patch=2)
