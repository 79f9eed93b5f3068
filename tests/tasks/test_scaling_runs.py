"""Runs behind a resize: hidden pictures, what the model sees, thresholds from named images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from defender.scaling import Scaler
from storage.images import Pixels, read_images
from storage.scores import read_rows
from tasks.errors import SpecError
from tasks.outputs import rejected_rows, write_outputs
from tasks.survey import Survey
from tasks.targets import like
from tasks.thresholds import read_thresholds
from tests import toy

PIPELINE = {"library": "torch", "algorithm": "linear", "target": [12, 12]}
ATTACK = {"name": "ImageScaling", "label": "hide", "targets": "other-class"}


def scaling(folder: Path, **changes: Any) -> dict[str, Any]:
    """A specification over a folder of 24 smooth images of two sizes and classes."""
    rng = np.random.default_rng(5)
    for i in range(24):
        side = (48, 48) if i % 3 else (36, 60)
        coarse = rng.integers(0, 256, (4, 4), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize(side[::-1], Image.Resampling.BICUBIC)
        part = "train" if i < 14 else "test"
        kind = "dark" if i % 2 else "light"
        path = folder / "pictures" / part / kind / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        smooth.save(path)
    base = {
        "dataset": {
            "kind": "folder",
            "path": str(folder / "pictures"),
            "class_folder": "parent",
            "chunk_size": 7,
        },
        "pipeline": PIPELINE,
        "attacks": [ATTACK],
        "detectors": [],
        "purifiers": [{"name": "Median", "label": "median"}],
        "metrics": [
            *("accuracy", "balanced_accuracy", "attack_success", "psnr", "scaled_psnr"),
            *("target_psnr", "o1", "o2", "scaling_success", "target_agreement"),
        ],
    }
    return {**base, **changes}


def finished(folder: Path, **changes: Any) -> Survey:
    return toy.run(toy.bench(folder, **scaling(folder, **changes)))[0]


def stored(state: Survey, node: str) -> dict[str, Pixels]:
    """The stored images of a node by the name of the image."""
    found: dict[str, Pixels] = {}
    for index in range(state.chunks):
        rows = read_rows(state.bench.store.rows(state.done[("ingest", index)].ref))
        images = read_images(state.bench.store.images(state.done[(node, index)].ref))
        found.update(zip(rows["name"].to_pylist(), images, strict=True))
    return found


def chosen(state: Survey) -> dict[str, str]:
    """Name of the hidden picture by the name of the image."""
    found: dict[str, str] = {}
    for index in range(state.chunks):
        rows = read_rows(state.bench.store.rows(state.done[("ingest", index)].ref))
        hidden = read_rows(state.bench.store.rows(state.done[("target/hide", index)].ref))
        names = hidden["target_name"].to_pylist()
        found.update(zip(rows["name"].to_pylist(), names, strict=True))
    return found


def scaled(image: Pixels) -> Pixels:
    height, width = image.shape[1:]
    scaler = Scaler("torch", "linear", source=(height, width), target=(12, 12))
    made: Pixels = scaler(torch.from_numpy(image)[None])[0].numpy()
    return made


def psnr(one: Pixels, other: Pixels) -> float:
    error = np.square(one.astype(float) - other.astype(float)).mean()
    return float(10 * np.log10(255**2 / error)) if error else np.inf


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return finished(tmp_path_factory.mktemp("scaling"))


def test_every_image_hides_a_picture_of_the_other_class(state: Survey) -> None:
    pictures = chosen(state)
    assert len(pictures) == 24
    assert all(name.split("/")[-2] != hidden.split("/")[-2] for name, hidden in pictures.items())
    assert len(set(pictures.values())) > 6


def test_hidden_pictures_are_what_the_pipeline_makes_of_the_files(state: Survey) -> None:
    clean, hidden = stored(state, "ingest"), stored(state, "target/hide")
    for name, other in chosen(state).items():
        np.testing.assert_array_equal(hidden[name], scaled(clean[other]))


def test_the_model_sees_the_hidden_picture(state: Survey) -> None:
    attacked, hidden = stored(state, "attack/hide"), stored(state, "target/hide")
    for name, image in attacked.items():
        assert np.abs(scaled(image).astype(int) - hidden[name]).max() <= 2


def test_scores_are_of_what_the_model_sees(state: Survey, tmp_path: Path) -> None:
    rows = read_rows(state.bench.store.rows(state.done[("score/hide/none", 0)].ref)).to_pylist()
    names = read_rows(state.bench.store.rows(state.done[("ingest", 0)].ref))["name"].to_pylist()
    clean, hidden = stored(state, "ingest"), stored(state, "target/hide")
    attacked = stored(state, "attack/hide")
    for name, row in zip(names, rows, strict=True):
        seen = scaled(attacked[name])
        assert row["scaled_psnr"] == pytest.approx(psnr(seen, scaled(clean[name])), abs=1e-3)
        close = psnr(attacked[name], clean[name])
        assert row["psnr"] == pytest.approx(close, abs=1e-3)
        assert row["o2"] == (close >= 15)
        assert row["o1"] == (row["target_psnr"] >= 20)
        assert row["target_psnr"] == pytest.approx(psnr(seen, hidden[name]), abs=1e-3)
        whole = torch.from_numpy(scaled(attacked[name]))[None].float() / 255
        answer = state.bench.model.model(whole)
        assert row["prediction"] == int(answer.argmax(1))


def summed(state: Survey) -> dict[tuple[str, str, str], Any]:
    summary = write_outputs(state, lambda *_: "")
    return {(r["attack"], r["purifier"], r["metric"]): r for r in summary["rows"]}


def test_the_summary_states_both_goals(state: Survey) -> None:
    rows = summed(state)
    o1, o2 = rows["hide", "none", "o1"], rows["hide", "none", "o2"]
    both = rows["hide", "none", "scaling_success"]["value"]
    assert o1["value"] == 1.0
    assert o1["n"] == 24
    assert both == pytest.approx(o2["value"])
    assert 0 < both < 1
    assert rows["hide", "none", "target_agreement"]["value"] == 1.0
    assert ("none", "none", "o1") not in rows
    assert rows["none", "median", "scaled_psnr"]["value"] > 20
    assert rows["none", "none", "balanced_accuracy"]["n"] == 24


def test_chunks_do_not_change_what_is_hidden(state: Survey, tmp_path: Path) -> None:
    content = scaling(tmp_path)
    content["dataset"]["chunk_size"] = 24
    other, _ = toy.run(toy.bench(tmp_path, **content))
    assert chosen(other) == chosen(state)
    ours, theirs = stored(state, "attack/hide"), stored(other, "attack/hide")
    assert all(np.array_equal(image, theirs[name]) for name, image in ours.items())


def test_a_new_image_changes_few_choices(state: Survey, tmp_path: Path) -> None:
    content = scaling(tmp_path)
    toy.run(toy.bench(tmp_path, **content))
    source = tmp_path / "pictures/test/dark/23.png"
    (tmp_path / "pictures/test/dark/99.png").write_bytes(source.read_bytes())
    later, made = toy.run(toy.bench(tmp_path, **content))
    before = chosen(state)
    after = {name: hidden for name, hidden in chosen(later).items() if name in before}
    changed = [name for name in before if before[name] != after[name]]
    assert all(after[name].endswith("99.png") for name in changed)
    assert len(changed) < 8
    assert sum(work.node.kind == "ingest" for work in made) == 1


def test_pictures_of_another_dataset_can_be_hidden(tmp_path: Path) -> None:
    target = {"kind": "builtin:shapes", "count": 5}
    run = finished(tmp_path, attacks=[{**ATTACK, "targets": target}], model=None)
    assert len(set(chosen(run).values())) == 5
    assert not set(chosen(run).values()) & set(stored(run, "ingest"))
    rows = summed(run)
    assert rows["hide", "none", "o1"]["value"] == 1.0
    assert not [key for key in rows if key[2] in ("accuracy", "target_agreement")]


def test_an_unusable_picture_is_passed_over(tmp_path: Path) -> None:
    content = scaling(tmp_path)
    for path in sorted((tmp_path / "pictures").rglob("*.png"))[:6]:
        path.write_bytes(b"no picture")
    run, _ = toy.run(toy.bench(tmp_path, **content))
    broken = {row["name"] for row in rejected_rows(run).to_pylist()}
    assert len(broken) == 6
    assert not broken & set(chosen(run).values())


def test_thresholds_come_from_the_named_images_only(tmp_path: Path) -> None:
    detector = {"name": "GradientMask", "label": "mask", "fpr": 0.2}
    run = finished(tmp_path, detectors=[detector], calibration="train/*")
    summary = write_outputs(run, lambda *_: "")
    folder = run.bench.store.run("toy")
    stated = read_thresholds(folder / "thresholds.json")[0]
    scores, parts = [], []
    for index in range(run.chunks):
        rows = read_rows(run.bench.store.rows(run.done[("ingest", index)].ref))
        found = read_rows(run.bench.store.rows(run.done[("detect/none/mask", index)].ref))
        parts += [name.split("/")[0] for name in rows["name"].to_pylist()]
        scores += found["score"].to_pylist()
    train = sorted(score for score, part in zip(scores, parts, strict=True) if part == "train")
    assert len(train) == 14
    assert stated.value == train[11]  # ceil(15 * 0.8) = 12th of 14
    assert (stated.images, stated.pattern, stated.fpr) == (14, "train/*", 0.2)
    rows = {(r["attack"], r["metric"]): r for r in summary["rows"] if r["purifier"] == "none"}
    held = [score for score, part in zip(scores, parts, strict=True) if part == "test"]
    false = sum(score > train[11] for score in held) / 10
    assert rows["none", "false_positive_rate"]["value"] == pytest.approx(false)
    assert rows["none", "accuracy"]["n"] == 10
    assert rows["hide", "true_positive_rate"]["n"] == 10


def test_the_gradient_passes_through_the_resize(tmp_path: Path) -> None:
    attack = {"name": "IFGSM", "label": "ifgsm", "epsilon": "8/255", "step_size": "2/255"}
    run = finished(tmp_path, attacks=[attack | {"steps": 4}])
    for index in range(run.chunks):
        clean, attacked = (
            read_rows(run.bench.store.rows(run.done[(f"score/{name}/none", index)].ref))["loss"]
            for name in ("none", "ifgsm")
        )
        assert (attacked.to_numpy() > clean.to_numpy()).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pipeline": None}, "attacks\\[0\\]: ImageScaling expected the resize"),
        ({"attacks": ["ImageScaling"]}, "attacks\\[0\\].targets: expected the pictures"),
        (
            {"attacks": [{"name": "FGSM", "epsilon": 0.1, "targets": "other-class"}]},
            "FGSM hides no picture",
        ),
        ({"attacks": [{"name": "FGSM", "epsilon": 0.1}], "model": None}, "attacks a model"),
        ({"attacks": [{**ATTACK, "purifiers": ["mean"]}]}, "expected labels of purifiers: median"),
        ({"detectors": ["GradientMask"], "model": None}, "works on a model"),
        ({"pipeline": {"algorithm": "sinc", "target": [9, 9]}}, "algorithm: expected nearest"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        toy.bench(tmp_path, **scaling(tmp_path, **changes)).check()


def test_a_pattern_that_splits_nothing_is_refused(tmp_path: Path) -> None:
    run = finished(tmp_path, calibration="elsewhere/*")
    with pytest.raises(SpecError, match="calibration: expected a pattern"):
        write_outputs(run, lambda *_: "")


def test_pictures_get_the_channels_of_the_images() -> None:
    colour = np.stack([np.full((2, 2), value, np.uint8) for value in (255, 0, 0)])
    assert like(colour, 1).tolist() == [[[76, 76], [76, 76]]]
    assert like(like(colour, 1), 3).shape == (3, 2, 2)
    assert like(colour, 3) is colour
