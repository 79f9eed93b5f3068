"""A shared buffer with fixed headers, by which images go to a defence and come back.

Nothing that comes back is ever unpickled or trusted: the other side can write any byte at any
time, so the parent copies first and judges the copy. The buffer is an unnamed file in memory that
is sealed, so that it cannot be made shorter while the parent reads. Its layout:

    0                request header
    4096             reply header, and after it the text of an error
    8192             images of the request, float32 (n, c, h, w)
    next 4096        images of the reply

One byte over a socket says "your turn"; a new buffer travels with that byte.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from dataclasses import dataclass
from enum import IntEnum

MAGIC = b"IMGDEF01"
PAGE = 4096
REQUEST, REPLY, IMAGES = 0, PAGE, 2 * PAGE
TURN = b"."

# name, sequence, status, dtype, dimensions, flags, shape, bytes, parameters, seed, text bytes
_FORMAT = struct.Struct("<8sQIIII4QQQQI4x")
TEXT_BYTES = PAGE - _FORMAT.size
MUTATED, SEEDED = 1, 2

DTYPES = (
    *("another type", "float32", "float64", "float16", "bfloat16", "bool"),
    *("uint8", "int8", "int16", "int32", "int64", "complex64", "complex128"),
)
FLOAT32 = 1


class Status(IntEnum):
    """What a header is about."""

    LOAD = 1
    APPLY = 2
    READY = 3
    NOT_LOADED = 4
    ANSWER = 5
    RAISED = 6
    NO_TENSOR = 7


@dataclass(frozen=True)
class Header:
    """The fixed fields of a request or a reply.

    Args:
        status: what it is about, a `Status`, or any number from a hostile process.
        sequence: number of the request; a reply repeats it.
        dtype: place in `DTYPES`.
        dimensions: number of dimensions of the images; 4 of them are described.
        flags: `MUTATED` and `SEEDED`.
        shape: sizes of the first four dimensions, 0 where there are fewer.
        length: bytes of the images in the buffer.
        parameters: parameters of the networks that the defence holds.
        seed: where the generators are to start, if `SEEDED`.
        text: bytes of the text after the header.
    """

    status: int
    sequence: int
    dtype: int = 0
    dimensions: int = 0
    flags: int = 0
    shape: tuple[int, int, int, int] = (0, 0, 0, 0)
    length: int = 0
    parameters: int = 0
    seed: int = 0
    text: int = 0

    def pack(self) -> bytes:
        """As it lies in the buffer."""
        first = (self.sequence, self.status, self.dtype, self.dimensions, self.flags)
        last = (self.length, self.parameters, self.seed, self.text)
        return _FORMAT.pack(MAGIC, *first, *self.shape, *last)

    @classmethod
    def unpack(cls, page: bytes) -> Header | None:
        """Read a copy of a header; None where it is none."""
        magic, sequence, status, dtype, dimensions, flags, *rest = _FORMAT.unpack_from(page)
        if magic != MAGIC:
            return None
        shape = (rest[0], rest[1], rest[2], rest[3])
        return cls(status, sequence, dtype, dimensions, flags, shape, *rest[4:])


def padded(size: int) -> int:
    """Bytes up to a full page."""
    return -(-size // PAGE) * PAGE


class Buffer:
    """One side's view of the shared buffer.

    Args:
        descriptor: the file in memory, which this object closes.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self.memory = mmap.mmap(descriptor, self.size)

    @classmethod
    def create(cls, size: int) -> Buffer:
        """A buffer for so many bytes of images, of the request and the reply together."""
        descriptor = os.memfd_create("images", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, IMAGES + padded(size))
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        return cls(descriptor)

    def close(self) -> None:
        """Give the descriptor back; the memory goes with the last tensor that lies in it."""
        os.close(self.descriptor)

    def put(self, place: int, header: Header, text: bytes = b"") -> None:
        """Write a header, and a text that fits."""
        self.memory[place : place + _FORMAT.size] = header.pack()
        start = place + _FORMAT.size
        self.memory[start : start + len(text)] = text

    def copy(self, place: int) -> bytes:
        """A copy of a header and its text."""
        return self.memory[place : place + PAGE]


def text_of(page: bytes, header: Header) -> str:
    """The text behind a copied header: one line, printable, of at most 300 characters."""
    start = _FORMAT.size
    raw = page[start : start + min(header.text, TEXT_BYTES)].decode(errors="replace")
    line = " ".join("".join(c if c.isprintable() else " " for c in raw).split())
    return line if len(line) <= 300 else line[:297] + "..."
