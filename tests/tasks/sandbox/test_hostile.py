"""Defences that loop, grow, fork, write, lie and crash: a failure of that call and nothing else."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tasks.sandbox import processes
from tasks.sandbox.defence import SandboxedDefense
from tasks.sandbox.limits import Limits
from tests.tasks.sandbox.hostile import SMALL, Hostile, batch, defense_file, gone, hostile


@pytest.fixture(scope="module", params=["namespaces", "without"])
def guest(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hostile]:
    """One process for many tests, with namespaces where the system has them, and without."""
    folder = tmp_path_factory.mktemp("hostile") / "own"
    with hostile(folder, namespaces=request.param == "namespaces") as made:
        yield made


@pytest.fixture(scope="module")
def brute(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    """One object for the tests that end its process."""
    with hostile(tmp_path_factory.mktemp("brute") / "own") as made:
        yield made


def enforced(guest: Hostile, what: str) -> str:
    """How something is enforced; the test is skipped where nothing does."""
    enforcement = guest.defense.start().enforcement
    if what in enforcement.missing():
        pytest.skip(f"{what} not enforced: {enforcement.missing()[what]}")
    return str(getattr(enforcement, what))


# what keeps running


def test_the_side_car_file_of_its_own_folder_is_read(guest: Hostile) -> None:
    body = "return images * float((HERE / 'side-car.txt').read_text())"
    answer = guest.answer(body)
    assert answer.failure is None
    assert torch.equal(answer.images, batch() * 0.25)
    assert answer.peak_memory > 50 << 20


def test_nothing_is_written_outside(guest: Hostile, tmp_path: Path) -> None:
    enforced(guest, "files")
    home = Path.home() / f"image-defender-test-{os.getpid()}"
    shared = Path(f"/tmp/image-defender-test-{os.getpid()}")
    places = [home, tmp_path / "x", guest.store / "x", guest.folder / "x", Path.cwd() / "written-x"]
    secret = guest.store / "clean.bin"
    body = f"""
paths = {[str(p) for p in [*places, shared]]!r}
return tried(images, [lambda p=p: Path(p).write_text("x") for p in paths] + [
    lambda: os.unlink({str(secret)!r}),
    lambda: os.truncate({str(secret)!r}, 0),
    lambda: os.chmod({str(guest.folder)!r}, 0o700),
    lambda: os.rename(HERE / "side-car.txt", HERE / "other.txt"),
])"""
    done = guest.succeeded(body, len(places) + 5)
    assert not any(path.exists() for path in (*places, shared))
    assert secret.read_text() == "secret"
    assert (guest.folder / "side-car.txt").exists()
    # a private /tmp may have taken one of the others
    assert not any(done[len(places) + 1 :])


def test_nothing_outside_is_read(guest: Hostile, tmp_path: Path) -> None:
    enforced(guest, "files")
    (tmp_path / "secret").write_text("x")
    readable = [str(guest.store / "clean.bin"), str(tmp_path / "secret"), "/etc/shadow"]
    readable += [f"/proc/{os.getpid()}/environ", f"/proc/{os.getpid()}/root/etc/hostname"]
    folders = [str(guest.store), str(tmp_path)]
    body = f"""
return tried(images, [lambda p=p: Path(p).read_bytes() for p in {readable!r}]
    + [lambda p=p: bool(os.listdir(p)) for p in {folders!r}]
    + [lambda: bool((HERE / "side-car.txt").read_bytes())])"""
    done = guest.succeeded(body, len(readable) + len(folders) + 1)
    assert done == [False] * (len(done) - 1) + [True]


def test_the_home_shows_nothing_but_the_way_to_python(guest: Hostile) -> None:
    enforced(guest, "files")
    entries = [p for p in Path.home().iterdir() if p.is_file()][:20]
    if not entries:
        pytest.skip("no files in the home")
    names = [str(path) for path in entries]
    body = f"return tried(images, [lambda p=p: Path(p).read_bytes() for p in {names!r}])"
    assert not any(guest.succeeded(body, len(names)))


def test_the_network_is_out_of_reach(guest: Hostile, tmp_path: Path) -> None:
    enforced(guest, "network")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.setblocking(False)
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        unix.setblocking(False)
        body = f"""
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        return s.sendto(b"x", ("127.0.0.1", 53))
def unix():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect({str(tmp_path / "s")!r})
def tcp():
    socket.create_connection(("127.0.0.1", {tcp.getsockname()[1]}), 1).close()
