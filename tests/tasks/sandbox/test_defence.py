"""What an ordinary file is told, and what one is told that is no defence."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import defender
from tasks.errors import DefenseError
from tasks.sandbox import forkserver, processes
from tasks.sandbox.child import OwnPackage
from tasks.sandbox.contents import Unseen
from tasks.sandbox.defence import SandboxedDefense
from tasks.sandbox.limits import Limits
from tests.tasks.sandbox.hostile import batch, defense_file, gone

HALVES = """
import torch
from pathlib import Path
from network import make

class Holder:
    def __init__(self):
        self.networks = {"second": [torch.nn.Linear(2, 2, bias=False)]}

class Defense:
    def __init__(self):
        self.scale = float(Path("side-car.txt").read_text())
        self.first = make()
        self.again = self.first
        self.holder = Holder()

    def apply_defense(self, images):
        return images * self.scale
"""
NETWORK = "import torch\ndef make():\n    return torch.nn.Conv2d(3, 5, 1)\n"


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """A defence with a module and a side-car file beside it: 20 + 4 parameters."""
    path = defense_file(tmp_path / "own", HALVES)
    (tmp_path / "own" / "network.py").write_text(NETWORK)
    (tmp_path / "own" / "side-car.txt").write_text("0.5")
    return path


def test_an_ordinary_defence_answers(halves: Path) -> None:
    with SandboxedDefense(halves, Limits(parameters=24)) as defense:
        started = defense.start()
        assert started.parameters == 24
        assert started.seconds > 0
        for images in (batch(1), batch(8, 20), batch(2, 12)):
            answer = defense.apply(images)
            assert answer.failure is None
            assert torch.equal(answer.images, images * 0.5)
            assert answer.notes == ()
            assert answer.seconds > 0
    assert not list(halves.parent.glob("__pycache__"))


def test_it_is_started_once_and_ended_with_its_context(halves: Path) -> None:
    with SandboxedDefense(halves, Limits()) as defense:
        assert defense.start() is defense.start()
        name = defense._process.setup.name  # type: ignore[union-attr]
        scratch = Path(defense._process.setup.scratch)  # type: ignore[union-attr]
        assert len(processes.named(name)) == 2
        assert scratch.is_dir()
    assert processes.named(name) == []
    assert not scratch.exists()


def test_nothing_outlives_a_killed_parent(tmp_path: Path) -> None:
    text = """
import os, time
class Defense:
    def apply_defense(self, images):
        for _ in range(3):
            os.fork() or time.sleep(600)
        return images
"""
    path = defense_file(tmp_path / "own", text)
    script = f"""
import os, torch
from pathlib import Path
from tasks.sandbox.contents import Unseen
from tasks.sandbox.defence import SandboxedDefense
from tasks.sandbox.limits import Limits
defense = SandboxedDefense(Path({str(path)!r}), Limits())
assert defense.apply(torch.rand(1, 3, 8, 8)).failure is None
process = defense._process
print(process.setup.name, process.setup.scratch, flush=True)
os.kill(os.getpid(), 9)
"""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    name, scratch = done.stdout.split()
    assert gone(name, 20)
    assert not Path(scratch).exists()


def test_threads_share_an_object(halves: Path) -> None:
    with SandboxedDefense(halves, Limits()) as defense, ThreadPoolExecutor(4) as pool:
        batches = [batch(1 + count % 3, 8 + count) for count in range(12)]
        for images, answer in zip(batches, pool.map(defense.apply, batches), strict=True):
            assert torch.equal(answer.images, images * 0.5)


def test_a_lost_server_is_replaced(halves: Path) -> None:
    with SandboxedDefense(halves, Limits()) as defense:
        defense.start()
        for server in list(forkserver._servers.values()):
            processes.kill(server._process.pid)
            server._process.wait()
        # a running defence needs no server
        assert defense.apply(batch()).failure is None
        defense.restart()
        assert defense.apply(batch()).failure is None


def test_generators_start_where_they_are_told(tmp_path: Path) -> None:
    text = """
