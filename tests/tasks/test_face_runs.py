"""Runs on a face encoder: who passes as whom, behind which defence, at which threshold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flows.report import render
from storage.images import Pixels, read_images
from storage.scores import read_rows
from tasks.columns import Columns
from tasks.errors import SpecError
from tasks.faces import people
from tasks.outputs import write_outputs
from tasks.plan import Plan
from tasks.summary import Summary
from tasks.survey import Survey
from tasks.targets import person_in
from tests import toy

FIT = "tests.tasks.test_face_runs:make_encoder"
ATTACK = {"name": "IFGSM", "epsilon": "16/255", "step_size": "4/255", "steps": 6, "label": "ifgsm"}


def make_encoder() -> nn.Module:
    """A smooth encoder with fixed random weights, for 32 x 32 images."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=3), nn.Softplus(), nn.Flatten(), nn.Linear(800, 16)
    )
    network.input_size = (32, 32)  # type: ignore[assignment]
    return network


def faces(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "model": None,
        "encoder": f"python:{FIT}",
        "attacks": [ATTACK],
        "detectors": [],
        "purifiers": [{"name": "Median", "label": "median"}, {"name": "jpeg(30)"}],
        "faces": {"far": 0.1},
        "metrics": ["far", "frr", "eer", "similarity", "psnr"],
    }
    return {**base, **changes}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    state, _ = toy.run(toy.bench(tmp_path_factory.mktemp("faces"), **faces()))
    return state


def stored(state: Survey, node: str) -> list[Pixels]:
    """The stored images of a node."""
    return [
        image
        for index in range(state.chunks)
        for image in read_images(state.bench.store.images(state.done[(node, index)].ref))
    ]


def embedded(state: Survey, node: str) -> np.ndarray[Any, Any]:
    """Embeddings of the stored images of a node, computed here; unit length."""
    images = torch.from_numpy(np.stack(stored(state, node)))
    with torch.no_grad():
        found: torch.Tensor = state.bench.encoder(images.float() / 255)
    return found.numpy()


