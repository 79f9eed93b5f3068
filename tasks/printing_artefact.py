"""A fitted patch as it lies in a file, and as it is printed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defender.norms import to_uint8
from defender.universal import Perturbation
from tasks.errors import ModelError
from tasks.perturbation_files import load_perturbation

ARTEFACT = "artefact"
MM = 25.4
"""Millimetres of an inch."""


def load_patch(path: Path) -> tuple[Path, Perturbation]:
    """Read a fitted patch from a safetensors file, or from a folder that holds one such file.

    Returns:
        The file, and theta (c, G, G) in [0, 1] with c 1 or 3.

    Raises:
        ModelError: naming the file, where it holds anything else.
    """
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            raise ModelError(
                f"{ARTEFACT}: {path}: expected one file .safetensors in it, got {len(files)}"
            )
        (path,) = files
    patch = load_perturbation(path, ARTEFACT)
    channels, height, width = patch.values.shape
    if channels not in (1, 3) or height != width:
        got = (channels, height, width)
        raise ModelError(
            f"{ARTEFACT}: {path}: expected cells (1 or 3, side, side) of a patch, got {got}"
        )
    low, high = float(patch.values.min()), float(patch.values.max())
    if low < 0.0 or high > 1.0:
        raise ModelError(
            f"{ARTEFACT}: {path}: expected values in [0, 1], got {low:g} to {high:g}: "
            "a perturbation that is added to images is no patch"
        )
    return path, patch


@dataclass(frozen=True)
class Printable:
    """A patch as it is printed.

    Args:
        name: of its file.
        digest: SHA-256 of shape and values, as the rest of the package knows it.
        colours: float32 (G, G, 3) device RGB in [0, 1]; grey has three equal parts.
        levels: the same in 8 bits, (G, G, 3).
        grey: whether it has one channel.
    """

    name: str
    digest: str
    colours: NDArray[np.float32]
    levels: NDArray[np.uint8]
    grey: bool

    @property
    def grid(self) -> int:
        """Cells a side."""
        return len(self.colours)

    @classmethod
    def of(cls, name: str, patch: Perturbation) -> Printable:
        """What is printed of a patch."""
        values = patch.values.expand(3, -1, -1).permute(1, 2, 0)
        return cls(
            name,
            patch.digest,
            np.ascontiguousarray(values.numpy()),
            np.ascontiguousarray(to_uint8(values).numpy()),
            patch.values.shape[0] == 1,
        )
