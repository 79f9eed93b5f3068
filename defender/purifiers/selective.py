"""Selective filters: replace the pixels that a scaler looks at by what it does not look at.

A scaling attack hides its picture in the pixels that enter the small image. The others still show
the source, and the filters rebuild the former from the latter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from defender.noise import derive_seeds, uniform
from defender.scaling.scaler import Scaler
from defender.types import Images, Seeds

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
        kept: those of them that are considered by the weight-aware mask too and whose window
            holds no pixel outside of it either; they stay as they are.
    """

    passes: tuple[Pass, ...]
    reach: tuple[int, int]
    fallback: int
    kept: int

    def replaced(self) -> Tensor:
        """All pixels that are replaced: bool (h, w)."""
        return torch.stack([step.replaced for step in self.passes]).any(0)


@lru_cache(maxsize=64)
def plan(scaler: Scaler, bandwidth: int = 1) -> Plan:
    """Which pixels are replaced, and in how many windows the exact mask leaves nothing.

    Where the image is larger than the target on neither axis, nothing is replaced.

    Args:
        scaler: the pipeline's resize.
        bandwidth: divisor of the window: ``b = floor(ratio / bandwidth)`` on each axis.

    Raises:
        ValueError: a bandwidth below 1.
    """
    if bandwidth < 1:
        raise ValueError(f"bandwidth: expected >= 1, got {bandwidth}")
    pairs = list(zip(scaler.source, scaler.target, strict=True))
    reach = (pairs[0][0] // (pairs[0][1] * bandwidth), pairs[1][0] // (pairs[1][1] * bandwidth))
    with torch.inference_mode(False), torch.no_grad():
        mask = scaler.considered()
        if all(source <= target for source, target in pairs):
            return Plan((Pass(mask, torch.zeros_like(mask)),), reach, 0, 0)
        served = _unconsidered(mask, reach) > 0
        passes = [Pass(mask, mask & served)]
        empty = mask & ~served
        kept = 0
        if empty.any():
            weighted = scaler.considered()
            served = _unconsidered(weighted, reach) > 0
            passes.append(Pass(weighted, empty & weighted & served))
            kept = int((empty & weighted & ~served).sum())
        return Plan(tuple(passes), reach, int(empty.sum()), kept)


def _unconsidered(mask: Tensor, reach: tuple[int, int]) -> Tensor:
    """Pixels outside the mask in the window around each pixel, cropped at the border."""
    free = (~mask).double().view(1, 1, *mask.shape)
    kernel = free.new_ones(1, 1, 2 * reach[0] + 1, 2 * reach[1] + 1)
    return functional.conv2d(free, kernel, padding=reach).view(mask.shape).round().long()


def selective_median(images: Images, scaler: Scaler, bandwidth: int = 1) -> Images:
    """Replace each considered pixel by the median of the others in its window.

    The window is ``[-b_v, b_v] x [-b_h, b_h]`` with ``b = floor(ratio / bandwidth)`` on each axis,
    cropped at the border; of an even number of values the lower median is taken; channel by
    channel. Where a window holds considered pixels only, :class:`Plan` says what happens. Images
    that are larger than the target on neither axis stay as they are.

    Args:
        images: (n, c, h, w) of the scaler's source size; left unchanged.
        scaler: the pipeline's resize.
        bandwidth: divisor of the window, >= 1.

    Returns:
        (n, c, h, w); gradients pass to the pixel that is the median.

    Raises:
        ValueError: images of another size than the scaler's source, or a bandwidth below 1.

    Source: E. Quiring, D. Klein, D. Arp, M. Johns, K. Rieck, "Adversarial Preprocessing:
    Understanding and Preventing Image-Scaling Attacks in Machine Learning", 2020, USENIX Security.
    Differs: where the exact mask leaves nothing in a window, the weight-aware mask is used.
    """
    _check(images, scaler)
    made = images.clone()
    todo = plan(scaler, bandwidth)
    for step in todo.passes:
        known = images.masked_fill(step.mask.to(images.device), torch.nan)
        planes = _padded(known, todo.reach, torch.nan)
        values = [
            _lower_median(planes.index_select(1, index.flatten()).view(-1, *index.shape))
            for index in _windows(step, todo.reach, len(planes), images.device)
        ]
        made = _put(made, values, step)
    return made


def selective_random(images: Images, scaler: Scaler, seeds: Seeds, bandwidth: int = 1) -> Images:
    """Replace each considered pixel by one of the others in its window, drawn uniformly.

    Windows, border and errors as for :func:`selective_median`; every channel draws for itself.

    Args:
        images: (n, c, h, w) of the scaler's source size; left unchanged.
        scaler: the pipeline's resize.
        seeds: int64 (n,), one an image.
        bandwidth: divisor of the window, >= 1.

    Returns:
        (n, c, h, w); gradients pass to the pixels that were drawn.

    Source: as for :func:`selective_median`.
    Differs: as there; the draws come from a key an image, where the authors' code seeds by the
    size of the image.
    """
    _check(images, scaler)
    made = images.clone()
    todo = plan(scaler, bandwidth)
    for number, step in enumerate(todo.passes):
        rows, columns = _lattice(step.replaced)
        draws = uniform(
            derive_seeds(seeds, f"selective random {number}"),
            (images.shape[1], len(rows), len(columns)),
        )
        draws = draws.to(images.device).flatten(0, 1).flatten(1)
        free = _padded((~step.mask).view(1, 1, *step.mask.shape), todo.reach, False)[0]
        free = free.to(images.device)
        planes = _padded(images, todo.reach, 0.0)
        values, start = [], 0
        for index in _windows(step, todo.reach, len(planes), images.device):
            table = index.flatten(0, 1)
            passed = free[table].cumsum(1)
            share = draws[:, start : start + len(table)].T.double()
            start += len(table)
            rank = (share * passed[:, -1:]).long() + 1
            place = torch.searchsorted(passed, rank.contiguous())
            # a window without a free pixel is not put back, whatever is taken from it
            chosen = table.gather(1, place.clamp_max(table.shape[1] - 1)).T
            values.append(planes.gather(1, chosen).view(-1, *index.shape[:2]))
        made = _put(made, values, step)
    return made


def _check(images: Images, scaler: Scaler) -> None:
    if images.ndim != 4 or tuple(images.shape[2:]) != scaler.source:
        height, width = scaler.source
        raise ValueError(f"expected images (n, c, {height}, {width}), got {tuple(images.shape)}")


def _padded(images: Tensor, reach: tuple[int, int], value: float) -> Tensor:
    """Images (n, c, h, w) with a margin of the reach, as flat planes (n c, pixels)."""
    down, across = reach
    return (
        functional.pad(images, [across, across, down, down], value=value).flatten(0, 1).flatten(1)
    )


def _lattice(replaced: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns that hold replaced pixels; of separable scalers, most of the crossings."""
    return replaced.any(1).nonzero().flatten(), replaced.any(0).nonzero().flatten()


def _windows(
    step: Pass, reach: tuple[int, int], planes: int, device: torch.device
) -> Iterator[Tensor]:
    """Windows around the crossings of the lattice, some rows of it at a time.

    Yields:
        int64 (rows, columns, values), places in a padded plane.
    """
    rows, columns = _lattice(step.replaced)
    down, across = (2 * side + 1 for side in reach)
    width = step.mask.shape[1] + across - 1
    window = (torch.arange(down).unsqueeze(1) * width + torch.arange(across)).flatten()
    crossings = rows.unsqueeze(1) * width + columns
    lines = max(1, _BLOCK // max(1, planes * len(columns) * len(window)))
    for start in range(0, len(rows), lines):
        yield (crossings[start : start + lines].unsqueeze(-1) + window).to(device)


def _lower_median(windows: Tensor) -> Tensor:
    """Lower median of the numbers along the last axis, NaN where there is none."""
    if windows.requires_grad or windows.device.type != "cpu":
        return windows.nanmedian(dim=-1).values
    # numpy sorts short rows ten times as fast as torch selects from them; NaN comes last
    ranked = torch.from_numpy(np.sort(windows.numpy(), axis=-1))
    # which values are missing is the same in all planes
    middle = ((~windows[:1].isnan()).sum(-1, keepdim=True) - 1) // 2
    return ranked.gather(-1, middle.clamp_min(0).expand(len(ranked), -1, -1, -1)).squeeze(-1)


def _put(made: Images, values: list[Tensor], step: Pass) -> Images:
    """Put values, (n c, rows, columns) in blocks of rows, into the replaced pixels of images."""
    if not values:
        return made
    n, c, _, width = made.shape
    rows, columns = _lattice(step.replaced)
    crossings = (rows.unsqueeze(1) * width + columns).flatten()
    wanted = step.replaced.flatten()[crossings].to(made.device)
    places = crossings.to(made.device)[wanted]
    taken = torch.cat(values, 1).view(n, c, -1)[:, :, wanted]
    return made.flatten(2).index_copy(2, places, taken).view_as(made)
