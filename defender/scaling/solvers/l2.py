"""The smallest change in l2 for a wanted resize: which solver, and the two-stage form."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import pad

from defender.norms import from_uint8, to_uint8
from defender.scaling.scaler import Scaler
from defender.scaling.solvers import blocks, dual
from defender.scaling.solvers.operator import Operator, identity, operator, with_identity

METHODS = ("auto", "exact", "dual", "two-stage")


def solve_l2(
    source: Tensor,
    target: Tensor,
    scaler: Scaler,
    epsilon: float,
    *,
    method: str = "auto",
    steps: int = 300,
) -> Tensor:
    """``argmin ||A - S||_2`` subject to ``|L A R - T| <= epsilon`` and ``0 <= A <= 1``.

    Args:
        source: (n, c, h, w) in [0, 1], of the scaler's source size.
        target: (n, c, height, width) in [0, 1], of the scaler's target size.
        scaler: the resize.
        epsilon: >= 0, in [0, 1] units.
        method: ``"exact"``: :func:`defender.scaling.solvers.blocks.solve`; ``"dual"``:
            :func:`defender.scaling.solvers.dual.solve`; ``"auto"``: exact where output pixels
            share no input, dual elsewhere; ``"two-stage"``: :func:`two_stage`.
        steps: largest number of steps of the dual.

    Returns:
        (n, c, h, w) in [0, 1], before rounding.

    Raises:
        ValueError: ``"exact"`` for a scaler whose output pixels share input pixels.
    """
    if method == "two-stage":
        return two_stage(source, target, scaler, epsilon, steps=steps)
    return _solve(source, target, operator(scaler, source), epsilon, method, steps)


def two_stage(
    source: Tensor, target: Tensor, scaler: Scaler, epsilon: float, *, steps: int = 300
) -> Tensor:
    """One axis after the other, each to its optimum, rounded to 8 bits after each.

    First the horizontally resized source ``S R`` is changed until it resizes vertically to T, then
    the source until it resizes horizontally to that. What each stage may miss adds up, and the
    smallest changes of two stages are not the smallest change of both.

    Arguments and result are those of :func:`solve_l2`.

    Source: Q. Xiao, Y. Chen, C. Shen, Y. Chen, K. Li, "Seeing is Not Believing: Camouflage Attacks
    on Image Scaling Algorithms", 2019, USENIX Security.
    Differs: each stage is solved by our own solvers, all columns and images at once.
    """
    vertical, horizontal = (stage.to(source.device, source.dtype) for stage in _stages(scaler))
    planes = horizontal.forward(source.flatten(0, 1)).mT
    narrow = _rounded(planes.reshape(*source.shape[:3], scaler.target[1]))
    between = _rounded(_solve(narrow, target, vertical, epsilon, "auto", steps))
    return _solve(source, between, horizontal, epsilon, "auto", steps)


def clips_between(scaler: Scaler) -> bool:
    """Whether 8-bit resizes lose what overshoots along one axis before the other is resized."""
    return scaler.library != "opencv" and any(bool((t.weight < 0).any()) for t in scaler.taps())


def solve_unclipped(
    source: Tensor,
    target: Tensor,
    scaler: Scaler,
    epsilon: float,
    *,
    width_first: bool,
    steps: int = 300,
) -> Tensor:
    """:func:`solve_l2` with values in [0, 1] also between the two axes.

    8-bit resizes of Pillow and torch round and clip after the first axis. Where that would cut off
    something, they are not the linear map that is solved for; with this they are.

    Args:
        source: (n, c, h, w) in [0, 1], of the scaler's source size.
        target: (n, c, height, width) in [0, 1], of the scaler's target size.
        scaler: the resize.
        epsilon: >= 0, in [0, 1] units.
        width_first: the library resizes the width before the height.
        steps: largest number of steps.

    Returns:
        (n, c, h, w) in [0, 1], before rounding.
    """
    resize = _unclipped(scaler, width_first).to(source.device, source.dtype)
    (height, width), (tall, wide) = scaler.target, scaler.source
    extra = (0, 0, 0, tall) if width_first else (0, wide)
    allowed = pad(source.new_full((height, width), epsilon), extra, value=0.5)
    return dual.solve(source, pad(target, extra, value=0.5), resize, allowed, steps=steps)


def _solve(
    source: Tensor, target: Tensor, resize: Operator, epsilon: float, method: str, steps: int
) -> Tensor:
    if method == "exact" or (method == "auto" and resize.disjoint):
        return blocks.solve(source, target, resize, epsilon)
    return dual.solve(source, target, resize, epsilon, steps=steps)


def _rounded(images: Tensor) -> Tensor:
    return from_uint8(to_uint8(images)).to(images.dtype)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _unclipped(scaler: Scaler, width_first: bool) -> Operator:
    vertical, horizontal = scaler.taps()
    if width_first:
        return Operator.of(with_identity(vertical), horizontal)
    return Operator.of(vertical, with_identity(horizontal))


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _stages(scaler: Scaler) -> tuple[Operator, Operator]:
    vertical, horizontal = scaler.taps()
    return (
        Operator.of(vertical, identity(scaler.target[1])),
        Operator.of(identity(scaler.source[0]), horizontal),
    )
