"""The search without images: what it proposes, and that kills do not change that."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from storage.errors import DamagedChunk
from tasks.leaderboard import Estimate, Standing
from tasks.sweep_outputs import correlations, front
from tasks.sweep_specs import Candidate, SearchSpec
from tasks.sweep_study import Study, Tried, open_study

OBJECTIVES = ("gain", "quality")
SEARCH = {
    "trials": 30,
    "space": ["a({x})", "b({y}, {z})"],
    "ranges": {"x": {"low": 0, "high": 1.0}, "y": [1, 2, 3], "z": {"low": 1, "high": 9}},
}


CHANGES = ("create_new_trial", "set_trial_param", "set_trial_user_attr", "set_trial_state_values")


class Killed(Exception):
    """Stands for the end of the process."""


def search(**changes: Any) -> SearchSpec:
    return SearchSpec.model_validate({**SEARCH, **changes})


def standing(gain: float, quality: float, clean_gain: float = 0.0) -> Standing:
    """Figures of a purifier under one attack."""
    mean = {"gain": gain, "quality": quality}
    return Standing(
        purifier="candidate",
        knowledge="blind",
        attacks={"attack": mean, "none": {"gain": clean_gain, "quality": quality}},
        groups={},
        mean={name: Estimate(value, math.nan, math.nan) for name, value in mean.items()},
    )


def judged(candidate: Candidate) -> Standing:
    """A made-up trade-off: what takes the gain away costs quality."""
    values = candidate.parameters
    if "x" in values:
        strength = float(values["x"])
        return standing((1 - strength) ** 2, 1 - strength**2, strength)
    return standing(1 / float(values["y"]), 1 - float(values["z"]) / 9, 0.5)


def advance(study: Study, trials: int) -> None:
    while study.left(trials) and (asked := study.ask()) is not None:
        study.tell(asked, judged(asked.candidate))


def texts(study: Study) -> list[str]:
    return [one.candidate.text for one in study.tried]


def undisturbed(folder: Path, given: SearchSpec, trials: int) -> list[str]:
    with open_study(folder / "whole.db", "s", given, OBJECTIVES) as study:
        advance(study, trials)
        return texts(study)


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 13), ("nsga2", 23), ("random", 4)])
def test_the_same_search_proposes_the_same_however_often_it_is_opened(
    tmp_path: Path, sampler: str, trials: int
) -> None:
    """TPE draws at random up to the tenth trial, NSGA-II up to the twentieth."""
    given = search(sampler=sampler, constraints={"clean_gain": 0.6})
    expected = undisturbed(tmp_path, given, trials)
    assert len(set(expected)) == trials
    for part in (2, trials - 1, trials):
        with open_study(tmp_path / "parts.db", "s", given, OBJECTIVES) as study:
            advance(study, part)
            found = texts(study)
    assert found == expected


def test_another_seed_proposes_something_else(tmp_path: Path) -> None:
    found = [undisturbed(tmp_path / str(seed), search(seed=seed), 2) for seed in (0, 1)]
    assert found[0] != found[1]


def kill(patched: pytest.MonkeyPatch, kill_at: int) -> None:
    """Let a process end before the n-th change of a study."""
    from optuna.storages import _cached_storage, _rdb

    numbers = itertools.count(1)
    for owner in (_rdb.storage.RDBStorage, _cached_storage._CachedStorage):
        for name in CHANGES:
            original = getattr(owner, name)

            def counted(*args: Any, _original: Any = original, **kwargs: Any) -> Any:
                if next(numbers) == kill_at:
                    raise Killed
                return _original(*args, **kwargs)

            patched.setattr(owner, name, counted)


def kill_and_go_on(folder: Path, given: SearchSpec, moments: Iterable[int]) -> None:
    """Kill a search of five trials once, go on, and expect what an undisturbed one proposes."""
    expected = undisturbed(folder, given, 5)
    for kill_at in moments:
        path = folder / f"{kill_at}.db"
        with pytest.MonkeyPatch.context() as patched:
            kill(patched, kill_at)
            with (
                contextlib.suppress(Killed),
                open_study(path, "s", given, OBJECTIVES) as study,
            ):
                advance(study, 5)
        with open_study(path, "s", given, OBJECTIVES) as study:
            assert texts(study) == expected[: len(study.tried)]
            advance(study, 5)
            assert texts(study) == expected, kill_at


def test_a_kill_while_a_trial_is_asked_or_told_changes_no_trial(tmp_path: Path) -> None:
    kill_and_go_on(tmp_path, search(), (2, 6, 9, 15))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_kill_between_any_two_changes_of_the_study_changes_no_trial(
    tmp_path: Path, sampler: str
) -> None:
    kill_and_go_on(tmp_path, search(sampler=sampler), range(1, 55))


def test_what_was_running_is_tried_again_with_the_same_parameters(tmp_path: Path) -> None:
    given = search()
    for _attempt in range(3):
        with open_study(tmp_path / "s.db", "s", given, OBJECTIVES) as study:
            asked = study.ask()
            assert asked is not None
            first = asked.others is None
            if first:
                asked.note_others(["stage/key"])
    assert not first
    assert asked.others == ["stage/key"]
    changed = search(seed=9)
    with open_study(tmp_path / "s.db", "s", changed, OBJECTIVES) as study:
        again = study.ask()
        assert again is not None
        assert again.candidate == asked.candidate


def test_studies_of_different_names_share_a_file_and_nothing_else(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with open_study(tmp_path / "s.db", name, search(), OBJECTIVES) as study:
            assert study.tried == []
            advance(study, 2)
    with open_study(tmp_path / "s.db", "one", search(), OBJECTIVES) as study:
        assert len(study.tried) == 2


def test_a_small_space_is_searched_to_its_end_and_nothing_is_tried_twice(tmp_path: Path) -> None:
    given = search(space=["a({y})", "c"], ranges={"y": [1, 2, 3]})
    with open_study(tmp_path / "s.db", "s", given, OBJECTIVES) as study:
        while study.left(30) and (asked := study.ask()) is not None:
            study.tell(asked, standing(1.0, 0.0))
        assert sorted(texts(study)) == ["a(1)", "a(2)", "a(3)", "c"]
        assert study.left(30) == 0


def test_a_trial_without_a_value_is_finished_and_not_tried_again(tmp_path: Path) -> None:
    for expected in (1, 2):
        with open_study(tmp_path / "s.db", "s", search(), OBJECTIVES) as study:
            asked = study.ask()
            assert asked is not None
            study.tell(asked, standing(math.nan, 1.0))
            assert len(set(texts(study))) == expected
            assert front(study.tried, OBJECTIVES, {}) == []


@pytest.mark.slow
def test_tpe_finds_more_of_the_front_than_chance(tmp_path: Path) -> None:
    """Of b(y, z) only z = 1 is of use: TPE should go there more often."""
    shares = {}
    for sampler in ("tpe", "random"):
        given = search(
            sampler=sampler,
            space=["b({y}, {z})"],
            ranges={
                "y": {"low": 1.0, "high": 3.0},
                "z": {"low": 1.0, "high": 9.0},
            },
        )
        with open_study(tmp_path / f"{sampler}.db", "s", given, OBJECTIVES) as study:
            advance(study, 40)
            late = [float(one.candidate.parameters["z"]) for one in study.tried[20:]]
            shares[sampler] = sum(z < 3 for z in late) / len(late)
    assert shares["tpe"] > shares["random"] + 0.2


def test_a_broken_study_is_named(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(b"no database, but long enough to be taken for one" * 50)
    with (
        pytest.raises(DamagedChunk, match="remove the file to begin anew"),
        open_study(tmp_path / "s.db", "s", search(), OBJECTIVES),
    ):
        pass


def tried(gain: float, quality: float, clean_gain: float = 0.0, **parameters: float) -> Tried:
    return Tried(Candidate("a({x})", parameters), standing(gain, quality, clean_gain))


def test_the_front_is_what_nothing_else_betters() -> None:
    trials = [
        tried(0.1, 0.5),
        tried(0.2, 0.9),
        tried(0.2, 0.8),
        tried(0.05, 0.95, clean_gain=0.9),
        tried(0.1, 0.5),
        tried(0.3, 0.9),
    ]
    assert front(trials, OBJECTIVES, {"clean_gain": 0.5}) == [0, 4, 1]
    assert front(trials, OBJECTIVES, {}) == [3]
    assert front(trials, ("quality",), {"clean_gain": 0.5}) == [1, 5]
    assert front(trials, OBJECTIVES, {"clean_gain": -1}) == []
    assert front(trials, OBJECTIVES, {"quality": 0.6, "clean_gain": 0.5}) == [1]


def test_correlations_are_of_ranks_within_a_template() -> None:
    trials = [tried(1 / x, x**3, x=x) for x in (1.0, 2.0, 3.0, 5.0, 8.0)]
    assert correlations(trials, OBJECTIVES) == {"a({x})": {"x": {"gain": -1.0, "quality": 1.0}}}
    assert correlations(trials[:4], OBJECTIVES) == {}