import random, numpy, torch
class Defense:
    def apply_defense(self, images):
        draws = (torch.rand(()).item(), numpy.random.rand(), random.random())
        return torch.tensor(draws).view(1, 3, 1, 1).expand(len(images), 3, 12, 12)
"""
    path = defense_file(tmp_path / "own", text)
    with SandboxedDefense(path, Limits()) as defense:

        def draws(seed: int | None) -> tuple[float, ...]:
            answer = defense.apply(batch(), seed=seed)
            assert answer.images is not None
            return tuple(answer.images[0, :, 0, 0].tolist())

        first, second = draws(None), draws(None)
        assert all(a != b for a, b in zip(first, second, strict=True))
        assert draws(5) == draws(5) != draws(1 << 70)
        defense.restart()
        assert (draws(None), draws(None)) == (first, second)


def test_threads_and_accelerators_are_as_told(tmp_path: Path) -> None:
    text = """
import torch
class Defense:
    def apply_defense(self, images):
        facts = [torch.get_num_threads() / 10, float(torch.cuda.is_available())]
        return torch.tensor(facts).view(1, 1, 1, 2).expand(len(images), 3, 1, 2)
"""
    path = defense_file(tmp_path / "own", text)
    for threads in (1, 2):
        with SandboxedDefense(path, Limits(), threads=threads) as defense:
            images = defense.apply(batch()).images
            assert images is not None
            assert images[0, 0, 0].tolist() == pytest.approx([threads / 10, 0])


def test_a_hidden_folder_in_its_own_is_not_seen(tmp_path: Path) -> None:
    text = """
import os
class Defense:
    def apply_defense(self, images):
        seen = []
        for folder in ("models", "models/store", "models/weights"):
            try:
                seen.append(float(bool(os.listdir(folder))))
            except OSError:
                seen.append(0.0)
        return images * 0 + images.new_tensor(seen).view(1, 3, 1, 1)
"""
    path = defense_file(tmp_path / "own", text)
    for name in ("store", "weights"):
        (tmp_path / "own" / "models" / name).mkdir(parents=True)
        (tmp_path / "own" / "models" / name / "file").write_text("x")
    with SandboxedDefense(
        path, Limits(), unseen=Unseen(stores=(tmp_path / "own/models/store",))
    ) as defense:
        answer = defense.apply(batch(1))
        assert answer.images is not None, answer.failure
        if "files" not in defense.start().enforcement.missing():
            assert answer.images[0, 1:, 0, 0].tolist() == [0.0, 1.0]


def test_the_package_is_found_where_it_is_not_installed() -> None:
    found = OwnPackage().find_spec("defender")
    assert found is not None
    assert found.origin == defender.__file__
    assert OwnPackage().find_spec("tasks") is None


@pytest.mark.slow
@pytest.mark.parametrize("namespaces", [True, False], ids=["namespaces", "without"])
def test_a_purifier_of_the_package_is_a_defence(namespaces: bool) -> None:
    path = Path(__file__).resolve().parents[3] / "examples" / "noise_gate.py"
    expected = runpy.run_path(str(path))["Defense"]()
    images = batch(2, 24)
    with SandboxedDefense(path, Limits(), namespaces=namespaces) as defense:
        answer = defense.apply(images)
        assert answer.images is not None, answer.failure
        torch.testing.assert_close(answer.images, expected.apply_defense(images), rtol=0, atol=1e-6)
        network = expected.purifier.steps[0].network
        assert defense.start().parameters == sum(p.numel() for p in network.parameters())


WRONG = {
    "syntax": ("class Defense:\n    def (", r"line 2 is no Python: .+"),
    "no class": ("class Defence: pass", "expected a class Defense in it"),
    "no method": (
        "class Defense: pass",
        r"expected a method apply_defense\(self, images\) of its class Defense",
    ),
    "import": ("import a_module_that_is_not_there", "importing it raised ModuleNotFoundError: .*"),
    "constructor": (
        "class Defense:\n    def __init__(self): 1 / 0\n    def apply_defense(self, i): pass",
        r"Defense\(\) raised ZeroDivisionError: division by zero",
    ),
    "leaves": ("import os; os._exit(7)", "exited with status 7"),
    "hangs": ("while True: pass", "was not ready within 4 s"),
    "grows": (
        "x = b'x' * (2 << 30)",
        r"used (0\.\d+|1\.\d|1|2) GiB .*, more than the 0\.75 GiB allowed",
    ),
    "parameters": (
        "import torch\nclass Defense(torch.nn.Linear):\n"
        "    def __init__(self): super().__init__(100, 100)\n"
        "    def apply_defense(self, images): return images",
        "holds 10,100 parameters, more than the 10,000 allowed",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_is_no_defence_is_named(tmp_path: Path, name: str) -> None:
    text, expected = WRONG[name]
    path = defense_file(tmp_path / "own", text)
    seconds = 4.0 if name == "hangs" else 60.0
    limits = Limits(start_seconds=seconds, memory_bytes=3 << 28, parameters=10_000)
    warm = SandboxedDefense(defense_file(tmp_path / "warm", "x ="), Limits())
    with pytest.raises(DefenseError, match="line 1 is no Python"):
        warm.start()  # from here on torch is loaded, which the limit of time is not about
    with SandboxedDefense(path, limits) as defense, pytest.raises(DefenseError) as error:
        defense.start()
    assert re.fullmatch(f"defence: {re.escape(str(path))}: {expected}", str(error.value))


def test_parameters_made_later_are_counted(tmp_path: Path) -> None:
    text = """
