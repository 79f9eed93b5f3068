"""Pictures and plots of runs behind a resize."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from defender.metrics import roc_auc
from defender.scaling import Scaler
from storage.images import Pixels
from tasks.columns import Columns
from tasks.counted import attacks
from tasks.figures import plots
from tasks.histograms import histograms, median_levels
from tasks.pictures import Grid, all_grids, example_grid, figure
from tasks.resize_facts import resize_facts
from tasks.roc import attack_rocs, rate_at
from tasks.survey import Survey
from tests.tasks.test_pictures import decoded
from tests.tasks.test_scaling_runs import ATTACK, finished, psnr, scaled, stored

HARMLESS = {"name": "Corruption", "label": "blurred", "kind": "blur"}
PURIFIERS = [
    {"name": "Median", "label": "median"},
    {"name": "SelectiveMedian", "label": "selective"},
    {"name": "AreaScaling", "label": "area"},
]
DETECTORS = [
    {"name": "HistogramCosine", "label": "histogram", "fpr": 0.2},
    {"name": "DecamouflageScaling", "label": "scaling", "fpr": 0.2},
]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return finished(
        tmp_path_factory.mktemp("asked"),
        attacks=[ATTACK, {"name": "FGSM", "label": "fgsm", "epsilon": 0.03}, HARMLESS],
        purifiers=PURIFIERS,
        detectors=DETECTORS,
    )


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """No model; thresholds come from the training images."""
    folder = tmp_path_factory.mktemp("silent")
    return finished(folder, model=None, calibration="train/*", detectors=DETECTORS)


def grid_of(state: Survey, attack: str, purifier: str = "none", count: int = 5) -> Grid:
    name = f"attack/{attack}" if purifier == "none" else f"purify/{attack}/{purifier}"
    return example_grid(state, state.plan.nodes[name], Columns(state), count)


def test_columns_show_what_the_model_sees(state: Survey) -> None:
    grid = grid_of(state, "hide", "median")
    originals, attacked = stored(state, "ingest"), stored(state, "attack/hide")
    hidden, purified = stored(state, "target/hide"), stored(state, "purify/hide/median")
    assert grid.roles == [
        "original",
        "attacked",
        f"difference \u00d7 {grid.factor}",
        "model sees",
        "hidden picture",
        "purified",
        "model sees",
    ]
    assert len({originals[strip.name].shape for strip in grid.strips}) == 2
    for strip in grid.strips:
        shown = [decoded(picture) for picture in strip.pictures]
        wanted = {
            0: originals[strip.name],
            1: attacked[strip.name],
            3: scaled(attacked[strip.name]),
            4: hidden[strip.name],
            5: purified[strip.name],
            6: scaled(purified[strip.name]),
        }
        for place, pixels in wanted.items():
            np.testing.assert_array_equal(shown[place], pixels)
        assert strip.pictures[3].crisp
        assert shown[3].shape == (3, 12, 12)
        assert np.abs(shown[3].astype(int) - shown[4]).max() <= 2
        assert np.abs(shown[3].astype(int) - scaled(originals[strip.name])).max() > 20


def test_predictions_stand_under_what_the_model_sees(state: Survey) -> None:
    columns = Columns(state)
    names = columns.table("ingest").column("name").to_pylist()
    classes = state.bench.dataset.source.classes
    assert classes is not None
    with torch.no_grad():
        for strip in grid_of(state, "hide", "median").strips:
            index = names.index(strip.name)
            captions = [shown.caption for shown in strip.pictures]
            for place, score in ((3, "score/hide/none"), (6, "score/hide/median")):
                pixels = torch.tensor(decoded(strip.pictures[place]))[None] / 255
                said = int(state.bench.model(pixels).argmax(1))
                assert said == int(columns.column(score, "prediction")[index])
                word = classes[said] if said < len(classes) else f"class {said}"
                assert captions[place].startswith(f"{word}, ")
            assert captions[1] == captions[5] == ""
            reached = float(columns.column("score/hide/none", "target_psnr")[index])
            assert strip.pictures[3].note == f"{reached:.1f}\u00a0dB to hidden"
            kept = float(columns.column("score/hide/median", "scaled_psnr")[index])
            assert strip.pictures[6].note == f"{kept:.1f}\u00a0dB to original"
            other = {"dark": "light", "light": "dark"}[strip.truth]
            assert strip.pictures[4].note == f"truly {other}"


def test_a_purifier_that_scales_is_shown_as_the_model_sees_it(state: Survey) -> None:
    grid = grid_of(state, "hide", "area")
    purified = stored(state, "purify/hide/area")
    assert grid.roles[-2:] == ["hidden picture", "purified, as seen"]
    for strip in grid.strips:
        shown = decoded(strip.pictures[-1])
        assert shown.shape == (3, 12, 12)
        np.testing.assert_array_equal(shown, purified[strip.name])
        assert strip.pictures[-1].caption


def test_masks_of_a_purifier_stand_before_its_result(state: Survey) -> None:
    grid = grid_of(state, "hide", "selective")
    start = grid.roles.index("hidden picture") + 1
    assert grid.roles[start] == "considered"
    assert grid.roles[-2:] == ["purified", "model sees"]
    assert grid.drift == 0
    for strip in grid.strips:
        mask = decoded(strip.pictures[start])[0] > 0
        source = mask.shape
        scaler = Scaler("torch", "linear", source=(source[0], source[1]), target=(12, 12))
        left, right = scaler.matrices()
        used = (left != 0).any(0).unsqueeze(1) & (right != 0).any(1)
        np.testing.assert_array_equal(mask, used.numpy())
        assert not any("," in shown.caption for shown in strip.pictures[start:-2])


def test_an_attack_that_hides_nothing_shows_no_hidden_picture(state: Survey) -> None:
    grid = grid_of(state, "fgsm", "median", 1)
    assert "hidden picture" not in grid.roles
    assert grid.roles.count("model sees") == 2


def test_harmless_changes_have_no_pictures_and_no_roc(state: Survey) -> None:
    columns = Columns(state)
    grids, _ = all_grids(state, columns, 1)
    assert {grid.attack for grid in grids} == {"hide", "fgsm"}
    assert [plot.title for plot in attack_rocs(state, columns)] == [
        "ROC under hide",
        "ROC under fgsm",
    ]
    drawn, _ = plots(state, columns, {"histogram": 0.5, "scaling": None})
    scores = next(plot for plot in drawn if plot.title == "Scores of histogram")
    assert "blurred (harmless)" in scores.alt
    assert "threshold 0.5" in scores.alt


def test_without_a_model_images_are_ranked_by_what_it_would_see(silent: Survey) -> None:
    columns = Columns(silent)
    counted = [name.startswith("test/") for name in columns.table("ingest")["name"].to_pylist()]
    for grid, column, sign in (
        (grid_of(silent, "hide", count=3), "target_psnr", 1),
        (grid_of(silent, "hide", "median", 3), "scaled_psnr", -1),
    ):
        values = columns.column(f"score/hide/{grid.purifier}", column)[counted]
        ranked = np.sort(sign * values)
        assert grid.images == 10
        assert [strip.value for strip in grid.strips] == [
            figure(column, float(sign * ranked[i])) for i in (0, 4, 9)
        ]
        assert all(strip.name.startswith("test/") for strip in grid.strips)
        assert not any(shown.verdict for strip in grid.strips for shown in strip.pictures)
        captions = {shown.caption for strip in grid.strips for shown in strip.pictures}
        assert all(not caption or caption.startswith("at most") for caption in captions)


def levels_of(pixels: Pixels) -> list[int]:
    assert (pixels == pixels[:1]).all(), "grey in three channels"
    pixels = pixels[0]
    return [int((pixels == level).sum()) for level in range(256)]


def up(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    scaler = Scaler("torch", "linear", source=(12, 12), target=size)
    made: Pixels = scaler(torch.tensor(pixels)[None])[0].numpy()
    return made


def test_histograms_are_of_the_median_image(silent: Survey) -> None:
    columns = Columns(silent)
    pipeline = silent.bench.pipeline
    assert pipeline is not None
    levels = median_levels(silent, columns, silent.plan.nodes["attack/hide"], pipeline)
    assert levels.name == grid_of(silent, "hide", count=1).strips[0].name
    clean, attacked = stored(silent, "ingest"), stored(silent, "attack/hide")
    image = attacked[levels.name]
    again = levels_of(up(scaled(image), image.shape[1:]))
    assert levels.clean.tolist() == levels_of(clean[levels.name])
    assert levels.attacked.tolist() == levels_of(image)
    assert levels.again.tolist() == again
    one, other = np.array(levels_of(image), dtype=float), np.array(again, dtype=float)
    cosine = one @ other / math.sqrt((one @ one) * (other @ other))
    assert levels.attacked_cosine == pytest.approx(cosine, abs=1e-9)
    (plot,) = histograms(silent, columns)
    assert levels.name in plot.alt
    assert f"cosine {cosine:.3f}" in plot.alt
    assert plot.svg.count("<text") >= 3 + 5 + 2
    for label in ("original", "attacked", "attacked, resized down and up"):
        assert f">{label}<" in plot.svg


def test_roc_panels_hold_every_detector(silent: Survey) -> None:
    columns = Columns(silent)
    (panel,) = attack_rocs(silent, columns)
    tried = [name.startswith("test/") for name in columns.table("ingest")["name"].to_pylist()]
    areas = []
    for detector in ("histogram", "scaling"):
        benign = columns.column(f"detect/none/{detector}", "score")
        attacked = columns.column(f"detect/hide/{detector}", "score")
        area = roc_auc(benign[tried], attacked[tried])
        areas.append((area, roc_auc(benign, attacked)))
        assert f"{detector}: area {area:.3f}, " in panel.alt
    assert any(f"{some:.3f}" != f"{every:.3f}" for some, every in areas)
    assert "0.1 %" in panel.svg
    assert len(panel.svg) < 60_000


def test_rates_are_read_off_a_curve_without_interpolation() -> None:
    points = (np.array([0.0, 0.0, 0.1, 0.1, 1.0]), np.array([0.0, 0.4, 0.4, 0.9, 1.0]))
    assert rate_at(points, 0.01) == pytest.approx(0.4)
    assert rate_at(points, 0.1) == pytest.approx(0.9)
    assert rate_at(points, np.array([0.5, 1.0])).tolist() == [0.9, 1.0]


def gain(source: tuple[int, int], target: tuple[int, int], method: str) -> float:
    """10 log10(N M / n m ||L||^2 ||R||^2) by a dense decomposition."""
    left, right = Scaler("torch", method, source=source, target=target).matrices(torch.float64)
    norms = np.linalg.norm(left.numpy(), 2) * np.linalg.norm(right.numpy(), 2)
    return 10 * math.log10(math.prod(source) / math.prod(target) * norms**2)


def test_facts_of_the_resize(state: Survey) -> None:
    facts = resize_facts(state, Columns(state))
    assert facts is not None
    assert (facts.method, facts.target, facts.images) == ("torch linear", (12, 12), 24)
    assert [(s.audit.scaler.source, s.images) for s in facts.sources] == [
        ((48, 48), 16),
        ((36, 60), 8),
    ]
    assert (facts.more_sizes, facts.more_images) == (0, 0)
    for source in facts.sources:
        wanted = gain(source.audit.scaler.source, (12, 12), "linear")
        assert source.audit.hiding_gain == pytest.approx(wanted, abs=1e-6)
    methods = {(a.scaler.library, a.scaler.algorithm, a.scaler.antialias) for a in facts.others}
    assert {("opencv", "area", False), ("pillow", "lanczos", False), ("torch", "cubic", True)} <= (
        methods
    )
    assert all(a.scaler.source == (48, 48) for a in facts.others)


def test_bounds_are_of_the_stored_images(state: Survey) -> None:
    facts = resize_facts(state, Columns(state))
    assert facts is not None
    (bound,) = facts.bounds
    clean, attacked = stored(state, "ingest"), stored(state, "attack/hide")
    seen = [psnr(scaled(clean[name]), scaled(attacked[name])) for name in clean]
    gains = [gain(clean[name].shape[1:], (12, 12), "linear") for name in clean]
    measured = [psnr(clean[name], attacked[name]) for name in clean]
    assert (bound.attack, bound.images) == ("hide", 24)
    assert bound.measured == pytest.approx(np.mean(measured), abs=1e-3)
    assert bound.bound == pytest.approx(np.mean(np.add(seen, gains)), abs=1e-3)
    assert bound.margin == pytest.approx(
        min(s + g - m for s, g, m in zip(seen, gains, measured, strict=True)), abs=1e-3
    )
    assert bound.margin > -0.1


def test_distributions_beyond_the_most_are_counted(
    state: Survey, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = Columns(state)
    everything, none_left = plots(state, columns, {})
    assert none_left == 0
    assert not any("ROC" in plot.title for plot in everything)
    monkeypatch.setattr("tasks.figures.MOST", 2)
    drawn, left = plots(state, columns, {})
    assert [plot.title for plot in drawn] == [plot.title for plot in everything[:2]]
    assert left == len(everything) - 2


def test_without_a_resize_there_is_nothing_to_say_of_it(tmp_path: Path) -> None:
    state = finished(tmp_path, pipeline=None, attacks=[HARMLESS])
    columns = Columns(state)
    assert resize_facts(state, columns) is None
    assert histograms(state, columns) == []
    assert attacks(state) == []
