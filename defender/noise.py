"""Randomness with one key an image, so that batching, order and restarts change nothing.

Seeds are int64 tensors (n,), one an image. A stage derives its own seeds from them by name, and
draws numbers that depend on nothing but the seed of their image. The numbers come from the CPU
generator whatever the device, so that a GPU run starts from the same noise.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from defender.types import Seeds

_WORD = 1 << 64


def _signed(value: int) -> int:
    """The int64 that has the same 64 bits as an unsigned value."""
    value %= _WORD
    return value - _WORD if value >= _WORD // 2 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64 words, zeros coming in from the left."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def mix(words: Tensor) -> Tensor:
    """One step of SplitMix64 on int64 words of any shape: a bijection that scrambles all bits.

    Source: G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", 2014,
    DOI 10.1145/2714064.2660195.
    Differs: none; 64-bit words are held as two's complement int64.
    """
    words = words + _GAMMA
    words = (words ^ _shift_right(words, 30)) * _FIRST
    words = (words ^ _shift_right(words, 27)) * _SECOND
    return words ^ _shift_right(words, 31)


def _check(seeds: Seeds) -> None:
    if seeds.ndim != 1 or seeds.dtype != torch.int64:
        raise ValueError(f"seeds: expected int64 (n,), got {seeds.dtype} {tuple(seeds.shape)}")


def derive_seeds(seeds: Seeds, stream: str | int) -> Seeds:
    """Seeds of a named stream: independent of the given ones and of any other stream's.

    Args:
        seeds: int64 (n,), one an image.
        stream: name or number of the stream; the text ``"1"`` and the number 1 differ.

    Returns:
        int64 (n,) on the device of ``seeds``, the same on every machine.

    Raises:
        ValueError: when ``seeds`` is not int64 of one dimension.
    """
    _check(seeds)
    text = f"{type(stream).__name__}:{stream}".encode()
    key = _signed(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))
    return mix(mix(seeds) ^ key)


def integers(seeds: Seeds, high: int) -> Tensor:
    """One whole number an image, uniform on {0, ..., high - 1}, computed on the seeds' device.

    Args:
        seeds: int64 (n,), one an image.
        high: number of values, 1 to 2**31; the bias of the remainder is below high / 2**63.

    Returns:
        int64 (n,).

    Raises:
        ValueError: when ``high`` is outside its range.
    """
    _check(seeds)
    if not 1 <= high <= 1 << 31:
        raise ValueError(f"high: expected [1, 2**31], got {high}")
    return _shift_right(mix(seeds), 1) % high


def signs(seeds: Seeds, count: int) -> Tensor:
    """``count`` independent signs an image, -1.0 or 1.0, computed on the seeds' device.

    Args:
        seeds: int64 (n,), one an image.
        count: signs an image.

    Returns:
        float32 (n, count).
    """
    _check(seeds)
    counters = torch.arange(count, device=seeds.device, dtype=torch.int64) * _GAMMA
    bits = _shift_right(mix(mix(seeds).unsqueeze(1) + counters), 63)
    return bits.to(torch.float32).mul_(2).sub_(1)


def uniform(seeds: Seeds, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform numbers in [low, high), each image's from its own generator.

    Args:
        seeds: int64 (n,), one an image.
        shape: shape of one image's numbers.
        low: smallest value.
        high: end of the interval.

    Returns:
        float32 (n, *shape) on the device of ``seeds``.
    """
    return _draw(seeds, shape, normal_numbers=False).mul_(high - low).add_(low)


def normal(seeds: Seeds, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers, each image's from its own generator.

    Args:
        seeds: int64 (n,), one an image.
        shape: shape of one image's numbers.

    Returns:
        float32 (n, *shape) on the device of ``seeds``.
    """
    return _draw(seeds, shape, normal_numbers=True)


def _draw(seeds: Seeds, shape: tuple[int, ...], *, normal_numbers: bool) -> Tensor:
    _check(seeds)
    numbers = torch.empty(len(seeds), *shape)
    generator = torch.Generator()
    for row, seed in zip(numbers, seeds.tolist(), strict=True):
        generator.manual_seed(seed)
        if normal_numbers:
            row.normal_(generator=generator)
        else:
            row.uniform_(generator=generator)
    return numbers.to(seeds.device)