return tried(images, [tcp, udp, unix])"""
        assert guest.succeeded(body, 3) == [False, False, False]
        for listener in (tcp, unix):
            with pytest.raises(BlockingIOError):
                listener.accept()


def test_a_signal_to_its_parents_reaches_nobody(guest: Hostile) -> None:
    enforced(guest, "processes")
    guard = guest.defense._process.guard  # type: ignore[union-attr]
    body = f"""
pids = [p for p in ({os.getpid()}, {guard}, os.getppid()) if p > 1]
return tried(images, [lambda p=p: os.kill(p, 9) for p in pids])"""
    assert guest.succeeded(body, 3) == [False, False, False]
    assert guest.defense._process.guard in processes.running()  # type: ignore[union-attr]


def test_privileges_are_gone(guest: Hostile) -> None:
    body = """
libc = ctypes.CDLL(None, use_errno=True)
def mounts():
    if libc.mount(b"tmpfs", b"/usr", b"tmpfs", 0, None): raise OSError
def leaves():
    if libc.unshare(0x10000000): raise OSError
def shares():
    if libc.shmget(0, 1 << 20, 0o1600) < 0: raise OSError
return tried(images, [mounts, leaves, shares, lambda: os.setuid(1), lambda: os.memfd_create("x")])
"""
    guest.defense.start()
    assert guest.succeeded(body, 5) == [False] * 5


def test_files_are_limited_in_size(guest: Hostile) -> None:
    body = """
import tempfile
def write(size):
    with tempfile.TemporaryFile() as stream:
        stream.write(b"x" * size)
        stream.flush()
return tried(images, [lambda: write(1 << 19), lambda: write(1 << 21)])"""
    assert guest.succeeded(body, 2) == [True, False]


def test_forks_that_leave_the_session_are_ended(guest: Hostile) -> None:
    body = """
for _ in range(50):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
return images"""
    answer = guest.answer(body)
    assert answer.failure is None
    mark = guest.mark()
    deadline = time.monotonic() + 20
    while len(processes.named(mark)) < 52:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    guest.defense.close()
    assert gone(mark)


def test_output_of_megabytes_does_not_block(guest: Hostile) -> None:
    body = """
for stream in (1, 2):
    for _ in range(64):
        os.write(stream, b"x" * (1 << 16))
print("x" * (1 << 22), flush=True)
return images"""
    assert guest.answer(body).failure is None


def test_a_changed_batch_is_harmless_and_noted(guest: Hostile) -> None:
    images = batch()
    answer = guest.answer("images.mul_(0.5)\nreturn images", images)
    assert torch.equal(images, batch())
    assert torch.equal(answer.images, images * 0.5)
    assert "changes the batch" in " ".join(answer.notes)
    assert guest.answer("return images * 0.5", images).notes == ()


def test_any_size_is_taken_and_small_overshoots_are_clipped(guest: Hostile) -> None:
    body = "return torch.nn.functional.interpolate(images, size=(31, 7)) * 2e-3 + 0.999"
    answer = guest.answer(body)
    assert answer.failure is None
    assert answer.images.shape == (2, 3, 31, 7)
    assert float(answer.images.max()) == 1.0
    assert float(answer.images.min()) >= 0.999


# what ends the process, and only that

WRONG = {
    "nan": ("images[0, 0, 0, 0] = float('nan'); return images", "answered with NaN"),
    "infinite": ("return images / 0", "answered with infinite values"),
    "half": ("return images.half()", "answered with float16, expected float32"),
    "absurd size": (
        "return torch.zeros(1).expand(2, 3, 20000, 20000)",
        "answered with images of 20000 x 20000 pixels, more than the 1,048,576 pixels allowed",
    ),
    "range": ("return images + 1", r"answered with values from 1[.0-9]+ to 2, expected 0 to 1"),
    "images": ("return torch.zeros(3, 3, 12, 12)", "answered with 3 images for 2"),
    "channels": ("return images[:, :1]", "answered with 1 channels, expected 3"),
    "dimensions": ("return images[0]", r"answered with 3 dimensions, expected 4 \(n, c, h, w\)"),
    "empty": ("return images[:, :, :0]", "answered with images of 0 x 12 pixels"),
    "type": ("return images.numpy()", "answered with a ndarray, expected a torch.Tensor"),
    "device": (
        "return images.to('meta')",
        "answered with a tensor on meta, expected one on cpu",
    ),
    "layout": ("return images.to_sparse()", "answered with a tensor of layout torch.sparse_coo.*"),
    "raises": (
        "raise ValueError('no \\x1b[31m' + 'x\\n' * 900)",
        r"raised ValueError: no \[31mx x.*",
    ),
    "leaves": ("sys.exit('enough')", "raised SystemExit: enough"),
    "exit": ("os._exit(3)", "exited with status 3"),
    "fault": ("ctypes.string_at(0)", r"was ended by signal 11 \(Segmentation fault\)"),
    "channel": ("os.closerange(3, 256); return images", "exited with status 1"),
    "cuda": ("return images.cuda()", "raised (AssertionError|RuntimeError): .*"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_a_failure_of_its_call(brute: Hostile, name: str) -> None:
    body, expected = WRONG[name]
    failure = brute.failure(body)
    assert re.fullmatch(expected, failure), failure
    assert len(failure) <= 320


def test_a_loop_is_ended_and_the_next_batch_is_served(tmp_path: Path) -> None:
    with hostile(tmp_path / "own", Limits(seconds_per_image=0.5)) as made:
        failure = made.failure("while True: pass")
        assert failure == "no answer within 1 s (0.5 s an image, 2 images)"
        assert made.failure("time.sleep(60)") == failure
        assert made.answer("return images").failure is None


def test_memory_is_limited_and_counted_over_all_processes(brute: Hostile) -> None:
    body = "hoard = [torch.ones(1 << 24) for _ in range(320)]\nreturn images"
    pattern = r"used (1|1\.\d|2) GiB of memory, more than the 1 GiB allowed"
    assert re.fullmatch(pattern, brute.failure(body))
    several = """