def similar(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    unit_a = a / np.linalg.norm(a, axis=1, keepdims=True)
    unit_b = b / np.linalg.norm(b, axis=1, keepdims=True)
    return (unit_a @ unit_b.T + 1) / 2


def figure(state: Survey, attack: str, purifier: str, metric: str) -> dict[str, Any]:
    [row] = [
        row
        for row in Summary(state).rows()
        if (row["attack"], row["purifier"], row["metric"]) == (attack, purifier, metric)
    ]
    return row


@pytest.mark.parametrize("purifier", ["none", "median", "jpeg(30)"])
def test_rates_are_those_of_all_pairs_of_stored_images(done: Survey, purifier: str) -> None:
    labels = Columns(done).column("ingest", "label")
    enrolled = embedded(done, "ingest")
    probes = embedded(done, "ingest" if purifier == "none" else f"purify/none/{purifier}")
    scores, same = similar(probes, enrolled), labels[:, None] == labels[None]
    apart = ~np.eye(len(labels), dtype=bool)
    impostors = np.sort(scores[~same])[::-1]
    limit = impostors[int(0.1 * len(impostors)) - 1]
    summary = Summary(done)
    assert summary.faces.threshold(purifier) == pytest.approx(float(limit), abs=1e-5)
    far = figure(done, "none", purifier, "far")
    assert far["value"] <= 0.1 < far["value"] + 2 / len(impostors)
    assert far["n"] == len(impostors)
    assert far["ci_low"] <= far["value"] <= far["ci_high"]
    frr = figure(done, "none", purifier, "frr")
    genuine = scores[same & apart]
    assert frr["n"] == len(genuine)
    assert frr["value"] == pytest.approx(float((genuine < limit - 1e-6).mean()), abs=0.01)
    [system] = [one for one in summary.faces.systems() if one["purifier"] == purifier]
    assert system["frr_with_self_pairs"] <= system["frr"]
    assert (system["people"], system["images"]) == (len(set(labels)), 48)


def test_the_attack_makes_images_pass_as_the_person_of_their_target(done: Survey) -> None:
    columns = Columns(done)
    labels = columns.column("ingest", "label")
    target = done.plan.nodes["attack/ifgsm"].inputs["target"]
    assert (columns.column(target, "target_label") != labels).all()
    wanted, attacked = embedded(done, target), embedded(done, "attack/ifgsm")
    scores = np.diagonal(similar(attacked, wanted))
    np.testing.assert_allclose(columns.column("score/ifgsm/none", "similarity"), scores, atol=1e-5)
    before = np.diagonal(similar(embedded(done, "ingest"), wanted))
    assert (scores > before).all()
    limit = Summary(done).faces.threshold("none")
    assert figure(done, "ifgsm", "none", "far")["value"] == float((scores >= limit).mean())
    assert figure(done, "ifgsm", "none", "far")["value"] > 0.5
    assert figure(done, "ifgsm", "none", "similarity")["value"] == pytest.approx(scores.mean())


def test_embeddings_and_people_are_stored_with_the_scores(done: Survey) -> None:
    write_outputs(done, render)
    folder = done.bench.store.run("toy")
    [path] = (folder / "scores").glob("score--ifgsm--median-*.parquet")
    rows = read_rows(path)
    assert rows["person"].to_pylist() == rows["label"].to_pylist()
    assert rows.schema.field("embedding").type.list_size == 16
    stored = np.array(rows["embedding"].to_pylist())
    np.testing.assert_allclose(stored, embedded(done, "purify/ifgsm/median"), atol=1e-5)
    summary = json.loads((folder / "summary.json").read_text())
    assert [one["purifier"] for one in summary["verification"]] == ["none", "median", "jpeg(30)"]
    assert summary["model"]["name"] == f"python:{FIT}"
    page = (folder / "report.html").read_text()
    assert "Without a defence" in page
    assert "No attack knew a defence" in page
    assert "FAR, ifgsm (oblivious)" in page
    assert "Errors on clean pictures" in page


def test_a_fixed_threshold_is_that_of_all_defences(tmp_path: Path) -> None:
    state, _ = toy.run(toy.bench(tmp_path, **faces(faces={"threshold": 0.9}, attacks=[])))
    systems = Summary(state).faces.systems()
    assert {one["threshold"] for one in systems} == {0.9}
    assert all(one["fixed"] for one in systems)


def test_an_attack_that_knows_the_defence_passes_more_often(tmp_path: Path) -> None:
    knowing = {**ATTACK, "label": "knowing", "through": "smooth", "backward": "exact"}
    purifiers = [{"name": "gaussian(1.5)", "label": "smooth"}]
    state, _ = toy.run(toy.bench(tmp_path, **faces(attacks=[ATTACK, knowing], purifiers=purifiers)))
    blind = figure(state, "ifgsm", "smooth", "similarity")["value"]
    assert figure(state, "knowing", "smooth", "similarity")["value"] > blind
    assert figure(state, "knowing", "smooth", "far")["threat"] == "full-gradient"


def test_dodging_makes_an_image_unlike_its_own_person(tmp_path: Path) -> None:
    # an image is most like itself: from there no direction leads away, so start beside it
    attack = {**ATTACK, "name": "PGD", "aim": "dodge"}
    state, _ = toy.run(toy.bench(tmp_path, **faces(attacks=[attack], purifiers=[])))
    assert "target" not in state.plan.nodes["attack/ifgsm"].inputs
    own = np.diagonal(similar(embedded(state, "attack/ifgsm"), embedded(state, "ingest")))
    assert own.mean() < 0.98
    rates = [figure(state, attack, "none", "frr")["value"] for attack in ("none", "ifgsm")]
    assert rates[1] > rates[0]


def test_pictures_of_another_data_set_go_with_images_in_order(tmp_path: Path) -> None:
    others = {"kind": "builtin:shapes", "count": 48, "split": "train"}
    attack = {**ATTACK, "targets": others, "pairing": "in-order"}
    state, _ = toy.run(toy.bench(tmp_path, **faces(attacks=[attack], purifiers=[])))
    pool = state.bench.targets[0]
    assert pool is not None
    target = state.plan.nodes["attack/ifgsm"].inputs["target"]
    expected = [item.name for chunk in pool.pool.chunks for item in chunk.items]
    assert Columns(state).table(target)["target_name"].to_pylist() == expected


def test_people_come_from_names(tmp_path: Path) -> None:
    assert person_in(r"_(\d+)\.", "source/00003_25.png") == "25"
    assert person_in(r"_(\d+)\.", "readme.txt") is None
    named = toy.bench(tmp_path, **faces(faces={"identity": r"(\d)$"}, attacks=[]))
    state, _ = toy.run(named)
    table = Columns(state).table("ingest")
    digits = [int(name[-1]) for name in table["name"].to_pylist()]
    assert people(named, table).tolist() == digits


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": "linearity-small"}, "encoder: expected one of model, metric and encoder"),
        ({"pipeline": {"target": "16x16"}}, "pipeline: a face encoder sees images as they are"),
        ({"attacks": [{**ATTACK, "target": 3}]}, r"attacks\[0\].target: a face encoder has no"),
        ({"attacks": [{"name": "UAP"}]}, r"attacks\[0\].fit: UAP cannot be fitted to faces"),
        (
            {"attacks": [{**ATTACK, "strength": {"linf": 0.01}}]},
            r"attacks\[0\].strength: IFGSM cannot be fitted to faces",
        ),
        (
            {"attacks": [{**ATTACK, "aim": "dodge", "targets": "other-class"}]},
            r"attacks\[0\].targets: IFGSM is about no other person",
        ),
        (
            {"attacks": [{**ATTACK, "pairing": "in-order"}]},
            r"attacks\[0\].pairing: expected targets in a data set of their own",
        ),
        (
            {
                "attacks": [
                    {
                        "name": "FAB",
                        "epsilon": 0.1,
                        "targets": {"kind": "builtin:shapes", "split": "train"},
                    }
                ]
            },
            r"attacks\[0\]: FAB goes to a boundary, .* expected faces.threshold, got none",
        ),
        (
            {"attacks": [{"name": "APGD", "epsilon": 0.03, "loss": "dlr"}]},
            r"attacks\[0\]: APGD attacks a model of classes, a face encoder has none",
        ),
        ({"faces": {"identity": "s[0-9]+"}}, r"faces.identity: .*expected a group"),
        ({"faces": {"identity": "("}}, r"faces.identity: .*expected a regular expression"),
    ],
)
def test_what_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        toy.bench(tmp_path, **faces(**changes)).check()


def test_an_attack_that_stops_at_a_boundary_finds_the_threshold(tmp_path: Path) -> None:
    attack = {"name": "CarliniWagner", "label": "cw", "epsilon": 3, "steps": 8, "searches": 1}
    state, _ = toy.run(toy.bench(tmp_path, **faces(attacks=[attack], purifiers=[])))
    rows = read_rows(state.bench.store.rows(state.done[("calibrate/none", 0)].ref))
    [found] = rows.column("threshold").to_pylist()
    assert found == Summary(state).faces.threshold("none")
    assert state.plan.nodes["attack/cw"].inputs["threshold"] == "calibrate/none"
    assert figure(state, "cw", "none", "far")["value"] > 0
    stated = toy.bench(tmp_path, **faces(attacks=[attack], faces={"threshold": 0.9}))
    stated.catalogue(keep=False)
    assert "calibrate/none" not in Plan(stated).nodes


def test_a_data_set_of_one_person_has_no_rates(tmp_path: Path) -> None:
    alone = faces(faces={"identity": "(shape|image|.)"}, attacks=[])
    state, _ = toy.run(toy.bench(tmp_path, **alone))
    with pytest.raises(SpecError, match=r"faces.identity: expected pictures of two people"):
        Summary(state).rows()
