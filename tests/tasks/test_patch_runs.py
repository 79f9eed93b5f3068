"""Patches in runs: fitted, pasted, explained, certified, shown to other models, found again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from defender.attacks import GridPatch
from defender.explain import gradcam
from defender.metrics import maps
from storage.images import read_images
from storage.scores import read_rows
from tasks.columns import Columns
from tasks.compute import compute_chunk
from tasks.errors import SpecError
from tasks.fitting import artefact
from tasks.further_figures import further_sections
from tasks.outputs import write_outputs
from tasks.perturbation_files import load_perturbation
from tasks.pictures import all_grids
from tasks.summary import Summary
from tasks.survey import Survey, survey
from tests import toy

TRAIN = {"kind": "builtin:shapes", "split": "train", "count": 24, "chunk_size": 16}
ATTACKS: list[Any] = [
    {
        "name": "GridPatch",
        "label": "patch",
        "grid": 2,
        "size": 0.25,
        "epochs": 3,
        "target": 1,
        "fit_dataset": TRAIN,
    },
    {
        "name": "GridPatch",
        "label": "centre",
        "grid": 2,
        "size": 0.25,
        "place": "centre",
        "target": 1,
        "purifiers": [],
        "fitted": "patch",
    },
    {
        "name": "ControlPatch",
        "label": "mean",
        "kind": "mean",
        "grid": 2,
        "size": 0.25,
        "target": 1,
        "fitted": "patch",
    },
    {"name": "ControlPatch", "label": "noise", "kind": "noise", "grid": 2, "size": 0.25},
    {
        "name": "IFGSM",
        "label": "other",
        "epsilon": "8/255",
        "step_size": "4/255",
        "steps": 2,
        "surrogates": ["second", "third"],
    },
]
OTHERS = [
    {"name": "python:tests.tasks.test_patch_runs:second_model", "label": "second"},
    {"name": "python:tests.tasks.test_patch_runs:third_model", "label": "third"},
]


def second_model() -> nn.Module:
    return _network(1)


def third_model() -> nn.Module:
    return _network(2)


def _network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, stride=3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        nn.Linear(96, 10),
    )  # fmt: skip


def run_of(folder: Path, **changes: Any) -> Survey:
    given: dict[str, Any] = {
        "dataset": {"kind": "builtin:shapes", "count": 20, "chunk_size": 10},
        "attacks": ATTACKS,
        "others": OTHERS,
        "detectors": ["GradientMask"],
        "purifiers": [{"name": "Median", "label": "median"}],
        "certifiers": [
            {"name": "PatchCleanser", "label": "double", "patch": 0.25, "masks": 2},
        ],
        "explain": {},
        "metrics": ["accuracy", "attack_success"],
    }
    return toy.run(toy.bench(folder, **{**given, **changes}))[0]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return run_of(tmp_path_factory.mktemp("patch"))


def stored(state: Survey, node: str) -> Iterator[tuple[Any, Any]]:
    """Images and rows of a node, image by image."""
    for index in state.indices(state.plan.nodes[node]):
        ref = state.done[(node, index)].ref
        path = state.bench.store.rows(ref)
        rows = read_rows(path).to_pylist() if path.is_file() else []
        images = read_images(state.bench.store.images(ref))
        yield from zip(images, rows or [None] * len(images), strict=True)


def theta(state: Survey) -> torch.Tensor:
    rows = read_rows(state.bench.store.rows(state.done[("fit/patch", 0)].ref))
    return artefact(rows).values


@pytest.mark.parametrize("label", ["patch", "centre"])
def test_stored_images_hold_the_fitted_patch_where_the_rows_say(state: Survey, label: str) -> None:
    cells = (theta(state) * 255).round().to(torch.uint8).numpy()
    painted = np.repeat(np.repeat(cells, 4, axis=1), 4, axis=2)
    places = set()
    pairs = zip(stored(state, f"attack/{label}"), stored(state, "ingest"), strict=True)
    for (attacked, row), (clean, _) in pairs:
        top, left, height, width = (row[name] for name in ("top", "left", "height", "width"))
        assert (height, width) == (8, 8)
        assert np.array_equal(attacked[:, top : top + 8, left : left + 8], painted)
        rest = attacked.copy()
        rest[:, top : top + 8, left : left + 8] = clean[:, top : top + 8, left : left + 8]
        assert np.array_equal(rest, clean)
        places.add((top, left))
    assert places == {(12, 12)} if label == "centre" else len(places) > 10


def test_one_patch_is_fitted_and_the_others_use_it(state: Survey) -> None:
    assert [node.name for node in state.plan if node.kind == "fit"] == ["fit/patch"]
    for label in ("patch", "centre", "mean"):
        assert state.plan.nodes[f"attack/{label}"].inputs["fit"] == "fit/patch"
    assert "fit" not in state.plan.nodes["attack/noise"].inputs
    colour = (theta(state).mean(dim=(1, 2)) * 255).round().to(torch.uint8).tolist()
    for attacked, row in stored(state, "attack/mean"):
        assert attacked[:, row["top"] + 3, row["left"] + 5].tolist() == colour


def test_the_fit_looked_at_the_training_images_only(state: Survey, tmp_path: Path) -> None:
    again = run_of(tmp_path, dataset={"kind": "builtin:shapes", "count": 6, "chunk_size": 10})
    assert torch.equal(theta(again), theta(state))
    fewer = [{**ATTACKS[0], "fit_dataset": {**TRAIN, "count": 23}}]
    other = run_of(tmp_path, attacks=fewer, certifiers=[], others=[])
    assert not torch.equal(theta(other), theta(state))


def test_a_fit_that_is_killed_goes_on_to_the_same_bytes(
    state: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = GridPatch.fit

    class Killed(BaseException):
        pass

    def one_epoch(self: GridPatch, *given: Any, **named: Any) -> Iterator[Any]:
        yield next(whole(self, *given, **named))
        raise Killed

    bench = toy.bench(tmp_path, attacks=ATTACKS[:1], detectors=[], purifiers=[])
    bench.catalogue(keep=True)
    found = survey(bench)
    work = found.work(found.plan.nodes["fit/patch"], 0)
    assert work is not None
    seen = []
    for _ in range(2):
        with monkeypatch.context() as patched:
            patched.setattr(GridPatch, "fit", one_epoch)
            with pytest.raises(Killed):
                compute_chunk(bench, work.node, 0, work.inputs, None)
        seen += [p.name for p in (tmp_path / "store").rglob("epoch-*.pt")]
    assert {"epoch-000001.pt", "epoch-000002.pt"} <= set(seen)
    mark = compute_chunk(bench, work.node, 0, work.inputs, None)
    assert mark.content == state.done[("fit/patch", 0)].content


def test_maps_are_those_of_the_stored_images_and_compared_with_the_clean_ones(
    state: Survey,
) -> None:
    model = state.bench.model
    clean = [pixels for pixels, _ in stored(state, "explain/none/none")]
    labels = [row["label"] for _, row in stored(state, "ingest")]
    attacked = [pixels for pixels, _ in stored(state, "attack/patch")]
    boxes = [row for _, row in stored(state, "attack/patch")]
    for i, (heat, row) in enumerate(stored(state, "explain/patch/none")):
        image = torch.from_numpy(attacked[i])[None].float() / 255
        true = gradcam(model, image, torch.tensor([labels[i]]))
        assert np.abs(heat[1] - (true[0] * 255).round().numpy()).max() <= 1
        mine = torch.from_numpy(heat[1:]).float() / 255
        theirs = torch.from_numpy(clean[i][1:]).float() / 255
        for name, value in (
            ("true_pearson", maps.pearson(mine, theirs)),
            ("true_top_iou", maps.top_iou(mine, theirs, 0.15)),
        ):
            assert row[name] == pytest.approx(float(value), abs=1e-6, nan_ok=True)
        place = boxes[i]
        inside = heat[1][place["top"] : place["top"] + 8, place["left"] : place["left"] + 8]
        share = inside.sum(dtype=float) / max(1.0, heat[1].sum(dtype=float))
        if heat[1].any():
            assert row["true_energy"] == pytest.approx(share, abs=1e-6)
            assert row["true_energy_ratio"] == pytest.approx(share / (64 / 1024), abs=1e-4)
    names = read_rows(state.bench.store.rows(state.done[("explain/other/none", 0)].ref)).schema
    assert "true_pearson" in names.names
    assert "true_energy" not in names.names


def test_sections_hold_what_the_columns_say(state: Survey) -> None:
    summary = Summary(state)
    rows = summary.rows()
    sections = further_sections(summary)
    labels = summary.labels
    for row in sections["transfer"]:
        prediction = summary.columns.column(f"answer/{row['attack']}/{row['model']}", "prediction")
        if row["metric"] == "accuracy":
            assert row["value"] == pytest.approx((prediction == labels).mean())
        elif row["attack"] in ("patch", "centre", "mean"):
            open_to = labels != 1
            assert row["value"] == pytest.approx((prediction[open_to] == 1).mean())
    assert {row["model"] for row in sections["transfer"]} == {"second", "third"}
    proven = {(row["attack"], row["metric"]): row["value"] for row in sections["certification"]}
    table = summary.columns.table("certify/none/double").to_pydict()
    right = np.array(table["prediction"]) == labels
    assert proven["none", "accuracy"] == pytest.approx(right.mean())
    both = right & (np.array(table["certified"]) == 1)
    assert proven["none", "certified_accuracy"] == pytest.approx(both.mean())
    assert 4 <= proven["none", "evaluations"] <= 10
    (parts,) = (
        row["by_class"]
        for row in sections["certification"]
        if row["attack"] == "none" and "by_class" in row
    )
    assert sum(part["certified"] for part in parts) == int(both.sum())
    assert sum(part["images"] for part in parts) == len(labels)
    similar = [r for r in sections["explanation"] if r["metric"] == "target_similarity"]
    assert {row["attack"] for row in similar} == {"patch", "centre", "mean"}
    wrong = sections["wrong_predictions"]
    plain = summary.columns.column("score/patch/none", "prediction")
    assert sum(one["images"] for one in wrong["patch"]) == int((plain != labels).sum())
    located = [row for row in rows if row["metric"] == "located"]
    assert {row["attack"] for row in located} == {"patch", "centre", "mean", "noise"}


def test_pictures_of_a_fitted_attack_without_purifiers(state: Survey) -> None:
    grids, _ = all_grids(state, Columns(state), 12)
    (shown,) = (grid for grid in grids if grid.attack == "centre")
    assert len(shown.strips) == 12


def test_a_run_leaves_the_patch_as_a_file(state: Survey) -> None:
    summary = write_outputs(state, lambda *_: "page")
    folder = state.bench.store.run("toy")
    assert torch.equal(
        load_perturbation(folder / "fitted" / "patch.safetensors").values, theta(state)
    )
    assert json.loads((folder / "summary.json").read_text())["transfer"] == summary["transfer"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attacks": [{**ATTACKS[1], "fitted": "nobody"}]}, r"attacks\[0\].fitted: expected"),
        ({"attacks": [ATTACKS[2], ATTACKS[0]]}, r"attacks\[0\].fitted: expected"),
        ({"attacks": [{**ATTACKS[4], "surrogates": ["first"]}]}, "surrogates: expected labels"),
        ({"attacks": [{**ATTACKS[3], "fit_dataset": TRAIN}]}, "fit_dataset: ControlPatch is not"),
        (
            {"attacks": [{**ATTACKS[2], "fitted": None}]},
            r"attacks\[0\].fitted: expected the label of the patch",
        ),
        ({"attacks": [], "others": [OTHERS[0], OTHERS[0]]}, r"others\[1\].label"),
        ({"attacks": [], "certifiers": ["PatchClean"]}, r"certifiers\[0\].name: expected one of"),
    ],
)
def test_mistakes_name_the_field(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {"others": OTHERS, "detectors": [], "purifiers": []}
    with pytest.raises(SpecError, match=words):
        toy.bench(tmp_path, **{**given, **changes}).check()