for _ in range(4):
    if os.fork() == 0:
        hoard = bytearray(b"x" * (1 << 20)) * 300
        time.sleep(600)
time.sleep(600)"""
    assert re.fullmatch(pattern, brute.failure(several))


def test_a_bomb_of_forks_is_ended(tmp_path: Path) -> None:
    limits = Limits(seconds_per_image=10, processes=40)
    with hostile(tmp_path / "own", limits) as made:
        body = "for _ in range(200):\n    os.fork() or time.sleep(600)\ntime.sleep(60)"
        failure = made.failure(body)
    # root is caught by the watchdog, others hit the limit of the kernel first
    wanted = r"ran \d+ processes and threads, more than the 40 allowed|raised BlockingIOError.*"
    assert re.fullmatch(wanted, failure), failure


GARBAGE = """
maps = [line for line in open("/proc/self/maps") if "memfd:images" in line]
for line in maps:
    low, high = (int(part, 16) for part in line.split()[0].split("-"))
    ctypes.memset(low, {value}, min(high - low, 8192))
wake = [int(n) for n in os.listdir("/proc/self/fd")
        if os.path.islink("/proc/self/fd/" + n)
        and os.readlink("/proc/self/fd/" + n).startswith("socket:")]
os.write(wake[0], b"xx")
time.sleep(60)
"""


@pytest.mark.parametrize("value", [0, 0xFF])
def test_garbage_in_the_header_is_a_failure(brute: Hostile, value: int) -> None:
    enforcement = brute.defense.start().enforcement
    if enforcement.files != "namespace":
        pytest.skip("finds the buffer by /proc, which Landlock forbids")
    assert brute.failure(GARBAGE.format(value=value)) == "wrote over the header of its answer"


def test_the_buffer_cannot_be_cut(brute: Hostile) -> None:
    body = """
names = ["/proc/self/map_files/" + n for n in os.listdir("/proc/self/map_files")]
names += ["/proc/self/fd/" + n for n in os.listdir("/proc/self/fd")]
found = [n for n in names if "memfd:images" in (os.readlink(n) if os.path.islink(n) else "")]
return tried(images, [lambda n=n: os.truncate(n, 0) for n in found] + [lambda: bool(found)])"""
    if brute.defense.start().enforcement.files != "namespace":
        pytest.skip("finds the buffer by /proc, which Landlock forbids")
    answer = brute.answer(body)
    assert answer.failure is None
    assert answer.images.sum() <= 1


def test_a_fork_on_import_does_not_answer_twice(tmp_path: Path) -> None:
    text = (
        "import os\nos.fork()\nclass Defense:\n    def apply_defense(self, images):\n"
        "        return images * 0.5\n"
    )
    with SandboxedDefense(defense_file(tmp_path / "own", text), SMALL) as defense:
        for count in (1, 2, 3):
            answer = defense.apply(batch(count))
            assert answer.failure is None
            assert torch.equal(answer.images, batch(count) * 0.5)
        mark = defense._process.setup.name  # type: ignore[union-attr]
    assert gone(mark)
