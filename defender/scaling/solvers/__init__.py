"""Solvers of the image-scaling attack: the smallest change of an image for a wanted resize.

Every solver is ``solve(source, target, scaler, epsilon, **options)`` with source (n, c, h, w) and
target (n, c, height, width) in [0, 1], and returns images in [0, 1] before rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from torch import Tensor

SOLVERS = {
    "l2": ("l2", "solve_l2"),
    "l0": ("norms", "solve_l0"),
    "l1": ("norms", "solve_l1"),
    "linf": ("norms", "solve_linf"),
}
"""Module of this package and function in it, by the norm of the change."""


def solver(norm: str) -> Callable[..., Tensor]:
    """The solver that makes the change smallest in a norm.

    Raises:
        ValueError: for a norm without a solver.
    """
    if norm not in SOLVERS:
        raise ValueError(f"norm: expected {' | '.join(SOLVERS)}, got {norm!r}")
    module, name = SOLVERS[norm]
    solve: Callable[..., Tensor] = getattr(import_module(f"{__name__}.{module}"), name)
    return solve
