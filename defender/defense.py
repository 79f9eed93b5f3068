"""Purifiers of this package as the class ``Defense`` of a user's own file.

A file of a few lines is a defence that ``image-defender score-defense`` can score::

    from defender.defense import PurifierDefense
    from defender.purifiers import Median, Sequence, Unsharp

    class Defense(PurifierDefense):
        purifier = Sequence((Median(3), Unsharp(1)))
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from defender.models.classifiers import Normalised
from defender.noise import derive_seeds
from defender.types import Images, Purifier, Seeds

SHIPPED = Path(__file__).resolve().parents[1] / "tasks" / "weights"
"""Where the weights lie that ship with image-defender, beside this package."""


class PurifierDefense:
    """A defence that puts every batch through the purifier that its class names.

    Attributes:
        purifier: any purifier that needs no clean original.
        seed: what a random purifier starts from; it draws the same for the same image in any
            batch, and something else for another image.

    Raises:
        TypeError: without a purifier.
        ValueError: for a purifier that is told the clean original.
    """

    purifier: ClassVar[Any] = None
    seed: ClassVar[int] = 0

    def __init__(self) -> None:
        if isinstance(self.purifier, type) or not isinstance(self.purifier, Purifier):
            raise TypeError(f"purifier: expected a purifier, got {self.purifier!r}")
        if self.purifier.knowledge == "reference":
            raise ValueError(
                "purifier: expected one that works without the clean original, "
                f"got {self.purifier!r}"
            )

    def apply_defense(self, images: Images) -> Images:
        """Purify a batch.

        Args:
            images: float32 (n, c, h, w) in [0, 1]; left unchanged.

        Returns:
            float32 (n, c, height, width) in [0, 1].
        """
        with torch.no_grad():
            seeds = derive_seeds(content_seeds(images), self.seed)
            purified: Tensor = self.purifier(images, seeds=seeds)
        return purified


def content_seeds(images: Images) -> Seeds:
    """Seeds int64 (n,) that follow from the values of each image, wherever it stands in a batch."""
    digests = [
        hashlib.blake2b(image.contiguous().cpu().numpy().tobytes(), digest_size=8).digest()
        for image in images
    ]
    return torch.tensor([int.from_bytes(one, "little", signed=True) for one in digests])


def trained(network: nn.Module, weights: str | Path) -> Normalised:
    """A network with its weights, ready for :class:`~defender.purifiers.Learned`.

    Args:
        network: of the architecture that the weights were trained for.
        weights: a safetensors file, or the name of weights that ship, such as
            ``denoiser-linearity``.

    Returns:
        The network in evaluation mode, behind no normalisation; its ``repr`` has the digest.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where the file holds the weights of another network.
    """
    path = Path(weights)
    if path.suffix != ".safetensors":
        path = SHIPPED / f"{weights}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"weights: expected a safetensors file, got nothing at {path}")
    try:
        network.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise ValueError(f"weights: {path.name} does not fit: {error}") from None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Normalised(network, name=path.stem, digest=digest).requires_grad_(False).eval()
