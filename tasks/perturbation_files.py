"""Universal perturbations as safetensors files."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from defender.universal import Perturbation
from storage.files import write_atomic
from tasks.errors import ModelError


def save_perturbation(path: Path, perturbation: Perturbation) -> None:
    """Write a perturbation as safetensors, atomically.

    Raises:
        StoreError: where the file cannot be written.
    """
    write_atomic(path, save_safetensors({"values": perturbation.values}))


def load_perturbation(path: Path) -> Perturbation:
    """Read a perturbation from a safetensors file that holds one tensor (c, height, width).

    Raises:
        ModelError: where the file is absent, damaged or holds anything else.
    """
    try:
        tensors = load_safetensors(path.read_bytes())
    except OSError as error:
        raise ModelError(f"weights: expected a file, got {path}: {error.strerror}") from None
    except SafetensorError as error:
        raise ModelError(f"weights: {path} is not safetensors: {error}") from None
    if len(tensors) != 1:
        raise ModelError(f"weights: {path}: expected one tensor, got {len(tensors)}")
    try:
        return Perturbation(next(iter(tensors.values())))
    except ValueError as error:
        raise ModelError(f"weights: {path}: {error}") from None
