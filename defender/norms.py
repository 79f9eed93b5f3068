"""Norm balls around clean images: steps, projections, random starts, and rounding inside them.

A norm is ``"linf"`` (largest change of a value) or ``"l2"`` (root of the summed squared changes of
all values of an image). Radii are in [0, 1] units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from defender import noise
from defender.types import Images, Seeds

NORMS = ("linf", "l2")
_LEVEL_TOLERANCE = 1e-6
_GRID_TOLERANCE = 1e-2


def _check_norm(norm: str) -> None:
    if norm not in NORMS:
        raise ValueError(f"norm: expected {' | '.join(NORMS)}, got {norm!r}")


def _per_image(values: Tensor) -> Tensor:
    """Reshape (n,) to (n, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def lengths(difference: Tensor) -> Tensor:
    """L2 norm of each image: (n, c, h, w) to (n,)."""
    norms: Tensor = torch.linalg.vector_norm(difference, dim=(1, 2, 3))
    return norms


@torch.no_grad()
def ascend_(images: Images, gradient: Tensor, step_size: float, norm: str) -> Images:
    """Move images in place along the steepest ascent of the norm.

    linf: ``x + step_size * sign(g)``; l2: ``x + step_size * g / ||g||_2``, an image whose gradient
    is zero staying where it is.

    Args:
        images: (n, c, h, w), changed in place.
        gradient: (n, c, h, w); overwritten.
        step_size: length of the step in the norm, in [0, 1] units.
        norm: ``"linf"`` or ``"l2"``.

    Returns:
        ``images``.

    Raises:
        ValueError: for an unknown norm.
    """
    _check_norm(norm)
    if norm == "linf":
        return images.add_(gradient.sign_(), alpha=step_size)
    smallest = torch.finfo(gradient.dtype).tiny
    gradient.div_(_per_image(gradient.abs().amax(dim=(1, 2, 3)).clamp_min_(smallest)))
    gradient.div_(_per_image(lengths(gradient).clamp_min_(smallest)))
    return images.add_(gradient, alpha=step_size)


def box(clean: Images, epsilon: float) -> tuple[Images, Images]:
    """Lower and upper bounds of the linf ball cut with [0, 1].

    Clamping to them is the same as clamping to [0, 1] and then to the ball, in any order.
    """
    return (clean - epsilon).clamp_min_(0.0), (clean + epsilon).clamp_max_(1.0)


@torch.no_grad()
def project_(images: Images, clean: Images, epsilon: float, norm: str) -> Images:
    """Bring images in place into the ball around the clean ones and into [0, 1].

    Args:
        images: (n, c, h, w), changed in place.
        clean: (n, c, h, w) in [0, 1], the centres.
        epsilon: radius in the norm, in [0, 1] units.
        norm: ``"linf"`` or ``"l2"``. For l2 the change is shortened first and then clamped to
            [0, 1], which only shortens it further.

    Returns:
        ``images``.

    Raises:
        ValueError: for an unknown norm.
    """
    _check_norm(norm)
    if norm == "linf":
        low, high = box(clean, epsilon)
        return torch.clamp(images, low, high, out=images)
    images.sub_(clean)
    length = lengths(images)
    shrink = torch.where(length > epsilon, epsilon / length, torch.ones_like(length))
    return images.mul_(_per_image(shrink)).add_(clean).clamp_(0.0, 1.0)


def random_start(clean: Images, epsilon: float, norm: str, seeds: Seeds) -> Images:
    """Random images inside the ball around the clean ones, each from its own seed.

    linf: uniform in the cube; l2: uniform in the ball (normal direction, radius
    ``epsilon * u ** (1 / d)`` for d values an image). Both are clamped to [0, 1].

    Args:
        clean: (n, c, h, w) in [0, 1].
        epsilon: radius in the norm, in [0, 1] units.
        norm: ``"linf"`` or ``"l2"``.
        seeds: int64 (n,).

    Returns:
        (n, c, h, w) of the dtype and memory format of ``clean``.

    Raises:
        ValueError: for an unknown norm.
    """
    _check_norm(norm)
    shape = tuple(clean.shape[1:])
    if norm == "linf":
        change = noise.uniform(seeds, shape, -epsilon, epsilon)
    else:
        change = noise.normal(noise.derive_seeds(seeds, "direction"), shape)
        radius = noise.uniform(noise.derive_seeds(seeds, "radius"), ()).pow_(
            1 / clean[0].numel() if len(clean) else 1.0
        )
        change.mul_(_per_image(epsilon * radius / lengths(change)))
    start = clean.clone().add_(change.to(clean))
    return project_(start, clean, epsilon, norm)


def to_uint8(images: Images) -> Tensor:
    """Nearest 8-bit values of images in [0, 1], halves to even, values outside clamped."""
    return (images * 255).round_().clamp_(0, 255).to(torch.uint8)


def from_uint8(pixels: Tensor) -> Images:
    """Float32 images in [0, 1] of 8-bit values: value / 255."""
    return pixels.to(torch.float32).div_(255)


@torch.no_grad()
def quantise_within(
    attacked: Tensor, clean: Tensor, *, norm: str | None, epsilon: float | None
) -> Tensor:
    """Round attacked images to 8 bits without leaving the budget around the clean ones.

    linf: values are rounded, then clamped to [ceil(255 (x - epsilon)), floor(255 (x + epsilon))];
    as 255 x is whole this is X - floor(255 epsilon) .. X + floor(255 epsilon), so epsilon = 0.03
    (7.65 levels) allows 7 levels and 8/255 allows 8. l2: values are rounded; where that left the
    ball, values that were rounded away from the clean image are rounded towards it instead, those
    nearest to the half level first, until the image is inside. No norm: plain rounding.

    Args:
        attacked: (n, c, h, w) float in [0, 1].
        clean: (n, c, h, w) float in [0, 1], multiples of 1/255.
        norm: ``"linf"``, ``"l2"``, or None where no norm bounds the change.
        epsilon: radius in [0, 1] units; None only without a norm.

    Returns:
        uint8 (n, c, h, w).

    Raises:
        ValueError: for an unknown norm, a norm without epsilon, shapes that differ, or clean
            images that are not multiples of 1/255.
    """
    if norm is None:
        return to_uint8(attacked)
    _check_norm(norm)
    if epsilon is None or epsilon < 0:
        raise ValueError(f"epsilon: expected >= 0 for norm {norm!r}, got {epsilon!r}")
    if attacked.shape != clean.shape:
        raise ValueError(f"attacked: expected {tuple(clean.shape)}, got {tuple(attacked.shape)}")
    centre = (clean * 255).round_()
    if len(clean) and (clean * 255 - centre).abs().amax() > _GRID_TOLERANCE:
        raise ValueError("clean: expected multiples of 1/255, got values between them")
    levels = epsilon * 255
    if norm == "linf":
        allowed = float(int(levels + _LEVEL_TOLERANCE))
        rounded = (attacked * 255).round_()
        torch.clamp(rounded, centre - allowed, centre + allowed, out=rounded)
    else:
        rounded = centre + _round_inside(attacked * 255 - centre, levels)
    return rounded.clamp_(0, 255).to(torch.uint8)


def _round_inside(change: Tensor, radius: float) -> Tensor:
    """Whole changes near ``change`` whose L2 norm does not exceed ``radius``, image by image."""
    length = lengths(change)
    shrink = torch.where(length > radius, radius / length, torch.ones_like(length))
    exact = (change * _per_image(shrink)).flatten(1).double()
    size = exact.abs()
    rounded = size.round()
    surplus = rounded.square().sum(1, keepdim=True) - (radius + _LEVEL_TOLERANCE) ** 2
    excess, order = (rounded - size).sort(dim=1, descending=True, stable=True)
    saved = torch.where(excess > 0, 2 * rounded.gather(1, order) - 1, 0)
    lowered = (saved.cumsum(1) - saved < surplus) & (excess > 0)
    rounded.sub_(torch.zeros_like(rounded).scatter_(1, order, lowered.double()))
    return (rounded * exact.sign()).view_as(change).to(change.dtype)
