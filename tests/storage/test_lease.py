"""The lease on a cloud store when answers are lost: who has it keeps it and gives it back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks.requests import Request, through
from storage.errors import StoreBusy
from storage.lease import lease_holder, leased
from storage.objects import ObjectPath
from tests.cloud import fresh_url

obstore_errors = pytest.importorskip("obstore.exceptions", reason="cloud stores need obstore")
LEASE = 0.6
"""Seconds; it is renewed every tenth of a second."""


def failed() -> Exception:
    """The connection broke before an answer came."""
    return obstore_errors.GenericError("connection reset")  # type: ignore[no-any-return]


def refused() -> Exception:
    """The client tried again by itself, and met what its first attempt had written."""
    return obstore_errors.PreconditionError("no longer what was read")  # type: ignore[no-any-return]


def exists() -> Exception:
    """The same of a client that was to create it."""
    return obstore_errors.AlreadyExistsError("is there")  # type: ignore[no-any-return]


Answer = Callable[[], Exception]
ANSWERS = pytest.mark.parametrize("answer", [failed, refused])


@contextmanager
def answers_lost(answer: Answer, which: Callable[[int], bool]) -> Iterator[list[int]]:
    """Have the store write and an error come back, for the writes with some numbers; which came."""
    written: list[int] = []

    def ask(kind: str, request: Request) -> Any:
        made = request()
        if kind == "PUT":
            written.append(len(written))
            if which(written[-1]):
                raise answer()
        return made

    with through(ask):
        yield written


@pytest.fixture
def place() -> ObjectPath:
    return ObjectPath(fresh_url("memory")) / ".lock"


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("answer", [failed, exists])
def test_who_took_a_new_lease_has_it_without_an_answer(place: ObjectPath, answer: Answer) -> None:
    with answers_lost(answer, lambda number: number == 0), leased(place, wait=False, lease=60):
        assert lease_holder(place) is not None
    assert lease_holder(place) is None


@ANSWERS
def test_who_took_a_free_lease_has_it_without_an_answer(place: ObjectPath, answer: Answer) -> None:
    with leased(place, lease=60):
        pass
    with answers_lost(answer, lambda number: number == 0), leased(place, wait=False, lease=60):
        assert lease_holder(place) is not None
    assert lease_holder(place) is None


@ANSWERS
def test_a_renewal_without_an_answer_keeps_the_lease(
    place: ObjectPath, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.WARNING, "image_defender"),
        answers_lost(answer, lambda number: number in (1, 4)) as written,
        leased(place, lease=LEASE),
    ):
        until(lambda: len(written) > 4)
        tag = place.read_tagged()[1]
        # signs of life go on, so nobody else takes it for dead
        until(lambda: place.read_tagged()[1] != tag)
        with pytest.raises(StoreBusy):
            leased(place, wait=False, lease=LEASE).__enter__()
    assert lease_holder(place) is None
    assert caplog.messages == []


@ANSWERS
def test_a_lease_is_given_back_after_a_renewal_without_an_answer(
    place: ObjectPath, answer: Answer
) -> None:
    stop = [False]
    with answers_lost(answer, lambda number: number > 0 and not stop[0]) as written:
        with leased(place, lease=LEASE):
            until(lambda: len(written) > 1)
            stop[0] = True
        assert lease_holder(place) is None


@ANSWERS
def test_who_gave_a_lease_back_without_an_answer_takes_no_other_ones(
    place: ObjectPath, answer: Answer
) -> None:
    with answers_lost(answer, lambda number: number == 1) as written:
        with leased(place, lease=60):
            pass
        assert len(written) in (2, 3)
    assert lease_holder(place) is None
    with leased(place, wait=False, lease=60):
        assert lease_holder(place) is not None


def test_a_request_to_give_a_lease_back_that_is_lost_is_made_again(place: ObjectPath) -> None:
    ended = [False]

    def ask(kind: str, request: Request) -> Any:
        if kind == "PUT" and ended[0]:
            ended[0] = False
            raise failed()
        return request()

    with through(ask), leased(place, lease=60):
        ended[0] = True
    assert lease_holder(place) is None


def test_another_run_that_took_over_is_believed(
    place: ObjectPath, caplog: pytest.LogCaptureFixture
) -> None:
    other = b'{"state": "held", "run": "another", "host": "h", "pid": "1", "since": "now"}'
    with caplog.at_level(logging.WARNING, "image_defender"), leased(place, lease=LEASE):
        place.write_bytes(other)
        until(lambda: bool(caplog.messages))
        assert caplog.messages == [f"{place}: the lease was taken over by another run"]
    assert place.read_bytes() == other
