"""Judging what a defence answered: a copy of bytes that anyone may have written."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.sandbox.channel import (
    DTYPES,
    FLOAT32,
    IMAGES,
    REPLY,
    Buffer,
    Header,
    Status,
    padded,
    text_of,
)
from tasks.sandbox.limits import Limits

TOLERANCE = 1e-3
"""Values outside [0, 1] by no more are clipped; others are no images."""

_LARGEST = 1 << 24


class Unusable(Exception):
    """The answer cannot be used; the text is a sentence without a subject."""


def reply_to(buffer: Buffer, sequence: int, expected: Status) -> Header:
    """The header of the reply to a request.

    Raises:
        Unusable: where it is damaged, belongs to another request, or tells of an error.
    """
    page = buffer.copy(REPLY)
    header = Header.unpack(page)
    if header is None or header.sequence != sequence:
        raise Unusable("wrote over the header of its answer")
    if header.status in (Status.RAISED, Status.NOT_LOADED):
        raise Unusable(text_of(page, header) or "raised an exception")
    if header.status == Status.NO_TENSOR:
        raise Unusable(f"answered with {text_of(page, header)}")
    if header.status != expected:
        raise Unusable("wrote over the header of its answer")
    return header


def check_parameters(header: Header, limits: Limits) -> None:
    """Hold the number of parameters against what is allowed.

    Raises:
        Unusable: where there are more.
    """
    if limits.parameters is not None and header.parameters > limits.parameters:
        allowed = f"more than the {limits.parameters:,} allowed"
        raise Unusable(f"holds {header.parameters:,} parameters, {allowed}")


def images_of(buffer: Buffer, header: Header, request: Tensor, limits: Limits) -> Tensor:
    """The images of an answer.

    Args:
        buffer: where they lie.
        header: the copy of the reply's header.
        request: the images (n, c, h, w) that were sent.
        limits: see `Limits`.

    Returns:
        Images (n, c, H, W) in [0, 1], in memory of their own.

    Raises:
        Unusable: where they are not.
    """
    shape = _shape_of(header, request, limits)
    count = shape[0] * shape[1] * shape[2] * shape[3]
    start = IMAGES + padded(4 * request.numel())
    if header.length != 4 * count or start + header.length > buffer.size:
        raise Unusable("wrote over the header of its answer")
    images = torch.frombuffer(buffer.memory, dtype=torch.float32, count=count, offset=start)
    images = images.clone().view(shape)
    low, high = (float(bound) for bound in torch.aminmax(images))
    if not (low >= -float("inf") and high <= float("inf")):
        raise Unusable("answered with NaN")
    if low == -float("inf") or high == float("inf"):
        raise Unusable("answered with infinite values")
    if low < -TOLERANCE or high > 1 + TOLERANCE:
        raise Unusable(f"answered with values from {low:.4g} to {high:.4g}, expected 0 to 1")
    return images if low >= 0 and high <= 1 else images.clamp_(0, 1)


def _shape_of(header: Header, request: Tensor, limits: Limits) -> tuple[int, int, int, int]:
    if header.dtype != FLOAT32:
        name = DTYPES[header.dtype] if header.dtype < len(DTYPES) else DTYPES[0]
        raise Unusable(f"answered with {name}, expected float32")
    if header.dimensions != 4:
        dimensions = f"{header.dimensions} dimensions"
        raise Unusable(f"answered with {dimensions}, expected 4 (n, c, h, w)")
    images, channels, height, width = header.shape
    sent, sent_channels, sent_height, sent_width = request.shape
    if images != sent:
        raise Unusable(f"answered with {images} images for {sent}")
    if channels != sent_channels:
        raise Unusable(f"answered with {channels} channels, expected {sent_channels}")
    size = f"{height} x {width} pixels"
    if not (height and width):
        raise Unusable(f"answered with images of {size}")
    allowed = limits.pixels_out(sent_height, sent_width)
    if max(height, width) > _LARGEST or height * width > allowed:
        raise Unusable(f"answered with images of {size}, more than the {allowed:,} pixels allowed")
    return images, channels, height, width
