"""Pictures, plots and facts of the patches of a run are those of what the run stored."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from defender.explain import overlay
from defender.norms import from_uint8
from storage.images import Pixels, read_images
from storage.scores import read_rows
from tasks.columns import Columns
from tasks.encoding import Picture
from tasks.heat_strips import HeatGrid, heat_grids
from tasks.outputs import write_fitted
from tasks.patch_facts import made_on, patch_attacks
from tasks.patch_pictures import LAST, FittedPatch, fitted_patches
from tasks.patch_plots import fitting_plots
from tasks.perturbation_files import load_perturbation
from tasks.survey import Survey
from tests import patched, toy


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    made, _ = toy.run(toy.bench(tmp_path_factory.mktemp("patches"), **patched.changes()))
    return made


@pytest.fixture(scope="module")
def columns(state: Survey) -> Columns:
    return Columns(state)


@pytest.fixture(scope="module")
def patch(state: Survey) -> FittedPatch:
    (found,) = fitted_patches(state)
    return found


def opened(shown: Picture) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(shown.uri.split(",")[1])))


def pixels(picture: Image.Image) -> Pixels:
    return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)


def fitting(state: Survey) -> dict[str, Any]:
    name = f"fit/{patched.PATCH}"
    (row,) = read_rows(state.bench.store.rows(state.done[(name, 0)].ref)).to_pylist()
    return dict(row)


def colours(values: bytes, row: dict[str, Any]) -> Pixels:
    theta = np.frombuffer(values, np.float32).reshape(row["shape"])
    return np.rint(theta * 255).astype(np.uint8)


def test_snapshots_are_the_stored_ones_and_end_with_the_patch(
    state: Survey, patch: FittedPatch
) -> None:
    row = fitting(state)
    assert row["snapshot_epochs"][0] == 0
    assert [one.role for one in patch.snapshots] == ["start", "epoch 1", "epoch 2", "epoch 3"]
    stored = [colours(values, row) for values in row["snapshots"]]
    for shown, expected in zip(patch.snapshots, stored, strict=False):
        np.testing.assert_array_equal(pixels(opened(shown)), expected)
    last = colours(row["values"], row)
    assert last.shape == (3, 2, 2)
    np.testing.assert_array_equal(pixels(opened(patch.final)), last)
    np.testing.assert_array_equal(pixels(opened(patch.snapshots[-1])), last)
    assert not np.array_equal(stored[0], last)


def test_the_animation_goes_through_the_snapshots(patch: FittedPatch) -> None:
    assert patch.animation is not None
    moving = opened(patch.animation)
    frames, durations = [], []
    for frame in ImageSequence.Iterator(moving):
        frames.append(pixels(frame))
        durations.append(frame.info["duration"])
    assert moving.info["loop"] == 0
    assert durations[-1] == LAST
    expected = [pixels(opened(one)) for one in patch.snapshots]
    assert len(frames) == len(expected)
    for found, wanted in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_named_file_holds_the_patch(state: Survey, patch: FittedPatch, tmp_path: Path) -> None:
    assert write_fitted(state, tmp_path) == [patch.file]
    values = load_perturbation(tmp_path / patch.file).values
    np.testing.assert_array_equal(
        pixels(opened(patch.final)), np.rint(values.numpy() * 255).astype(np.uint8)
    )


def test_what_is_said_of_the_fitting(state: Survey, patch: FittedPatch) -> None:
    last = json.loads(fitting(state)["history"])[-1]
    assert (patch.label, patch.cells, patch.epochs) == (patched.PATCH, 2, patched.EPOCHS)
    assert (patch.images, patch.target) == (patched.IMAGES, "square")
    assert patch.models == ["python:tests.toy:make_model"]
    assert (patch.loss, patch.success) == (last["loss"], last["success"])
    assert [plot.title for plot in patch.plots] == ["Images that met the goal, %", "Loss"]


def test_plots_say_where_the_curves_begin_and_end() -> None:
    history = [{"loss": 2.0, "success": 0.1}, {"loss": 1.5, "success": 0.75}]
    success, loss = fitting_plots("a", history)
    assert "from 10 in the first epoch to 75 in epoch 2" in success.alt
    assert "from 2 in the first epoch to 1.5 in epoch 2" in loss.alt
    for plot in (success, loss):
        assert plot.svg.startswith("<svg")
        assert "#010203" not in plot.svg
    assert success.svg == fitting_plots("a", history)[0].svg
    assert fitting_plots("a", []) == []
    assert [plot.title for plot in fitting_plots("a", [{"loss": 1.0}])] == ["Loss"]


def test_facts_of_patches_and_controls(state: Survey, columns: Columns) -> None:
    found = {one.label: one for one in patch_attacks(state, columns)}
    assert [label for label, one in found.items() if one.control] == ["random", "mean"]
    assert {one.side for one in found.values()} == {8}
    assert found["corner"].place == "upper-left"
    assert found["corner"].fitted == found["mean"].fitted == patched.PATCH
    assert found["random"].fitted == ""
    labels = columns.column("ingest", "label")
    for label, one in found.items():
        clean = columns.column("score/none/none", "prediction") == labels
        after = columns.column(f"score/{label}/none", "prediction") == labels
        assert one.drop is not None
        assert one.drop.value == pytest.approx(clean.mean() - after.mean())
        assert one.drop.low < one.drop.value < one.drop.high


def test_models_that_attacks_were_made_on(tmp_path: Path) -> None:
    attacks = patched.changes()["attacks"]
    attacks[0] = {**attacks[0], "surrogates": ["twin"]}
    bench = toy.bench(tmp_path, **patched.changes(attacks=attacks))
    found = made_on(Survey(bench, plan=None, chunks=0))  # type: ignore[arg-type]
    assert found == {patched.PATCH: ["twin"], "corner": ["twin"], "random": [], "mean": []}


@pytest.fixture(scope="module")
def grids(state: Survey, columns: Columns) -> list[HeatGrid]:
    return heat_grids(state, columns, 2)


def stored(state: Survey, node: str) -> list[Pixels]:
    parts = [
        read_images(state.bench.store.images(state.done[(node, index)].ref))
        for index in range(state.chunks)
    ]
    return [image for part in parts for image in part]


def test_heat_maps_are_the_stored_ones_over_their_images(
    state: Survey, columns: Columns, grids: list[HeatGrid]
) -> None:
    assert [grid.attack for grid in grids] == [patched.PATCH, "corner"]
    names = columns.table("ingest").column("name").to_pylist()
    for grid in grids:
        sources = [
            ("ingest", "explain/none/none"),
            (f"attack/{grid.attack}", f"explain/{grid.attack}/none"),
            (f"purify/{grid.attack}/median", f"explain/{grid.attack}/median"),
        ]
        assert len(grid.strips) == 2
        for strip in grid.strips:
            index, left = names.index(strip.name), list(strip.pictures)
            for source, explained in sources:
                image, maps = stored(state, source)[index], stored(state, explained)[index]
                np.testing.assert_array_equal(pixels(opened(left.pop(0).shown)), image)
                for which in range(2):
                    if not left or left[0].shown.role != "heat map":
                        assert which == 1
                        break
                    laid = overlay(*map(from_uint8, map(torch.from_numpy, (image, maps[which]))))
                    np.testing.assert_array_equal(pixels(opened(left.pop(0).shown)), laid.numpy())
            assert left == []


def test_frames_lie_where_the_patch_was_pasted(
    state: Survey, columns: Columns, grids: list[HeatGrid]
) -> None:
    names = columns.table("ingest").column("name").to_pylist()
    corner = grids[1]
    for strip in corner.strips:
        boxes = [one.box for one in strip.pictures]
        clean = 1 + next(
            i for i, one in enumerate(strip.pictures[1:]) if one.shown.role != "heat map"
        )
        assert boxes[:clean] == [None] * clean
        assert set(boxes[clean:]) == {(0.0, 0.0, 25.0, 25.0)}
    for strip in grids[0].strips:
        index = names.index(strip.name)
        top, left = (columns.column(f"attack/{patched.PATCH}", n)[index] for n in ("top", "left"))
        assert strip.pictures[-1].box == (100 * left / 32, 100 * top / 32, 25.0, 25.0)


def test_no_heat_maps_no_pictures(state: Survey, columns: Columns, tmp_path: Path) -> None:
    assert heat_grids(state, columns, 0) == []
    more = patched.changes(explain=None, certifiers=[], others=[], detectors=[], purifiers=[])
    more["attacks"] = more["attacks"][2:3]
    plain, _ = toy.run(toy.bench(tmp_path, **more))
    assert heat_grids(plain, Columns(plain), 2) == []
    assert fitted_patches(plain) == []
