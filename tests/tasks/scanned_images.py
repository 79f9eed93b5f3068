"""Folders of small smooth images, some of which hide others behind a resize."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from defender.attacks import ImageScaling
from defender.objectives import ScaleTo
from defender.scaling import Pipeline

SIDE = 48
PIPELINE = Pipeline("torch", "linear", target=(12, 12))
ATTACKED = ["x/hidden-0.png", "x/hidden-1.png", "x/hidden-2.png"]


def fields(n: int, seed: int, side: int = SIDE) -> Tensor:
    """Smooth coloured images with a little noise on the 8-bit grid, (n, 3, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 5, 5, generator=generator) * 1.2 - 0.1
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    noisy = smooth + 0.01 * torch.randn(smooth.shape, generator=generator)
    return noisy.clamp(0, 1).mul(255).round().div(255)


def save(images: Tensor, folder: Path, names: list[str]) -> Path:
    """Write images as PNG files."""
    for image, name in zip(images, names, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.mul(255).byte().permute(1, 2, 0).numpy()).save(path)
    return folder


def benign(folder: Path, n: int = 40) -> Path:
    """A folder of images that hide nothing."""
    return save(fields(n, seed=1), folder, [f"{i:03}.png" for i in range(n)])


def mixed(folder: Path) -> Path:
    """A folder of 12 clean images, 3 attacked ones and a broken file."""
    clean = fields(12, seed=4)
    save(clean, folder, [f"b&b/{i:02}.png" for i in range(len(clean))])
    attack = ImageScaling()
    goal = ScaleTo(PIPELINE.of(clean), fields(len(ATTACKED), seed=3, side=PIPELINE.target[0]))
    hiding = attack(clean[: len(ATTACKED)], goal, seeds=torch.arange(len(ATTACKED)))
    save(hiding, folder, ATTACKED)
    (folder / "x/bad<img>.png").write_bytes(b"not an image")
    return folder
