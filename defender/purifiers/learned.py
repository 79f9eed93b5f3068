"""Purification by a network that was trained for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from defender.purifiers.filters import in_blocks
from defender.types import Images, Knowledge, Seeds


@dataclass(frozen=True)
class Learned:
    """Images as a trained network makes them, clamped to [0, 1].

    Grey images are shown to a network of three channels three times over, and the mean of what
    it makes is the result.

    Args:
        network: maps images (n, c, h, w) in [0, 1] to such images, each by itself; its ``repr``
            is its name and the digest of its weights, as :class:`~defender.models.Normalised`
            has it. ``channels``, where it has such an attribute, is how many it takes.

    Raises:
        ValueError: a network in training mode; when called, one that takes images of another
            number of channels or that changes the shape.

    Source: A. Gushchin, A. Chistyakova, V. Minashkin, A. Antsiferova, D. Vatolin, "Adversarial
    purification for no-reference image-quality metrics: applicability study and new methods",
    2024, arXiv 2404.06957; the network there is :class:`~defender.models.fcn.FCN`.
    Differs: any network.
    """

    version: ClassVar[int] = 1
    keeps_size: ClassVar[bool] = True
    paper: ClassVar[str] = (
        "A. Gushchin et al., Adversarial purification for no-reference image-quality metrics: "
        "applicability study and new methods, 2024, arXiv 2404.06957"
    )

    network: nn.Module

    def __post_init__(self) -> None:
        if self.network.training:
            raise ValueError("network: expected it in evaluation mode, got training mode")

    @property
    def knowledge(self) -> Knowledge:
        """``"blind"``: the image, and what the network learned before; no model under attack."""
        return "blind"

    def __call__(self, images: Images, *, seeds: Seeds, reference: Images | None = None) -> Images:
        """Purify images.

        Args:
            images: (n, c, h, w) in [0, 1]; left unchanged.
            seeds: unused, the network is deterministic.
            reference: unused.

        Returns:
            (n, c, h, w) in [0, 1]; differentiable where the images ask for a gradient.
        """
        # weights that could be trained would make every result ask for a gradient
        with torch.set_grad_enabled(images.requires_grad and torch.is_grad_enabled()):
            return in_blocks(self._made, images, alone=True)

    def _made(self, images: Images) -> Images:
        taken = _channels(self.network)
        spread = images.shape[1] == 1 and taken == 3
        shown = images.expand(-1, 3, -1, -1) if spread else images
        if taken not in (None, shown.shape[1]):
            raise ValueError(
                f"network: {self.network!r} takes images of {taken} channels, got {shown.shape[1]}"
            )
        made: Tensor = self.network(shown)
        if made.shape != shown.shape:
            raise ValueError(
                f"network: expected {tuple(shown.shape)} from {self.network!r}, "
                f"got {tuple(made.shape)}"
            )
        return (made.mean(1, keepdim=True) if spread else made).clamp(0.0, 1.0)

    def parts(
        self, images: Images, *, seeds: Seeds, reference: Images | None = None
    ) -> dict[str, Tensor]:
        """The purified images under ``"purified"``; arguments as for the call."""
        return {"purified": self(images, seeds=seeds, reference=reference)}


def _channels(network: nn.Module) -> int | None:
    """Channels that a network takes, or that within its wrapper."""
    inside = getattr(network, "network", network)
    return getattr(network, "channels", getattr(inside, "channels", None))
