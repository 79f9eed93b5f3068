"""The iterative window mean filter: where its windows lie, and what they make of an image.

A block's mean is the sum of its values row by row from the top left, in the images' own precision,
divided by their number. Sums and quotients of IEEE arithmetic are monotone, so images in [0, 1]
stay there exactly, and black and white stay as they are. The order of the additions is fixed, so
compiled code and waves, whatever the device or the batch, agree to the bit.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from defender import iwmf_waves
from defender.noise import mix
from defender.types import Images, Seeds

# the odd number that SplitMix64 counts by
_GAMMA = 0x9E3779B97F4A7C15 - (1 << 64)
_LOW = (1 << 32) - 1


@functools.cache
def kernels() -> ModuleType | None:
    """The compiled code, or None where numba is not installed."""
    try:
        return importlib.import_module("defender.iwmf_kernels")
    except ImportError:
        return None


def fits(size: tuple[int, int], window: int) -> bool:
    """Whether there is a place for a window in images of a height and width."""
    return min(size) > window // 2 * 2


def draw(keys: Seeds, count: int, size: tuple[int, int], window: int) -> Tensor:
    """Places of windows, each image's from its own key, uniform on all centres (r, c).

    With ``h0 = floor(window / 2)``, r is one of h0, ..., height - h0 - 1 and the block begins at
    r - h0; columns likewise. So an even window never reaches the last row and column. Number i of
    a key is word i of a SplitMix64 stream: its upper half gives the row, the lower one the column,
    with a bias below size / 2**32.

    Args:
        keys: int64 (n,), one an image.
        count: windows an image.
        size: height and width of the images, in which a window fits.
        window: side of the windows in pixels.

    Returns:
        int32 (n, count) on the keys' device: ``top * width + left`` of each window, in order.
    """
    compiled = kernels() if keys.device.type == "cpu" else None
    if compiled is not None:
        return torch.from_numpy(compiled.draw(keys.numpy(), count, size, window))
    return drawn_by_torch(keys, count, size, window)


def drawn_by_torch(keys: Seeds, count: int, size: tuple[int, int], window: int) -> Tensor:
    """As ``draw``, on any device and without compiled code."""
    rows, columns = (length - window // 2 * 2 for length in size)
    counters = torch.arange(count, dtype=torch.int64, device=keys.device) * _GAMMA
    words = mix(mix(keys).unsqueeze(1) + counters)
    top = (((words >> 32) & _LOW) * rows) >> 32
    left = ((words & _LOW) * columns) >> 32
    return (top * size[1] + left).to(torch.int32)


def replaced(images: Images, corners: Tensor, window: int) -> Images:
    """Images whose blocks are replaced by their means, one after the other.

    The gradient is exact: a replacement is a symmetric projection, so its adjoint is itself, and
    that of the sequence is the sequence in reverse order. It is differentiable any number of times.

    Args:
        images: (n, c, h, w), floating point; left unchanged.
        corners: int32 (n, count) from ``draw``, or (1, count) for all images.
        window: side of the blocks in pixels.

    Returns:
        (n, c, h, w) in the range of the images.
    """
    result: Images = _Replaced.apply(images, corners.to(images.device), window)
    return result


class _Replaced(torch.autograd.Function):
    """The filter and its adjoint."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, corners: Tensor, window: int) -> Tensor:
        ctx.save_for_backward(corners)
        ctx.window = window
        cpu = images.device.type == "cpu" and images.dtype in (torch.float32, torch.float64)
        compiled = kernels() if cpu else None
        if compiled is None:
            return iwmf_waves.replaced(images, corners, window)
        n, c, height, width = images.shape
        result = images.detach().clone(memory_format=torch.contiguous_format)
        planes = result.view(n, c, height * width).numpy()
        compiled.replace(planes, corners.contiguous().numpy(), width, window)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (corners,) = ctx.saved_tensors
        return replaced(gradients[0], corners.flip(1), ctx.window), None, None