import torch
class Defense:
    def apply_defense(self, images):
        self.net = torch.nn.Linear(3, 4)
        return images
"""
    path = defense_file(tmp_path / "own", text)
    with SandboxedDefense(path, Limits(parameters=15)) as defense:
        assert defense.start().parameters == 0
        assert defense.apply(batch()).failure == "holds 16 parameters, more than the 15 allowed"


def test_a_defence_that_does_not_start_again_is_a_failure(tmp_path: Path) -> None:
    text = "class Defense:\n    def apply_defense(self, images): return None"
    path = defense_file(tmp_path / "own", text)
    with SandboxedDefense(path, Limits()) as defense:
        assert defense.apply(batch()).failure == "answered with a NoneType, expected a torch.Tensor"
        path.write_text("class Defense: pass")
        answer = defense.apply(batch())
        assert answer.images is None
        assert "could not be loaded: expected a method" in str(answer.failure)
        path.write_text("class Defense:\n    def apply_defense(self, images): return images")
        assert defense.apply(batch()).failure is None


def test_a_file_that_is_not_there_or_lies_in_a_hidden_folder_is_refused(halves: Path) -> None:
    with pytest.raises(DefenseError, match=r"expected a Python file, got .*nowhere\.py"):
        SandboxedDefense(halves.with_name("nowhere.py"), Limits()).start()
    with pytest.raises(DefenseError, match="expected a file in a folder of its own"):
        SandboxedDefense(halves, Limits(), unseen=Unseen(stores=(halves.parent,))).start()


@pytest.mark.parametrize(
    "images",
    [torch.rand(3, 4, 4), torch.rand(1, 3, 4, 4).double(), torch.rand(0, 3, 4, 4)],
    ids=["dimensions", "dtype", "empty"],
)
def test_other_batches_are_refused(halves: Path, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="images: expected float32"):
        SandboxedDefense(halves, Limits()).apply(images)


def test_threads_are_checked(halves: Path) -> None:
    with pytest.raises(ValueError, match="threads: expected at least 1, got 0"):
        SandboxedDefense(halves, Limits(), threads=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds_per_image": 0},
        {"start_seconds": float("nan")},
        {"memory_bytes": 0},
        {"parameters": -1},
        {"parameters": 1.5},
        {"processes": True},
        {"file_bytes": 1.0},
        {"pixels": 0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_limits_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected .*, got "):
        Limits(**wrong)  # type: ignore[arg-type]
