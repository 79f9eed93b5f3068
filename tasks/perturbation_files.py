"""Universal perturbations as safetensors files."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save as save_safetensors

from defender.universal import Perturbation
from storage.files import Place, write_atomic
from tasks.errors import ModelError
from tasks.models import read_bytes, read_safetensors


def save_perturbation(path: Place, perturbation: Perturbation) -> None:
    """Write a perturbation as safetensors, atomically.

    Raises:
        StoreError: where the file cannot be written.
    """
    write_atomic(path, save_safetensors({"values": perturbation.values}))


def load_perturbation(path: Path, field: str = "weights") -> Perturbation:
    """Read a perturbation from a safetensors file that holds one tensor (c, height, width).

    Args:
        path: the file.
        field: the field of the specification that names it, for error messages.

    Raises:
        ModelError: where the file is absent, damaged or holds anything else.
    """
    tensors = read_safetensors(read_bytes(path, field), path, field)
    if len(tensors) != 1:
        raise ModelError(f"{field}: {path}: expected one tensor, got {len(tensors)}")
    try:
        return Perturbation(next(iter(tensors.values())))
    except ValueError as error:
        raise ModelError(f"{field}: {path}: {error}") from None
