"""The UNet of guided diffusion: residual blocks that resample, and attention with many heads."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUPS = 32
"""Groups of every normalisation."""


def step_embedding(steps: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of a step number at ``width / 2`` frequencies from 1 to above 1/10000.

    Args:
        steps: int64 (n,).
        width: even.

    Returns:
        float32 (n, width).
    """
    half = width // 2
    powers = torch.arange(half, dtype=torch.float32, device=steps.device) / half
    angles = steps.float()[:, None] * torch.exp(-math.log(10_000.0) * powers)[None]
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class GuidedBlock(nn.Module):
    """Two convolutions whose second normalisation is scaled and shifted by the step.

    Args:
        inside: channels that come in.
        outside: channels that go out.
        embedding: values of the step's embedding.
        resample: 2.0 for images of twice the side, 0.5 for half, 1.0 for the same.
    """

    def __init__(self, inside: int, outside: int, embedding: int, resample: float = 1.0) -> None:
        super().__init__()
        self.resample = resample
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, inside), nn.SiLU(), nn.Conv2d(inside, outside, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * outside))
        # the third had dropout, which is off after training
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, outside),
            nn.SiLU(),
            nn.Identity(),
            nn.Conv2d(outside, outside, 3, padding=1),
        )
        same = inside == outside
        self.skip_connection = nn.Identity() if same else nn.Conv2d(inside, outside, 1)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Map features (n, inside, h, w) to (n, outside, h * resample, w * resample)."""
        made = self._resampled(self.in_layers[:2](x))
        made = self.in_layers[2](made)
        scale, shift = self.emb_layers(embedded)[:, :, None, None].chunk(2, dim=1)
        made = self.out_layers[0](made) * (1 + scale) + shift
        summed: Tensor = self.skip_connection(self._resampled(x)) + self.out_layers[1:](made)
        return summed

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample > 1:
            return functional.interpolate(x, scale_factor=self.resample, mode="nearest")
        return functional.avg_pool2d(x, 2) if self.resample < 1 else x


class GuidedAttention(nn.Module):
    """Every place looks at every other, with heads of so many channels."""

    def __init__(self, channels: int, head: int) -> None:
        super().__init__()
        self.heads = channels // head
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Map features (n, channels, h, w) to such features; the step is not looked at."""
        n, channels, height, width = x.shape
        mixed = self.qkv(self.norm(x.flatten(2)))
        # of each head query, key and value lie together
        split = mixed.view(n, self.heads, 3, channels // self.heads, height * width)
        # contiguous: the arithmetic of strided products depends on the place in the batch
        query, key, value = (part.transpose(2, 3).contiguous() for part in split.unbind(2))
        seen = functional.scaled_dot_product_attention(query, key, value)
        made: Tensor = self.proj_out(seen.transpose(2, 3).reshape(n, channels, height * width))
        return x + made.view_as(x)


class Steps(nn.Sequential):
    """Layers of which all but convolutions are told the step."""

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:  # type: ignore[override]
        """Map features (n, c, h, w) to features."""
        for layer in self:
            x = layer(x) if isinstance(layer, nn.Conv2d) else layer(x, embedded)
        return x


class GuidedUNet(nn.Module):
    """The network of guided diffusion without classes, with the parameter names of its checkpoints.

    Args:
        width: channels of the first layer.
        factors: channels of each level, as multiples of ``width``, the largest images first.
        attention: sides, as fractions 1 / a of the image's, at which there is attention.
        blocks: residual blocks of a level on the way down; one more on the way up.
        head: channels of a head of the attention.

    Source: P. Dhariwal, A. Nichol, "Diffusion Models Beat GANs on Image Synthesis", 2021,
    arXiv 2105.05233, section 3.
    """

    def __init__(
        self,
        width: int,
        factors: Sequence[int],
        attention: Sequence[int],
        blocks: int = 2,
        head: int = 64,
    ) -> None:
        super().__init__()
        self.width = width
        embedding = 4 * width
        self.time_embed = nn.Sequential(
            nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        channels = factors[0] * width
        self.input_blocks = nn.ModuleList([Steps(nn.Conv2d(3, channels, 3, padding=1))])
        kept, smaller = [channels], 1
        for level, factor in enumerate(factors):
            for _ in range(blocks):
                steps: list[nn.Module] = [GuidedBlock(channels, factor * width, embedding)]
                channels = factor * width
                if smaller in attention:
                    steps.append(GuidedAttention(channels, head))
                self.input_blocks.append(Steps(*steps))
                kept.append(channels)
            if level < len(factors) - 1:
                self.input_blocks.append(Steps(GuidedBlock(channels, channels, embedding, 0.5)))
                kept.append(channels)
                smaller *= 2
        self.middle_block = Steps(
            GuidedBlock(channels, channels, embedding),
            GuidedAttention(channels, head),
            GuidedBlock(channels, channels, embedding),
        )
        self.output_blocks = nn.ModuleList()
        for level, factor in reversed(list(enumerate(factors))):
            for block in range(blocks + 1):
                steps = [GuidedBlock(channels + kept.pop(), factor * width, embedding)]
                channels = factor * width
                if smaller in attention:
                    steps.append(GuidedAttention(channels, head))
                if level and block == blocks:
                    steps.append(GuidedBlock(channels, channels, embedding, 2.0))
                    smaller //= 2
                self.output_blocks.append(Steps(*steps))
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, channels), nn.SiLU(), nn.Conv2d(channels, 6, 3, padding=1)
        )

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        """Predict the noise in images, and how its variance lies between its bounds.

        Args:
            x: (n, 3, h, w), clean ones in [-1, 1]; sides are multiples of ``2 ** (levels - 1)``.
            steps: int64 (n,).

        Returns:
            (n, 6, h, w), the noise first.
        """
        embedded = self.time_embed(step_embedding(steps, self.width).to(x))
        kept: list[Tensor] = []
        for layer in self.input_blocks:
            x = layer(x, embedded)
            kept.append(x)
        x = self.middle_block(x, embedded)
        for layer in self.output_blocks:
            x = layer(torch.cat([x, kept.pop()], dim=1), embedded)
        made: Tensor = self.out(x)
        return made


def guided_imagenet256() -> GuidedUNet:
    """The unconditional network for 256 x 256 photographs of ImageNet: 552.8 M parameters."""
    return GuidedUNet(256, (1, 1, 2, 2, 4, 4), (8, 16, 32))
