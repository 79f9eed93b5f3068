"""Randomised defences are drawn more than once: mean, worst and majority."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from defender.noise import derive_seeds
from defender.norms import to_uint8
from storage.images import read_images
from tasks.chunk import Chunk
from tasks.columns import Columns
from tasks.redraw_figures import every_draw, every_vector, plurality
from tasks.summary import Summary
from tasks.survey import Survey
from tests import toy
from tests.tasks.test_face_runs import faces
from tests.tasks.test_quality_runs import quality

NOISE = {"name": "gaussiannoise(0.2)", "label": "noise", "draws": 5}


def finished(folder: Path, **changes: Any) -> Survey:
    changes = {"purifiers": [NOISE, "median(3)"], "detectors": [], **changes}
    state, _ = toy.run(toy.bench(folder, **changes))
    return state


def figures(state: Survey, attack: str) -> dict[str, dict[str, Any]]:
    rows = Summary(state).rows()
    return {r["metric"]: r for r in rows if (r["attack"], r["purifier"]) == (attack, "noise")}


@pytest.fixture(scope="module")
def classified(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return finished(tmp_path_factory.mktemp("redraws"), model={"name": "shapes-cnn"})


@pytest.fixture(scope="module")
def drawn_faces(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return finished(tmp_path_factory.mktemp("faces"), **faces(purifiers=[NOISE]))


ATTACK = "IFGSM(epsilon=8/255, step_size=2/255, steps=2)"


@pytest.mark.parametrize("attack", ["none", ATTACK])
def test_a_classifier_is_asked_behind_every_draw(classified: Survey, attack: str) -> None:
    columns = Columns(classified)
    labels = columns.column("ingest", "label")
    node = classified.plan.nodes[f"score/{attack}/noise"]
    drawn = every_draw(columns, node, "prediction")
    assert drawn.shape == (5, 48)
    assert len({row.tobytes() for row in drawn}) == 5
    right = drawn == labels
    found = figures(classified, attack)
    assert found["accuracy_mean"]["value"] == pytest.approx(right.mean())
    assert found["accuracy_worst"]["value"] == right.all(axis=0).mean()
    assert found["accuracy_majority"]["value"] == (plurality(drawn) == labels).mean()
    assert found["accuracy"]["value"] == right[0].mean()
    assert found["accuracy_worst"]["draws"] == 5
    assert found["accuracy"]["draws"] == 1
    assert found["accuracy_worst"]["value"] < found["accuracy_mean"]["value"]


def test_a_draw_is_what_the_purifier_makes_with_seeds_of_its_own(classified: Survey) -> None:
    bench = classified.bench
    node = classified.plan.nodes["redraw/none/noise"]
    images = torch.from_numpy(
        np.stack(read_images(bench.store.images(classified.done[("ingest", 0)].ref)))
    )
    ids = Columns(classified).table("ingest")["id"].to_pylist()[: len(images)]
    work = classified.work(node, 0)
    assert work is not None
    seeds = Chunk(bench, node, 0, work.inputs, work.source).seeds_of(ids)
    made = bench.purifiers[0](images[:8].float() / 255, seeds=derive_seeds(seeds[:8], "draw 3"))
    with torch.no_grad():
        wanted = bench.model(to_uint8(made).float() / 255).argmax(1)
    drawn = Columns(classified).column("redraw/none/noise", "prediction_3")[:8]
    assert drawn.tolist() == wanted.tolist()


def test_one_draw_asks_no_more(classified: Survey) -> None:
    assert "redraw/none/median(3)" not in classified.plan.nodes
    rows = Summary(classified).rows()
    assert not any("_worst" in r["metric"] for r in rows if r["purifier"] == "median(3)")


def test_faces_pass_in_the_worst_draw_more_often(drawn_faces: Survey) -> None:
    state = drawn_faces
    found = figures(state, "ifgsm")
    node = state.plan.nodes["score/ifgsm/noise"]
    limit = np.float32(Summary(state).faces.threshold("noise"))
    passed = every_draw(Columns(state), node, "similarity").astype(np.float32) >= limit
    assert passed.shape == (5, 48)
    assert found["far_mean"]["value"] == pytest.approx(passed.mean())
    assert found["far_worst"]["value"] == passed.any(axis=0).mean()
    assert found["far_majority"]["value"] == (passed.sum(axis=0) >= 3).mean()
    assert found["far"]["value"] == passed[0].mean()


def similarities(state: Survey, attack: str) -> tuple[Any, Any, Any]:
    """Every picture behind every draw with every enrolled one: (draws, n, n), and which count."""
    columns = Columns(state)
    labels = columns.column("ingest", "label")
    again = f"redraw/{attack}/noise"
    probes = every_vector(columns, f"score/{attack}/noise", again).astype(np.float64)
    enrolled = columns.vectors("score/none/none", "embedding").astype(np.float64)
    same = labels[:, None] == labels[None]
    return (probes @ enrolled.T + 1) / 2, same & ~np.eye(len(labels), dtype=bool), ~same


def test_the_threshold_of_a_random_defence_is_that_of_all_draws(drawn_faces: Survey) -> None:
    similar, genuine, impostor = similarities(drawn_faces, "none")
    assert similar.shape == (5, 48, 48)
    assert len({one.tobytes() for one in similar}) == 5
    limit = Summary(drawn_faces).faces.threshold("noise")
    ranked = np.sort(similar[:, impostor].reshape(-1))[::-1]
    assert limit == pytest.approx(ranked[int(0.1 * len(ranked)) - 1], abs=1e-5)
    found = figures(drawn_faces, "none")
    assert found["far_mean"]["value"] == pytest.approx(0.1, abs=1 / len(ranked))
    refused = similar[:, genuine] < limit
    close = pytest.approx
    assert found["frr_mean"]["value"] == close(refused.mean(), abs=1e-3)
    assert found["frr_worst"]["value"] == close(refused.any(axis=0).mean(), abs=1e-3)
    assert found["frr_majority"]["value"] == close((refused.sum(axis=0) >= 3).mean(), abs=1e-3)
    assert found["frr"]["value"] == close(refused[0].mean(), abs=1e-3)
    assert found["frr_worst"]["value"] > found["frr_mean"]["value"]
    accepted = similar[:, impostor] >= limit
    assert found["far_worst"]["value"] == close(accepted.any(axis=0).mean(), abs=1e-3)
    assert found["far_majority"]["value"] == close((accepted.sum(axis=0) >= 3).mean(), abs=1e-3)
    assert found["frr_mean"]["n"] == genuine.sum()
    assert {found[name]["draws"] for name in ("far_mean", "frr_worst", "eer_mean")} == {5}
    [system] = [o for o in Summary(drawn_faces).faces.systems() if o["purifier"] == "noise"]
    assert system["draws"] == 5
    assert system["frr"] == found["frr_mean"]["value"]
    assert system["eer"] == found["eer_mean"]["value"]
    assert (system["genuine_pairs"], system["impostor_pairs"]) == (genuine.sum(), impostor.sum())


def test_whether_attackers_are_recognised_is_asked_of_every_draw(drawn_faces: Survey) -> None:
    similar, genuine, _ = similarities(drawn_faces, "ifgsm")
    refused = similar[:, genuine] < Summary(drawn_faces).faces.threshold("noise")
    found = figures(drawn_faces, "ifgsm")
    assert found["frr_mean"]["value"] == pytest.approx(refused.mean(), abs=1e-3)
    assert found["frr_worst"]["value"] == pytest.approx(refused.any(axis=0).mean(), abs=1e-3)


def test_the_largest_gain_of_several_draws(tmp_path: Path) -> None:
    state = finished(tmp_path, **quality(purifiers=[NOISE]))
    found = figures(state, "ifgsm")
    assert found["gain_worst"]["value"] > found["gain_mean"]["value"]
    columns = Columns(state)
    clean = columns.column("score/none/none", "score")
    drawn = every_draw(columns, state.plan.nodes["score/ifgsm/noise"], "score")
    gains = np.abs(drawn - clean) / np.abs(clean)
    assert found["gain_mean"]["value"] == pytest.approx(gains.mean())
    assert found["gain_worst"]["value"] == pytest.approx(gains.max(axis=0).mean())


def test_of_as_many_votes_the_class_drawn_first_wins() -> None:
    drawn = np.array([[3, 1, 2], [1, 1, 0], [1, 2, 1], [3, 2, 3]])
    assert plurality(drawn).tolist() == [3, 1, 2]
