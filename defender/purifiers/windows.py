"""Windows around the pixels that a scaler looks at, and how values get back into their place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from defender.scaling import Scaler, considered_mask
from defender.types import Images

_BLOCK = 1 << 20
"""Window values gathered at a time, so that neither batch nor image size decides the memory."""


@dataclass(frozen=True, eq=False)
class Pass:
    """Pixels that are replaced, and from what.

    Args:
        mask: bool (h, w), considered pixels, which no window takes values from.
        replaced: bool (h, w), pixels of the mask that this pass replaces; the window of each
            holds a pixel outside the mask.
    """

    mask: Tensor
    replaced: Tensor


@dataclass(frozen=True, eq=False)
class Plan:
    """What a selective filter does to images of one size.

    Args:
        passes: the exact mask and, where some windows hold nothing else, the weight-aware one.
        reach: b, pixels from the centre of a window to its ends, down and across.
        fallback: considered pixels whose window holds no pixel outside the exact mask.
        kept: those of them that count by their weight too and whose window holds nothing else,
            so that they stay as they are. Nothing can be hidden from a scaler that considers
            nearly all pixels alike, such as one by area, and all are kept.
    """

    passes: tuple[Pass, ...]
    reach: tuple[int, int]
    fallback: int
    kept: int

    def replaced(self) -> Tensor:
        """All pixels that are replaced: bool (h, w)."""
        return torch.stack([step.replaced for step in self.passes]).any(0)


@lru_cache(maxsize=64)
def plan(scaler: Scaler, bandwidth: int = 1, limit: int | None = None) -> Plan:
    """Which pixels are replaced, and in how many windows the exact mask leaves nothing.

    Where the image is larger than the target on neither axis, nothing is replaced and all
    considered pixels are kept.

    Args:
        scaler: the pipeline's resize.
        bandwidth: divisor of the window: ``b = floor(ratio / bandwidth)`` on each axis.
        limit: largest b, or None.

    Raises:
        ValueError: a bandwidth below 1.
    """
    if bandwidth < 1:
        raise ValueError(f"bandwidth: expected >= 1, got {bandwidth}")
    pairs = list(zip(scaler.source, scaler.target, strict=True))
    down, across = (source // (target * bandwidth) for source, target in pairs)
    reach = (down, across) if limit is None else (min(down, limit), min(across, limit))
    with torch.inference_mode(False), torch.no_grad():
        mask = scaler.considered()
        if all(source <= target for source, target in pairs):
            return Plan((Pass(mask, torch.zeros_like(mask)),), reach, 0, int(mask.sum()))
        served = _free(mask, reach)
        passes = [Pass(mask, mask & served)]
        empty = mask & ~served
        kept = 0
        if empty.any():
            weighted = considered_mask(scaler, "weighted")
            served = _free(weighted, reach)
            passes.append(Pass(weighted, empty & weighted & served))
            kept = int((empty & weighted & ~served).sum())
        return Plan(tuple(passes), reach, int(empty.sum()), kept)


def _free(mask: Tensor, reach: tuple[int, int]) -> Tensor:
    """Whether the window around each pixel holds one outside the mask: bool (h, w)."""
    found = (~mask).float().view(1, 1, *mask.shape)
    for axis, side in enumerate(reach):
        window, margin = [1, 1], [0, 0]
        window[axis], margin[axis] = 2 * side + 1, side
        found = functional.max_pool2d(found, window, stride=1, padding=margin)
    return found.view(mask.shape) > 0


def padded(images: Tensor, reach: tuple[int, int], value: float) -> Tensor:
    """Images (n, c, h, w) with a margin of the reach, as flat planes (n c, pixels)."""
    down, across = reach
    framed = functional.pad(images, [across, across, down, down], value=value)
    return framed.flatten(0, 1).flatten(1)


def windows(
    step: Pass, reach: tuple[int, int], planes: int, device: torch.device
) -> Iterator[Tensor]:
    """Windows around the pixels to replace, in reading order, some of them at a time.

    Args:
        step: the pixels to replace.
        reach: pixels from the centre of a window to its ends, down and across.
        planes: how often the caller holds all values of the windows, which decides how many
            windows are a block.
        device: where the result is wanted.

    Yields:
        int64 (windows, values), places in a padded plane.
    """
    rows, columns = step.replaced.nonzero(as_tuple=True)
    down, across = (2 * side + 1 for side in reach)
    width = step.mask.shape[1] + across - 1
    window = (torch.arange(down).unsqueeze(1) * width + torch.arange(across)).flatten()
    corners = (rows * width + columns).unsqueeze(1)
    size = max(1, _BLOCK // max(1, planes * len(window)))
    for start in range(0, len(corners), size):
        yield (corners[start : start + size] + window).to(device)


def put(made: Images, values: list[Tensor], step: Pass) -> Images:
    """Put values into the replaced pixels of images.

    Args:
        made: (n, c, h, w); left unchanged.
        values: (n c, windows), in blocks of windows in the order of :func:`windows`.
        step: the pixels to replace.

    Returns:
        (n, c, h, w).
    """
    if not values:
        return made
    places = step.replaced.flatten().nonzero().flatten().to(made.device)
    taken = torch.cat(values, 1).view(*made.shape[:2], len(places))
    return made.flatten(2).index_copy(2, places, taken).view_as(made)
