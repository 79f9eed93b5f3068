"""Which pixels a resize considers: the masks that defences against scaling attacks work with."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, get_args

import torch
from torch import Tensor

from defender.scaling.bands import Bands
from defender.scaling.coefficients import Taps
from defender.scaling.scaler import Scaler
from defender.types import Images

Kind = Literal["exact", "weighted", "optimisation", "pseudo-inverse"]

SHARE = 0.5
SOURCE, TARGET, EPSILON = 255, 100, 1
STEPS = 2000
ACCURACY = 1e-3


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def considered_mask(scaler: Scaler, kind: Kind = "exact", share: float = SHARE) -> Tensor:
    """Pixels that a resize considers: bool (h, w). Made once; not to be changed.

    The masks are products of a mask of rows and one of columns, but for ``optimisation``.

    * ``exact``: pixels with any influence on the output.
    * ``weighted``: pixels that matter. The influence of a row j of pixels is the root of its summed
      squared weights, ``r_j = sqrt(sum_i L_ij^2)``: an attack of least change moves pixels in
      proportion to their weights. A row counts if ``r_j >= share * sqrt(mean_k r_k^2)``, its
      influence being at least that share of what it would be if all rows had the same. Kernels of
      fixed width leave rows out where these have small weights only, as the outer lobes of cubic
      and Lanczos at a ratio of 4 are; antialiased and area scaling leave none out.
    * ``optimisation``: pixels that an attack moves, :func:`optimisation_mask`.
    * ``pseudo-inverse``: where ``L^+ 1 R^+``, the smallest image that scales to ones, rounds to
      something else than 0.

    Args:
        scaler: the resize.
        kind: which of the masks.
        share: of ``weighted`` only, in [0, 1].

    Raises:
        ValueError: another kind, or a share out of range.

    Source: ``exact``, ``optimisation``: E. Quiring, D. Klein, D. Arp, M. Johns, K. Rieck,
    "Adversarial Preprocessing: Understanding and Preventing Image-Scaling Attacks in Machine
    Learning", 2020, USENIX Security. ``pseudo-inverse``: Y. Gao, I. Shumailov, K. Fawaz,
    "Rethinking Image-Scaling Attacks: The Interplay Between Vulnerabilities in Machine Learning
    Systems", 2022, arXiv 2104.08690. ``weighted`` is ours.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind: expected {' | '.join(get_args(Kind))}, got {kind!r}")
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected [0, 1], got {share}")
    if kind == "exact":
        return scaler.considered()
    if kind == "weighted":
        rows, columns = (_weighty(taps, share) for taps in scaler.taps())
        return torch.outer(rows, columns)
    if kind == "pseudo-inverse":
        rows, columns = (_preimage_of_ones(taps) for taps in scaler.taps())
        preimage: Tensor = torch.outer(rows, columns).round()
        return preimage != 0
    return optimisation_mask(scaler)


def _weighty(taps: Taps, share: float) -> Tensor:
    squares: Tensor = torch.from_numpy(taps.sparse().power(2).sum(0))
    # rounding errors must not decide between pixels of the same weight
    return squares >= share**2 * float(squares.mean()) * (1 - 1e-9)


def _preimage_of_ones(taps: Taps) -> Tensor:
    """``L^+ 1``: the smallest column that scales to ones."""
    matrix = taps.matrix()
    ones = torch.ones(len(matrix), dtype=torch.float64)
    wide = matrix.shape[0] <= matrix.shape[1]
    gram = matrix @ matrix.T if wide else matrix.T @ matrix
    inverse: Tensor = torch.linalg.pinv(gram, hermitian=True)
    return matrix.T @ (inverse @ ones) if wide else inverse @ (matrix.T @ ones)


def optimisation_mask(
    scaler: Scaler, attack: Callable[[Images, Images], Images] | None = None
) -> Tensor:
    """Pixels that an attack on a white image moves whose target is dark grey: bool (h, w).

    The source is all 255, the target all 100, and the scaled image may miss it by one level. A
    white pixel can only become darker, so that pixels of negative weight stay.

    Args:
        scaler: the resize.
        attack: maps a source (1, 1, h, w) and a target (1, 1, height, width) in [0, 1] to the
            attack image; None for the two-stage attack of least change, which is solved here.

    Returns:
        Where the attack image, rounded to 8 bits, is not white.

    Source: E. Quiring, D. Klein, D. Arp, M. Johns, K. Rieck, "Adversarial Preprocessing:
    Understanding and Preventing Image-Scaling Attacks in Machine Learning", 2020, USENIX Security.
    Differs: dual ascent in place of a general solver.
    """
    if attack is not None:
        white, grey = (
            torch.full((1, 1, *size), value / 255)
            for size, value in ((scaler.source, SOURCE), (scaler.target, TARGET))
        )
        return (attack(white, grey)[0, 0] * 255).round() != SOURCE
    vertical, horizontal = scaler.taps()
    # all columns are alike, and so are rows that the first stage leaves at the same level
    between = _darkened(vertical, torch.tensor([[float(TARGET)]], dtype=torch.float64))[0]
    levels, row = torch.unique(between, return_inverse=True)
    return (_darkened(horizontal, levels.unsqueeze(1)) != SOURCE)[row]


def _darkened(taps: Taps, wanted: Tensor) -> Tensor:
    """White lines, changed least so that they scale to a level: (b, 1) to (b, N), rounded.

    ``min ||d||`` subject to ``-255 <= d <= 0`` and ``|L (255 + d) - wanted| <= 1``, by accelerated
    ascent of the dual with restarts; ``d(m) = clip(-L^T m, -255, 0)``.
    """
    forward, adjoint = Bands.of(taps), Bands.of(taps, transposed=True)
    step = 1 / taps.norm() ** 2
    # multipliers are columns: (1, n, b)
    low, high = ((wanted - SOURCE + side).T.unsqueeze(0) for side in (-EPSILON, EPSILON))
    last = ahead = torch.zeros(1, len(taps.index), len(wanted), dtype=torch.float64)
    age = 1.0
    for _ in range(STEPS):
        moved = -adjoint(ahead).clamp(0, SOURCE)
        scaled = forward(moved)
        miss = torch.maximum(low - scaled, scaled - high).max()
        raised = ahead + step * scaled
        fresh = raised - raised.clamp(step * low, step * high)
        change = (fresh - last).abs().max()
        if miss < ACCURACY and change < ACCURACY:
            break
        if float(((ahead - fresh) * (fresh - last)).sum()) > 0:
            age = 1.0
        older = (1 + (1 + 4 * age * age) ** 0.5) / 2
        last, ahead, age = fresh, fresh + (age - 1) / older * (fresh - last), older
    return (SOURCE + moved[0].T).round()
