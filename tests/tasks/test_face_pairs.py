"""Pairs over draws, what their intervals draw again, and victims from a data set of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from defender.metrics.pairs import Pairs
from defender.metrics.rates import wilson
from defender.metrics.verification import far_at, frr_at
from defender.norms import to_uint8
from flows.face_page import face_verdict, verification_table
from tasks.columns import Columns
from tasks.face_intervals import over_people, rate
from tasks.face_pairs import Drawn, Galleries
from tasks.summary import Summary
from tests import toy
from tests.tasks.test_face_runs import ATTACK, embedded, faces, similar, stored

DRAWS = np.array([[0.9, 0.2, 0.6], [0.4, 0.7, 0.6], [0.8, 0.3, 0.1]], dtype=np.float32)


def drawn(same: bool) -> Drawn:
    """Three pairs in three draws."""
    flags, people = np.full(3, same), np.arange(3)
    return Drawn(Pairs(DRAWS[0], flags, people, people + (0 if same else 10)), DRAWS)


def test_pairs_of_two_people_over_draws_by_hand() -> None:
    given = drawn(same=False)
    assert far_at(given.first, 0.5) == pytest.approx(2 / 3)
    assert far_at(given.together, 0.5) == pytest.approx(5 / 9)
    assert given.worst.similarity.tolist() == pytest.approx([0.9, 0.7, 0.6])
    # two of three draws must accept: the first and the last pair
    assert far_at(given.majority, 0.5) == pytest.approx(2 / 3)
    assert given.majority.similarity.tolist() == pytest.approx([0.8, 0.3, 0.6])
    assert [(end, draws) for end, _, draws in given.kinds()] == [
        ("", 0),
        ("_mean", 3),
        ("_worst", 3),
        ("_majority", 3),
    ]


def test_pairs_of_one_person_over_draws_by_hand() -> None:
    given = drawn(same=True)
    assert frr_at(given.together, 0.5) == pytest.approx(4 / 9)
    assert given.worst.similarity.tolist() == pytest.approx([0.4, 0.2, 0.1])
    assert frr_at(given.worst, 0.5) == 1
    assert frr_at(given.majority, 0.5) == pytest.approx(1 / 3)


def test_half_of_the_draws_are_no_majority() -> None:
    even = Drawn(drawn(same=False).first, DRAWS[[0, 1]])
    assert even.majority.similarity.tolist() == pytest.approx([0.4, 0.2, 0.6])
    one = Drawn(even.first, DRAWS[:1])
    assert [end for end, _, _ in one.kinds()] == [""]
    assert one.together is one.first


def crossed(passes: Any) -> Pairs:
    """Six attackers against six victims, a picture each."""
    attacker, victim = (grid.reshape(-1) for grid in np.meshgrid(np.arange(6), np.arange(6, 12)))
    similarity = np.where(passes(attacker, victim), 0.9, 0.1)
    return Pairs(similarity, np.zeros(36, dtype=bool), attacker, victim)


@pytest.mark.parametrize("passes", [lambda a, v: v < 9, lambda a, v: a < 3], ids=["victim", "own"])
def test_attackers_and_victims_are_drawn_again(passes: Any) -> None:
    """Who passes depends on one side alone; a bootstrap of the other side would find a point."""
    pairs = crossed(passes)
    [(low, high)] = over_people(pairs, lambda some, w: [far_at(some, 0.5, w)], seed=0)
    assert low < 0.25
    assert high > 0.75


def test_a_pair_counts_as_often_as_both_of_its_people_were_drawn() -> None:
    pairs = crossed(lambda a, v: v < 9)
    seen: list[NDArray[np.float64]] = []

    def statistics(some: Pairs, weights: NDArray[np.float64] | None) -> list[float]:
        if weights is not None:
            seen.append(weights)
        return [far_at(some, 0.5, weights)]

    over_people(pairs, statistics, seed=3)
    generator = np.random.default_rng(3)
    for weights in seen[:20]:
        times = np.bincount(generator.integers(0, 12, 12), minlength=12)
        assert weights.tolist() == (times[pairs.first] * times[pairs.second]).tolist()


def test_where_people_drawn_again_find_no_spread_the_interval_is_wilsons() -> None:
    everybody = rate("far", 1.0, (1.0, 1.0), 40)
    assert (everybody.low, everybody.high) == wilson(40, 40)
    assert everybody.more == {"interval": "wilson", "wilson": list(wilson(40, 40))}
    nobody = rate("frr", 0.0, (float("nan"), float("nan")), 7, draws=3)
    assert (nobody.low, nobody.high) == wilson(0, 7)
    assert nobody.more["draws"] == 3
    some = rate("far", 0.5, (0.2, 0.7), 40)
    assert (some.low, some.high) == (0.2, 0.7)
    assert some.more == {"interval": "by-identity", "wilson": list(wilson(20, 40))}
    assert rate("far", float("nan"), (0.2, 0.7), 0).wilson is None


OTHERS = {"kind": "builtin:shapes", "count": 48, "split": "train"}
NOISE = {"name": "gaussiannoise(0.2)", "label": "noise", "draws": 2}


def test_clean_pairs_are_those_of_victims_from_a_data_set_of_their_own(tmp_path: Path) -> None:
    attack = {**ATTACK, "targets": OTHERS, "pairing": "in-order"}
    state, _ = toy.run(
        toy.bench(tmp_path, **faces(attacks=[attack], purifiers=["median(3)", NOISE]))
    )
    columns = Columns(state)
    labels = columns.column("target/ifgsm", "target_label")
    enrolled = embedded(state, "target/ifgsm")
    same = labels[:, None] == labels[None]
    apart = ~np.eye(len(labels), dtype=bool)
    scores = similar(enrolled, enrolled)
    impostors = np.sort(scores[~same])[::-1]
    summary = Summary(state)
    rows = {(r["attack"], r["purifier"], r["metric"]): r for r in summary.rows()}
    limit = impostors[int(0.1 * len(impostors)) - 1]
    assert summary.faces.threshold("none") == pytest.approx(float(limit), abs=1e-5)
    frr = rows["none", "none", "frr"]
    assert frr["n"] == (same & apart).sum()
    assert frr["value"] == pytest.approx((scores[same & apart] < limit - 1e-6).mean(), abs=0.01)
    # behind a defence: the victims' pictures purified, in every draw
    purified = summary.faces.galleries.used[0].probes("median(3)")
    pictures = torch.from_numpy(np.stack(stored(state, "target/ifgsm"))).float() / 255
    made = state.bench.purifiers[0](pictures, seeds=torch.zeros(48, dtype=torch.int64))
    with torch.no_grad():
        wanted = state.bench.encoder(to_uint8(made).float() / 255)
    np.testing.assert_allclose(purified, wanted.numpy()[None], atol=1e-5)
    assert rows["none", "noise", "frr_mean"]["draws"] == 2
    systems = summary.faces.systems()
    assert [one["draws"] for one in systems] == [1, 1, 2]
    assert {one["of"] for one in systems} == {"victims"}
    assert {one["people"] for one in systems} == {len(set(labels))}
    assert {one["images"] for one in systems} == {48}
    assert "pictures of the victims give" in face_verdict(list(rows.values()), systems)[-1]


def test_the_runs_own_images_count_where_an_attacker_is_after_somebody_on_them(
    tmp_path: Path,
) -> None:
    abroad = {**ATTACK, "label": "abroad", "targets": OTHERS}
    state, _ = toy.run(toy.bench(tmp_path, **faces(attacks=[ATTACK, abroad], purifiers=[])))
    columns = Columns(state)
    galleries = Galleries(state.bench, columns, np.ones(48, dtype=bool))
    own, victims = galleries.used
    assert (own.victims, victims.victims) == (False, True)
    # a picture that several attackers are after is enrolled once
    names = columns.table("target/abroad")["target_name"].to_pylist()
    assert len(set(names)) < 48
    assert len(victims.people) == len(set(names))
    # without names that tell, people of one data set are none of the other
    assert not set(own.people) & set(victims.people)


def system(**changes: Any) -> dict[str, Any]:
    return {
        "purifier": "none",
        "draws": 1,
        "threshold": 0.7,
        "fixed": False,
        "frr": 0.1,
        "frr_with_self_pairs": 0.05,
        "tpr_at_far": [
            {
                "far": 0.01,
                "tpr": 1.0,
                "by_identity": [1.0, 1.0],
                "wilson": list(wilson(30, 30)),
                "impostor_pairs": 200,
            }
        ],
        "genuine_pairs": 30,
        "impostor_pairs": 200,
        "people": 3,
        "images": 10,
        **changes,
    }


def row(purifier: str, metric: str, value: float, **changes: Any) -> dict[str, Any]:
    ends = {"ci_low": value - 0.1, "ci_high": value + 0.1, "interval": "by-identity"}
    base = {"attack": "apgd", "threat": "oblivious", "wilson": [0.25, 0.35], "n": 30}
    return {**base, "purifier": purifier, "metric": metric, "value": value, **ends, **changes}


def test_a_random_defence_is_ranked_and_shown_by_the_mean_over_its_draws() -> None:
    systems = [system(), system(purifier="iwmf", draws=10), system(purifier="jpeg")]
    rows = [row("none", "far", 0.9), row("jpeg", "far", 0.3)]
    rows += [row("iwmf", "far", 0.2), row("iwmf", "far_mean", 0.4)]
    assert "Behind jpeg, whose worst attack is lowest, 30.0" in " ".join(
        face_verdict(rows, systems)
    )
    table = verification_table(rows, systems)
    assert table is not None
    headings = [title for _, title in table.headings]
    assert [title for title in headings if "TPR" in title] == [
        "TPR at FAR 0.01 (200 impostor pairs)"
    ]
    line = table.sections[0].lines[1]
    assert line.note == "mean of 10 draws"
    cell = line.cells[-1]
    assert cell is not None
    assert cell.value == "40.0\u00a0%"
    assert cell.n.startswith("Wilson 25.0")
    certain = (
        table.sections[0].lines[0].cells[headings.index("TPR at FAR 0.01 (200 impostor pairs)")]
    )
    assert certain is not None
    assert certain.interval.startswith("Wilson 88.6")


def test_an_interval_that_is_wilsons_says_so() -> None:
    rows = [row("none", "far", 0.9, interval="wilson", ci_low=0.8, ci_high=1.0)]
    table = verification_table(rows, [system()])
    assert table is not None
    cell = table.sections[0].lines[0].cells[-1]
    assert cell is not None
    assert cell.interval.startswith("Wilson 80.0")
    assert cell.n == ""
