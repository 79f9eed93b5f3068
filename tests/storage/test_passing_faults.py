"""A cloud store that fails in passing: what is stored in the end is what it would be otherwise."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.requests import Request, through
from storage import patience
from storage.errors import StoreError, StoreFault
from storage.files import exclusive, read_patiently, store_holder, store_root
from storage.objects import ObjectPath
from tasks.outputs import output_findings, write_outputs
from tasks.spec_files import parse_spec
from tasks.workbench import Workbench
from tests import toy
from tests.cloud import TIMED, everything, fresh_url, run_cloud

__all__ = ["run_cloud"]
errors = pytest.importorskip("obstore.exceptions", reason="cloud stores need obstore")
SHARE = 1 / 20
"""Of the requests, that fail."""


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PAUSES", (0.0, 0.0, 0.0))


@contextmanager
def failing(share: float, seed: int = 0) -> Iterator[Counter[str]]:
    """Lose this share of requests, half of them on the way there and half on the way back."""
    chance = random.Random(seed)
    lost: Counter[str] = Counter()

    def ask(kind: str, request: Request) -> Any:
        met = chance.random()
        if met < share / 2:
            lost[f"{kind} lost"] += 1
            raise errors.GenericError("connection refused")
        made = request()
        if met < share:
            lost[f"answer to {kind} lost"] += 1
            raise errors.GenericError("connection reset")
        return made

    with through(ask):
        yield lost


def run(folder: Path, store: str) -> None:
    content = toy.content(detectors=[], purifiers=[{"name": "Median"}])
    with exclusive(store_root(store), wait=False):
        state, made = toy.run(Workbench(parse_spec(content), folder, store))
        assert len(made) == state.total
        write_outputs(state, lambda *_: "page")
        assert not list(output_findings(state.bench.store.run("toy")))


def test_a_run_over_failing_requests_ends_with_the_same_bytes(
    run_cloud: str, tmp_path: Path
) -> None:
    calm, disturbed = fresh_url(run_cloud), fresh_url(run_cloud)
    run(tmp_path, calm)
    with failing(SHARE) as lost:
        run(tmp_path, disturbed)
    for kind in ("GET", "PUT", "DELETE"):
        assert lost[f"{kind} lost"] > 0
        assert lost[f"answer to {kind} lost"] > 0
    expected, found = everything(store_root(calm)), everything(store_root(disturbed))
    assert found.keys() == expected.keys()
    differing = {name for name in found if found[name] != expected[name]}
    assert differing <= {f"toy/{name}" for name in TIMED}
    assert store_holder(store_root(disturbed)) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_lease_over_failing_requests_is_taken_and_given_back(seed: int) -> None:
    root = store_root(fresh_url("memory"))
    with failing(2 * SHARE, seed):
        for _ in range(5):
            with exclusive(root, wait=False):
                pass
    with exclusive(root, wait=False):
        assert store_holder(root) is not None


def test_a_fault_that_stays_is_told_and_a_refusal_at_once() -> None:
    place = ObjectPath(fresh_url("memory")) / "object"
    asked: list[str] = []

    def fail(kind: str, request: Request) -> Any:
        asked.append(kind)
        raise errors.GenericError("unreachable")

    def refuse(kind: str, request: Request) -> Any:
        asked.append(kind)
        raise errors.PermissionDeniedError("no")

    with through(fail), pytest.raises(StoreFault, match="unreachable"):
        read_patiently(place)
    assert asked == ["GET"] * (1 + len(patience.PAUSES))
    asked.clear()
    with through(refuse), pytest.raises(StoreError, match="cannot use") as told:
        place.write_bytes(b"")
    assert not isinstance(told.value, StoreFault)
    assert asked == ["PUT"]


def test_what_took_long_to_fail_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LONG", 0.0)
    asked: list[str] = []

    def fail(kind: str, request: Request) -> Any:
        asked.append(kind)
        raise errors.GenericError("given up after minutes")

    with through(fail), pytest.raises(StoreFault, match="given up"):
        (ObjectPath(fresh_url("memory")) / "object").read_bytes()
    assert asked == ["GET"]


def test_a_list_that_breaks_goes_on_behind_what_was_listed() -> None:
    root = ObjectPath(fresh_url("memory"))
    names = [f"{number:03}" for number in range(170)]
    for name in names:
        (root / "x" / name).write_bytes(b"")
    pages = Counter[str]()

    def breaking(pages_of: Iterator[Any]) -> Iterator[Any]:
        for page in pages_of:
            pages["given"] += 1
            yield page
            if pages["given"] in (1, 3):
                raise errors.GenericError("connection reset")

    def ask(kind: str, request: Request) -> Any:
        return breaking(iter(request())) if kind == "LIST" else request()

    with through(ask):
        assert [path.name for path in (root / "x").rglob("*")] == names
    assert pages["given"] > 3
