from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storage.images import Pixels, read_images
from storage.scores import read_rows
from tasks.columns import Columns
from tasks.encoding import Picture, amplification, amplified, data_uri, side_for
from tasks.figures import plots
from tasks.pictures import Grid, all_grids, example_grid, figure
from tasks.roc import roc_points
from tasks.survey import Survey
from tests import toy

SCC = {"name": "SeparateCorrectCombine", "steps": 3}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    purifiers = [
        {"name": "Median", "label": "median"},
        {**SCC, "label": "blind", "variant": "blind"},
        {**SCC, "label": "reference", "variant": "reference"},
        {**SCC, "label": "code", "variant": "code"},
    ]
    made, _ = toy.run(toy.bench(tmp_path_factory.mktemp("pictures"), purifiers=purifiers))
    return made


@pytest.fixture(scope="module")
def columns(state: Survey) -> Columns:
    return Columns(state)


def decoded(shown: Picture) -> Pixels:
    with Image.open(io.BytesIO(base64.b64decode(shown.uri.split(",")[1]))) as picture:
        pixels = np.atleast_3d(np.asarray(picture))
    return pixels.transpose(2, 0, 1)


def stored(state: Survey, node: str) -> dict[str, Pixels]:
    """Stored images of a node by the name of the image."""
    found = {}
    for index in range(state.chunks):
        rows = read_rows(state.bench.store.rows(state.done[("ingest", index)].ref))
        images = read_images(state.bench.store.images(state.done[(node, index)].ref))
        found |= dict(zip(rows["name"].to_pylist(), images, strict=True))
    return found


def grid_of(state: Survey, columns: Columns, purifier: str, count: int = 3) -> Grid:
    node = next(n for n in state.plan if n.kind == "purify" and n.attack != "none"
                and n.purifier == purifier)  # fmt: skip
    return example_grid(state, node, columns, count)


@pytest.mark.parametrize("purifier", ["median", "blind", "reference", "code"])
def test_pictures_are_the_stored_pixels(state: Survey, columns: Columns, purifier: str) -> None:
    grid = grid_of(state, columns, purifier, 5)
    attack = grid.attack
    assert grid.drift == 0
    originals, attacked = stored(state, "ingest"), stored(state, f"attack/{attack}")
    purified = stored(state, f"purify/{attack}/{purifier}")
    assert len(grid.strips) == 5
    for strip in grid.strips:
        shown = strip.pictures
        np.testing.assert_array_equal(decoded(shown[0]), originals[strip.name])
        np.testing.assert_array_equal(decoded(shown[1]), attacked[strip.name])
        np.testing.assert_array_equal(decoded(shown[-1]), purified[strip.name])


def test_layers_belong_to_the_stored_result(state: Survey, columns: Columns) -> None:
    grid = grid_of(state, columns, "reference")
    assert grid.roles == [
        "original",
        "attacked",
        f"difference \u00d7 {grid.factor}",
        "mask",
        "attacked layer",
        "unattacked layer",
        "corrected",
        "combined",
    ]
    for strip in grid.strips:
        clean, attacked, _, mask, attacked_layer, unattacked_layer, _, _ = (
            decoded(shown) for shown in strip.pictures
        )
        inside = mask > 0
        np.testing.assert_array_equal(attacked_layer, np.where(inside, attacked, clean))
        np.testing.assert_array_equal(unattacked_layer, np.where(inside, clean, attacked))
        assert 0 < inside.mean() < 1


def test_rows_run_from_best_to_worst(state: Survey, columns: Columns) -> None:
    grid = grid_of(state, columns, "median")
    loss = np.sort(columns.column(f"score/{grid.attack}/median", "loss"))
    assert [strip.rank for strip in grid.strips] == ["best", "median", "worst"]
    assert [strip.place for strip in grid.strips] == [1, 25, 48]
    assert [strip.value for strip in grid.strips] == [
        figure("loss", float(loss[i])) for i in (0, 24, 47)
    ]
    assert [strip.rank for strip in grid_of(state, columns, "median", 1).strips] == ["median"]


