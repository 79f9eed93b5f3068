"""Which device computes, and how cores are shared between chunks."""

from __future__ import annotations

import os

import torch

from tasks.errors import SpecError


def choose_device(wanted: str) -> torch.device:
    """The device for ``auto``, ``cpu`` or ``cuda``.

    Raises:
        SpecError: where CUDA is asked for and none is usable.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise SpecError("compute.device: expected cpu or auto, got cuda, and no GPU is usable here")
    return torch.device("cuda")


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


def default_workers(device: torch.device) -> int:
    """Chunks at a time: one a core on the CPU, two on a GPU so that one loads while one runs."""
    return 2 if device.type == "cuda" else cores()


def prepare(device: torch.device) -> None:
    """Set what results depend on: one core a chunk on the CPU, deterministic kernels on a GPU.

    A chunk then gives the same bits however many chunks run beside it.
    """
    torch.set_num_threads(1)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
