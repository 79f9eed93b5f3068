"""Distances between images by the features of a network: LPIPS and DISTS, from the piq package.

Their weights are used where torch's hub cache holds them; nothing is downloaded.
"""

from __future__ import annotations

import importlib
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from defender.types import Images, Scores

_CLASSES = {"lpips": "LPIPS", "dists": "DISTS"}
_WEIGHTS = {
    "lpips": ("vgg16-397923af.pth", "lpips_weights.pt"),
    "dists": ("vgg16-397923af.pth", "dists_weights.pt"),
}
LEAST_SIDE = 32
"""Sides below this many pixels are halved to nothing by the network."""


def perceptual_distance(distance: str, images: Images, reference: Images) -> Scores:
    """Distance of each image from its reference, with gradients.

    Args:
        distance: ``"lpips"`` or ``"dists"``.
        images: (n, c, h, w) in [0, 1]; grey ones are taken as RGB.
        reference: (n, c, h, w) in [0, 1].

    Returns:
        (n,), >= 0, 0 for equal images.

    Raises:
        ValueError: another distance, images with a side below 32 pixels, or weights that are not
            in the cache; the text names the files.
        ModuleNotFoundError: where piq is not installed.

    Source: R. Zhang, P. Isola, A. Efros, E. Shechtman, O. Wang, "The Unreasonable Effectiveness
    of Deep Features as a Perceptual Metric", 2018, arXiv 1801.03924; K. Ding, K. Ma, S. Wang,
    E. Simoncelli, "Image Quality Assessment: Unifying Structure and Texture Similarity", 2020,
    arXiv 2004.07728.
    Differs: as piq has them: VGG-16, and for DISTS images above 256 pixels made smaller.
    """
    if distance not in _CLASSES:
        raise ValueError(f"distance: expected {' | '.join(_CLASSES)}, got {distance!r}")
    if min(images.shape[2:]) < LEAST_SIDE:
        raise ValueError(
            f"distance: {distance} expected images with sides of {LEAST_SIDE} pixels or more, "
            f"got {tuple(images.shape[2:])}"
        )
    network = _network(distance, str(Path(torch.hub.get_dir()) / "checkpoints"))
    scores: Scores = network(images.expand(-1, 3, -1, -1), reference.expand(-1, 3, -1, -1))
    return scores


@lru_cache(maxsize=2)
def _network(distance: str, folder: str) -> Any:
    missing = [name for name in _WEIGHTS[distance] if not (Path(folder) / name).is_file()]
    if missing:
        raise ValueError(
            f"distance: {distance} expected weights {', '.join(_WEIGHTS[distance])} in {folder}, "
            f"got none named {', '.join(missing)}"
        )
    try:
        piq = importlib.import_module("piq")
    except ModuleNotFoundError:
        raise ModuleNotFoundError("piq is not installed: pip install piq") from None
    with warnings.catch_warnings():
        # piq asks torchvision for the weights by an old name
        warnings.simplefilter("ignore")
        return getattr(piq, _CLASSES[distance])(reduction="none").eval()
