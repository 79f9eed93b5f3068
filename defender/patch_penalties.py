"""What makes a patch hard to print: edges between cells, and colours that inks do not reach."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

_SOLIDS = {
    "": (255, 255, 255),
    "C": (0, 158, 227),
    "M": (230, 0, 126),
    "Y": (255, 237, 0),
    "MY": (227, 6, 19),
    "CY": (0, 150, 64),
    "CM": (49, 39, 131),
    "CMY": (29, 29, 27),
}
"""Paper, inks and overprints of coated offset paper, in 8-bit sRGB. All three inks are taken for
black ink, which printers put in their place."""

_COVERAGES = (0.0, 0.5, 1.0)


def _linear(values: Tensor) -> Tensor:
    """Light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _encoded(light: Tensor) -> Tensor:
    """Values in sRGB of light in [0, 1]."""
    return torch.where(
        light <= 0.0031308, light * 12.92, 1.055 * light.clamp_min(1e-9) ** (1 / 2.4) - 0.055
    )


def _printable() -> Tensor:
    """Neugebauer's mixture of the solids where each ink covers none, half or all of the paper."""
    solids = {ink: _linear(torch.tensor(rgb).double() / 255) for ink, rgb in _SOLIDS.items()}
    colours = []
    for coverages in itertools.product(_COVERAGES, repeat=3):
        light = torch.zeros(3, dtype=torch.float64)
        for inks, colour in solids.items():
            share = 1.0
            for ink, coverage in zip("CMY", coverages, strict=True):
                share *= coverage if ink in inks else 1 - coverage
            light += share * colour
        colours.append(_encoded(light))
    return torch.stack(colours).float()


PRINTABLE = _printable()
"""Printable colours (27, 3) in [0, 1] sRGB: cyan, magenta and yellow each at 0, 1/2 and 1."""


def total_variation(theta: Tensor) -> Tensor:
    """Mean over pairs of neighbouring cells and over channels of ``|difference|``.

    Args:
        theta: (c, G, G) in [0, 1].

    Returns:
        A scalar in [0, 1], 0 for a single cell; it carries gradients.

    Source: M. Sharif, S. Bhagavatula, L. Bauer, M. K. Reiter, "Accessorize to a Crime", 2016,
    DOI 10.1145/2976749.2978392.
    Differs: a mean of absolute differences, not a sum of lengths of both differences, so that a
    weight means the same for every grid.
    """
    down = (theta[:, 1:] - theta[:, :-1]).abs()
    across = (theta[:, :, 1:] - theta[:, :, :-1]).abs()
    return (down.sum() + across.sum()) / max(1, down.numel() + across.numel())


def non_printability(theta: Tensor) -> Tensor:
    """Mean over cells of the distance to the nearest of the printable colours.

    Args:
        theta: (c, G, G) in [0, 1]; grey cells are compared with the means over channels of the
            colours.

    Returns:
        A scalar >= 0, the Euclidean distance in sRGB; it carries gradients.

    Raises:
        ValueError: neither 1 nor 3 channels.

    Source: M. Sharif, S. Bhagavatula, L. Bauer, M. K. Reiter, "Accessorize to a Crime", 2016,
    DOI 10.1145/2976749.2978392; S. Thys, W. Van Ranst, T. Goedemé, "Fooling Automated
    Surveillance Cameras", 2019, arXiv 1904.08653, the minimum in the place of the product.
    Differs: a mean over cells; the colours are the mixtures of three inks by H. E. J.
    Neugebauer, "Die theoretischen Grundlagen des Mehrfarbenbuchdrucks", 1937, not measured ones.
    """
    if theta.shape[0] not in (1, 3):
        raise ValueError(f"theta: expected 1 or 3 channels, got {theta.shape[0]}")
    colours = PRINTABLE.to(theta)
    if theta.shape[0] == 1:
        colours = colours.mean(dim=1, keepdim=True)
    cells = theta.flatten(1).T
    squares = (cells[:, None] - colours).square().sum(dim=2)
    # of a root at 0 the gradient is taken as 0
    nearest = squares.min(dim=1).values
    exact = nearest == 0
    return torch.where(exact, 0.0, nearest.masked_fill(exact, 1.0).sqrt()).mean()