def test_captions_are_what_the_model_said(state: Survey, columns: Columns) -> None:
    grid = grid_of(state, columns, "median")
    names = columns.table("ingest").column("name").to_pylist()
    classes = state.bench.dataset.source.classes
    assert classes is not None
    for strip in grid.strips:
        index = names.index(strip.name)
        assert strip.truth == classes[int(columns.column("ingest", "label")[index])]
        for shown, node in (
            (strip.pictures[0], "score/none/none"),
            (strip.pictures[1], f"score/{grid.attack}/none"),
            (strip.pictures[-1], f"score/{grid.attack}/median"),
        ):
            said = classes[int(columns.column(node, "prediction")[index])]
            assert shown.caption.startswith(f"{said}, ")
            assert shown.verdict == ("right" if said == strip.truth else "wrong")
            assert strip.name in shown.alt
            assert said in shown.alt


def test_an_attack_alone_has_a_grid(state: Survey, columns: Columns) -> None:
    node = next(n for n in state.plan if n.kind == "attack")
    grid = example_grid(state, node, columns, 2)
    assert grid.roles == ["original", "attacked", f"difference \u00d7 {grid.factor}"]
    assert [strip.rank for strip in grid.strips] == ["best", "worst"]


def test_more_examples_than_images(tmp_path: Path) -> None:
    dataset = {"kind": "builtin:shapes", "count": 2}
    state, _ = toy.run(toy.bench(tmp_path, dataset=dataset, detectors=[]))
    grids, omitted = all_grids(state, Columns(state), 9)
    assert omitted == 0
    assert [len(grid.strips) for grid in grids] == [2, 2]


def test_pages_stay_small(state: Survey, columns: Columns, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all_grids(state, columns, 0) == ([], 0)
    monkeypatch.setattr("tasks.pictures.ROOM", 30_000)
    grids, omitted = all_grids(state, columns, 50)
    assert len(grids) + omitted == 4
    assert omitted > 0
    assert all(len(grid.strips) == 1 for grid in grids)


def test_small_pictures_keep_every_pixel_and_large_ones_are_reduced() -> None:
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (3, 20, 30), dtype=np.uint8)
    uri, width, height = data_uri(small, 16)
    assert (width, height) == (30, 20)
    np.testing.assert_array_equal(decoded(Picture("", "", uri, 0, 0, True)), small)
    large = generator.integers(0, 256, (1, 400, 800), dtype=np.uint8)
    uri, width, height = data_uri(large, 200)
    assert (width, height) == (200, 100)
    assert uri.startswith("data:image/jpeg")
    mask = np.repeat(large > 127, 3, axis=0).astype(np.uint8) * 255
    uri, _, _ = data_uri(mask, 200, exact=True)
    assert set(np.unique(decoded(Picture("", "", uri, 0, 0, True)))) <= {0, 255}
    assert side_for(2e6, 10) == 256
    assert side_for(2e6, 10_000) == 96


def test_differences_are_amplified_about_grey() -> None:
    change = np.array([[[-7, 0, 7]]], dtype=np.int16)
    assert amplification([change]) == 8
    assert amplified(change, 8).tolist() == [[[72, 128, 184]]]
    assert amplification([]) == 64
    assert amplification([np.array([[[255]]], dtype=np.int16)]) == 1


def test_roc_points_span_the_area() -> None:
    false, true = roc_points(np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0]))
    area = float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2))
    assert area == pytest.approx(7 / 9)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)


def test_plots_are_inline_and_repeatable(state: Survey, columns: Columns) -> None:
    first, left = plots(state, columns, {"GradientMask": 0.5})
    again, _ = plots(state, columns, {"GradientMask": 0.5})
    assert left == 0
    assert [plot.svg for plot in first] == [plot.svg for plot in again]
    assert len(first) == 4
    for plot in first:
        assert plot.svg.startswith("<svg")
        assert "http" not in plot.svg
        assert "<style" not in plot.svg
        assert "#010203" not in plot.svg
        assert plot.title in plot.alt
        assert len(plot.svg) < 60_000
    assert "threshold 0.5" in first[2].alt
