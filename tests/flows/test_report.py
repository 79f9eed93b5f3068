from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.report import breakable, render
from flows.scorecard import BETWEEN
from tasks.outputs import write_outputs
from tests import toy
from tests.flows.page import Page

HOSTILE = "<script>alert(1)<"
COLOUR = {"name": "python:tests.flows.small_models:colour", "label": "m & <m>"}


def photographs(folder: Path, count: int = 12, side: int = 24) -> Path:
    """A folder of two classes, one of them with a name that is markup."""
    generator = np.random.default_rng(0)
    for i in range(count):
        place = folder / (HOSTILE if i % 2 else "b&b")
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (side, side + 4 * (i % 3), 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    (folder / "b&b" / "bad<img>.png").write_bytes(b"not an image")
    return folder


def report(folder: Path, **changes: Any) -> tuple[Page, str, dict[str, Any]]:
    state, _ = toy.run(toy.bench(folder, **changes))
    summary = write_outputs(state, render)
    text = (state.bench.store.run(state.bench.spec.name) / "report.html").read_text()
    return Page(text), text, summary


def check(page: Page, text: str) -> None:
    """What holds for every report."""
    assert page.misplaced == []
    assert page.open == []
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/")), value
    assert not re.search(r"@import|url\((?!#)", text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object")]
    assert all(picture.get("alt") for picture in page.all("img"))
    ids = Counter(attributes["id"] for _, attributes in page.tags if "id" in attributes)
    assert [name for name, count in ids.items() if count > 1] == []
    for anchor in page.all("a"):
        assert str(anchor["href"])[1:] in ids
    for plot in page.all("use"):
        assert str(plot["xlink:href"])[1:] in ids
    assert len(text.encode()) < 3_000_000


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("hostile")
    photographs(folder / "images")
    return report(
        folder,
        dataset={"kind": "folder", "path": "images"},
        model=COLOUR,
        metrics=["accuracy", "attack_success", "psnr", "psnr_legacy", "ssim", "mask_recall"],
        attacks=[
            {"name": "IFGSM", "label": "a<i>x</i> $\\frac{1}{2}$", "epsilon": 0.03, "steps": 2}
        ],
        detectors=[{"name": "GradientMask", "policy": ["observe", "reject", "purify-if-flagged"]}],
        purifiers=[
            {"name": "Median", "label": "m<b>"},
            {"name": "SeparateCorrectCombine", "label": "told", "variant": "code", "steps": 1},
        ],
    )


def test_page_stands_alone_and_escapes_every_name(
    hostile: tuple[Page, str, dict[str, Any]],
) -> None:
    page, text, summary = hostile
    check(page, text)
    assert "<script" not in text
    assert "<i>" not in text
    assert "<b>x" not in text
    assert HOSTILE in page.text("strip")
    assert "bad<img>.png" in page.text()
    assert "m & <m>" in page.text() or summary["model"]["name"] in page.text()
    assert "a<i>x</i> $\\frac{1}{2}$" in page.text("plots")


def test_reference_methods_stand_apart(hostile: tuple[Page, str, dict[str, Any]]) -> None:
    page, _, _ = hostile
    tables = "".join(
        text for classes, text in page.texts if "scroll" in classes and "told" not in classes
    )
    assert "told" in page.text("apart")
    assert "told" not in page.text("bars", without="apart")
    assert "m<b>" in tables
    assert "told" not in tables
    assert "told" in page.text("told-block")
    assert "m<b>" not in page.text("told-block")
    assert "best" not in page.text("told-block").split()
    assert "told" not in page.text("verdict")


def test_figures_are_those_of_the_summary(hostile: tuple[Page, str, dict[str, Any]]) -> None:
    page, _, summary = hostile
    text = page.text()
    for row in summary["rows"]:
        if row["metric"] == "accuracy":
            shown = f"{100 * row['value']:.1f}\u00a0%"
            low, high = 100 * row["ci_low"], 100 * row["ci_high"]
            assert shown in text
            assert f"{low:.1f}{BETWEEN}{high:.1f}\u00a0%" in text
    assert "held-out" in text
    assert "examples: 3" in text
    assert f"@{summary['model']['digest'][:12]}" in text
    assert "1 file could not be used" in text


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    changes = {"dataset": {"kind": "builtin:shapes", "count": 12}, "examples": 1}
    _, first, _ = report(tmp_path, **changes)
    _, second, _ = report(tmp_path, **changes)
    assert first == second


@pytest.mark.parametrize(
    ("absent", "anchors"),
    [
        ("attacks", {"scores", "distributions"}),
        ("purifiers", {"scores", "detectors", "distributions", "examples"}),
        ("detectors", {"scores", "distributions", "examples"}),
    ],
)
def test_parts_may_be_absent(tmp_path: Path, absent: str, anchors: set[str]) -> None:
    dataset = {"kind": "builtin:shapes", "count": 8}
    page, text, _ = report(tmp_path, dataset=dataset, **{absent: []})
    check(page, text)
    present = {attributes.get("id") for attributes in page.all("section")}
    assert anchors <= present
    assert bool(page.all("img")) == (absent != "attacks")


def test_nothing_but_a_dataset_and_a_model(tmp_path: Path) -> None:
    page, text, _ = report(
        tmp_path,
        dataset={"kind": "builtin:shapes", "count": 3},
        attacks=[],
        detectors=[],
        purifiers=[],
        metrics=[],
    )
    check(page, text)
    assert "neither accuracy nor label recovery" in page.text("verdict")


def test_no_examples_no_pictures(tmp_path: Path) -> None:
    dataset = {"kind": "builtin:shapes", "count": 4}
    page, text, _ = report(tmp_path, dataset=dataset, examples=0)
    check(page, text)
    assert page.all("img") == []


def test_grey_images_without_labels(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(5):
        pixels = generator.integers(0, 256, (200, 140), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    page, text, _ = report(
        tmp_path,
        dataset={"kind": "folder", "path": "images", "colour": "grey"},
        model={"name": "python:tests.flows.small_models:grey"},
    )
    check(page, text)
    assert "no labels" in page.text("verdict")
    assert "truly" not in page.text("strip")
    assert "class " in page.text("strip")
    assert "Ranked by PSNR" in page.text("grid")


def test_rejected_files_are_counted_beyond_the_first_fifty(tmp_path: Path) -> None:
    photographs(tmp_path / "images", 4)
    for i in range(59):
        (tmp_path / "images" / "b&b" / f"z{i}.png").write_bytes(b"x")
    page, text, _ = report(
        tmp_path,
        dataset={"kind": "folder", "path": "images"},
        model=COLOUR,
        attacks=[],
        detectors=[],
        purifiers=[],
    )
    check(page, text)
    assert "60 files could not be used" in page.text()
    assert "and 10 more" in page.text()


def test_labels_break_between_their_words() -> None:
    broken = breakable("JPEG(quality=60)<x>")
    assert broken == "JPEG<wbr>(quality=60)&lt;x&gt;"
