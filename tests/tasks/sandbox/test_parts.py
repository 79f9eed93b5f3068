"""Headers, answers, filters, views and meters by themselves."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.sandbox import seccomp, view
from tasks.sandbox.answers import Unusable, images_of, reply_to
from tasks.sandbox.channel import (
    FLOAT32,
    IMAGES,
    PAGE,
    REPLY,
    Buffer,
    Header,
    Status,
    text_of,
)
from tasks.sandbox.enforce import Enforcement
from tasks.sandbox.limits import Limits
from tasks.sandbox.meter import Meter, peak_memory
from tasks.sandbox.process import gibibytes

REQUEST = torch.zeros(2, 3, 4, 5)


@pytest.fixture
def buffer() -> Buffer:
    made = Buffer.create(PAGE + 4 * 2 * 3 * Limits().pixels)
    made.close()
    return made


def test_a_header_comes_back_as_it_was() -> None:
    header = Header(5, 1 << 60, 1, 4, 3, (1, 2, 3, 1 << 40), 7, 8, 9, 10)
    assert Header.unpack(header.pack()) == header
    assert Header.unpack(b"\0" * PAGE) is None
    assert len(header.pack()) == 8 + 8 + 4 * 4 + 4 * 8 + 3 * 8 + 4 + 4


@given(st.binary(min_size=96, max_size=96), st.booleans())
def test_no_bytes_make_the_parent_fail(page: bytes, named: bool) -> None:
    made = Buffer.create(2 * PAGE)
    made.close()
    made.memory[REPLY : REPLY + 96] = (b"IMGDEF01" + page[8:]) if named else page
    with pytest.raises(Unusable):
        images_of(made, reply_to(made, 3, Status.ANSWER), REQUEST, Limits())


@given(
    st.lists(st.integers(0, (1 << 64) - 1), min_size=5, max_size=5),
    st.sampled_from([1, 2, 9, 1 << 31]),
    st.integers(0, 5),
)
def test_no_sizes_lead_out_of_the_buffer(sizes: list[int], dtype: int, dimensions: int) -> None:
    made = Buffer.create(2 * PAGE)
    made.close()
    shape = (2, 3, sizes[2], sizes[3])
    header = Header(Status.ANSWER, 3, dtype, dimensions, 0, shape, sizes[4])
    made.put(REPLY, header)
    with pytest.raises(Unusable):
        images_of(made, reply_to(made, 3, Status.ANSWER), REQUEST, Limits())


def answer(
    made: Buffer, values: torch.Tensor, shape: tuple[int, int, int, int] | None = None
) -> torch.Tensor:
    """What the parent makes of these images in the buffer, which are said to be of a shape."""
    start = IMAGES + PAGE
    data = values.contiguous().numpy().tobytes()
    made.memory[start : start + len(data)] = data
    n, c, height, width = shape or values.shape
    header = Header(
        Status.ANSWER, 3, FLOAT32, dimensions=4, shape=(n, c, height, width), length=len(data)
    )
    return images_of(made, header, REQUEST, Limits())


def test_an_answer_is_a_copy_in_range(buffer: Buffer) -> None:
    values = torch.rand(2, 3, 7, 9)
    images = answer(buffer, values)
    buffer.memory[IMAGES + PAGE : IMAGES + PAGE + 64] = b"\xff" * 64
    assert torch.equal(images, values)
    outside = torch.tensor([-9e-4, 1 + 9e-4]).repeat(3).view(1, 3, 1, 2).expand(2, 3, 1, 2)
    assert answer(buffer, outside)[0, 0, 0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("value", [-2e-3, 1.002, float("nan"), float("inf"), -float("inf")])
def test_a_single_wrong_value_is_enough(buffer: Buffer, value: float) -> None:
    values = torch.rand(2, 3, 7, 9)
    values[1, 2, 6, 8] = value
    with pytest.raises(Unusable, match="answered with"):
        answer(buffer, values)


def test_the_largest_answer_is_a_limit_or_four_times_the_input(buffer: Buffer) -> None:
    assert Limits().pixels_out(299, 299) == 1 << 20
    assert Limits(pixels=100).pixels_out(299, 299) == 4 * 299 * 299
    assert answer(buffer, torch.zeros(2, 3, 1024, 1024)).shape == (2, 3, 1024, 1024)
    with pytest.raises(Unusable, match="more than the 1,048,576 pixels allowed"):
        answer(buffer, torch.zeros(2, 3, 1, 1), shape=(2, 3, 1024, 1025))


def test_texts_are_short_and_printable() -> None:
    text = ("\x1b[2J\n\u202e" + "x" * 5000).encode()
    made = Buffer.create(0)
    made.close()
    made.put(REPLY, Header(6, 1, text=1 << 31), text[:3000])
    page = made.copy(REPLY)
    header = Header.unpack(page)
    assert header is not None
    shown = text_of(page, header)
    assert shown.startswith("[2J x")
    assert len(shown) == 300
    assert shown.isprintable()


def test_a_buffer_is_sealed() -> None:
    made = Buffer.create(PAGE)
    for size in (0, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(made.descriptor, size)
    made.close()


def verdict(program: bytes, machine: int, number: int, first: int = 0) -> int:
    """What the kernel would decide: an interpreter of the few instructions that are used."""
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    data = {0: number, 4: machine, 16: first}
    loaded, at = 0, 0
    while True:
        code, if_true, if_false, value = steps[at]
        if code == 0x06:
            return int(value)
        if code == 0x20:
            loaded = data[value]
        else:
            holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}
            at += if_true if holds[code] else if_false
        at += 1


X86, ARM, ALLOW, EPERM, ENOSYS = 0xC000003E, 0xC00000B7, 0x7FFF0000, 0x50001, 0x50026


def test_the_filter_decides_as_meant() -> None:
    own = seccomp.program("x86_64", own_view=True, pid=77)
    shared = seccomp.program("x86_64", own_view=False, pid=77)
    for program in (own, shared):
        assert len(program) // 8 < 256
        assert verdict(program, X86, 41) == EPERM  # socket
        assert verdict(program, X86, 53) == ALLOW  # socketpair
        assert verdict(program, X86, 0x40000000 + 41) == EPERM
        assert verdict(program, ARM, 53) == 0x80000000
        assert verdict(program, X86, 435) == ENOSYS
        assert verdict(program, X86, 56, 0x01200011) == ALLOW  # fork
        assert verdict(program, X86, 56, 0x3D0F00) == ALLOW  # a thread
        assert verdict(program, X86, 56, 0x10000011) == EPERM  # with a user namespace
        assert verdict(program, X86, 0) == ALLOW  # read
    assert verdict(own, X86, 62, 1) == ALLOW
    assert [verdict(shared, X86, 62, pid) for pid in (77, 0, 1)] == [ALLOW, ALLOW, EPERM]
    assert verdict(shared, X86, 62, 0xFFFFFFFF) == EPERM
    assert [verdict(shared, X86, 302, pid) for pid in (77, 0, 1)] == [ALLOW, ALLOW, EPERM]
    assert [verdict(own, X86, 90), verdict(shared, X86, 90)] == [ALLOW, EPERM]
    assert verdict(seccomp.program("aarch64", own_view=True, pid=77), ARM, 198) == EPERM
    with pytest.raises(OSError, match="riscv64 are not known"):
        seccomp.program("riscv64", own_view=True, pid=77)


def test_the_view_is_the_folder_python_and_the_system(tmp_path: Path) -> None:
    folder, other = tmp_path / "own", tmp_path / "other"
    for path in (folder / "a" / "b", folder / "c", other):
        path.mkdir(parents=True)
    (folder / "link").symlink_to(other)

    def names(paths: Sequence[Path]) -> list[str]:
        below = [path for path in paths if tmp_path in path.parents]
        return [str(path.relative_to(tmp_path)) for path in below]

    def below(*hidden: Path) -> tuple[list[str], ...]:
        """What is shown, covered, and by Landlock read and listed."""
        found = view.places(folder, [], hidden)
        assert {"/usr", str(Path(sys.prefix).resolve())} & {place.path for place in found}
        shown = [Path(place.path) for place in found]
        lists = (shown, view.covered(found, hidden), *view.readable_by_landlock(found, hidden))
        return tuple(names(one) for one in lists)

    assert below() == (["own"], [], ["own"], [])
    assert below(tmp_path) == below(other) == below()
    assert below(folder) == below()
    assert below(folder / "a" / "b") == (["own"], ["own/a/b"], ["own/c"], ["own"])
    assert below(folder / "c") == (["own"], ["own/c"], ["own/a"], ["own"])


def test_a_folder_in_something_hidden_in_a_library_is_seen(tmp_path: Path) -> None:
    library, hidden = tmp_path / "library", tmp_path / "library" / "photos"
    folder = hidden / "own"
    folder.mkdir(parents=True)
    found = view.places(folder, [library], [hidden])
    shown = [place.path for place in found if place.path.startswith(str(tmp_path))]
    assert shown == [str(library), str(folder)]
    assert view.covered(found, [hidden]) == [hidden]
    assert view.places(folder, [library], []) == [p for p in found if p.path != str(folder)]


def test_a_linked_python_is_seen_under_both_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "own").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "alias"))
    found = {p.path: p.real for p in view.places(tmp_path / "own", [], [])}
    real = str(tmp_path / "real")
    assert found[real] == found[str(tmp_path / "alias")] == real


def test_shared_memory_is_counted_once() -> None:
    size = 64 << 20
    script = f"""
import os, time
hoard = bytearray({size})
for _ in range(3):
    os.fork() or time.sleep(60)
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            deadline = time.monotonic() + 20
            close, loose = Meter(process.pid, size // 2), Meter(process.pid, 1 << 40)
            while (used := loose.measure()).threads < 3:
                assert time.monotonic() < deadline
            assert used.memory >= 3 * size
            for _ in range(2):  # measured, and then known from what has not grown
                assert 3 * size / 4 <= close.measure().memory < 1.5 * size
            assert size <= peak_memory(process.pid) < 2 * size
        finally:
            os.killpg(process.pid, 9)


def test_what_is_not_enforced_is_told_apart() -> None:
    record = Enforcement("seccomp", "not enforced: no Landlock", "a", "b", "c", "d")
    assert record.missing() == {"files": "no Landlock"}
    assert Enforcement.from_json(record.to_json()) == record


def test_sizes_are_for_people() -> None:
    assert [gibibytes(n << 28) for n in (1, 4, 6, 18, 80)] == [
        *("0.25 GiB", "1 GiB", "1.5 GiB", "4.5 GiB", "20 GiB"),
    ]
