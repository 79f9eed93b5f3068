"""What purifiers that ask a diffusion model share: sizes, channels and gradients."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch.nn import functional

from defender.diffusion.prior import Prior
from defender.purifiers.randomised import Randomised
from defender.purifiers.resizing import resized
from defender.types import Images, Seeds

SIZES = ("prior", "image")
"""Sizes at which the network may see an image: that of its training images, or the image's own."""

RANGES = ("unit_compat", "symmetric")
"""What the network is shown of images in [0, 1]: as they are, or mapped to [-1, 1]."""


class Diffusing(Randomised):
    """Images are brought to the network's size and channels, and back.

    An image of another size is resized, bilinear with antialiasing. At the image's own size
    (``size="image"``) it is continued to the right and below by its border pixels until the network
    can take it. Grey images are shown to a network of three channels three times over, and the
    mean of what it makes is the result.
    """

    prior: Prior
    size: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.prior.training:
            raise ValueError("prior: expected it in evaluation mode, got training mode")

    def drawn(self, images: Images, seeds: Seeds) -> Images:
        """Purified images; differentiable where the images ask for a gradient."""
        # weights that could be trained would make every result ask for a gradient
        with torch.set_grad_enabled(images.requires_grad and torch.is_grad_enabled()):
            return self._at_size(images, seeds)

    @abstractmethod
    def diffused(self, images: Images, seeds: Seeds) -> Images:
        """The purification: images (n, c, h, w) that the network can take to about [0, 1]."""

    def _at_size(self, images: Images, seeds: Seeds) -> Images:
        height, width = images.shape[2:]
        if self.size == "prior":
            same = (height, width) == self.prior.size
            shown = images if same else resized(images, *self.prior.size)
            made = self._with_channels(shown, seeds).clamp(0.0, 1.0)
            return made if same else resized(made, height, width)
        unit = self.prior.side_unit
        shown = functional.pad(images, (0, -width % unit, 0, -height % unit), mode="replicate")
        return self._with_channels(shown, seeds)[..., :height, :width].clamp(0.0, 1.0)

    def _with_channels(self, images: Images, seeds: Seeds) -> Images:
        taken, given = self.prior.channels, images.shape[1]
        if given == 1 and taken == 3:
            return self.diffused(images.expand(-1, 3, -1, -1), seeds).mean(1, keepdim=True)
        if taken not in (None, given):
            raise ValueError(f"prior: {self.prior!r} takes images of {taken} channels, got {given}")
        return self.diffused(images, seeds)
