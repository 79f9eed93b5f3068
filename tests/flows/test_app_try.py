"""Try, with real clicks: every family, a stop, a broken file, two users, downloads."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

pytest.importorskip("nicegui", reason="needs nicegui")

from defender.models.faces import MobileFaceNet
from tasks.spec_files import parse_spec
from tests.flows.app_server import NARROW, app_at, browser, keep_picture, page_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
DONE = re.compile(r"done in [0-9.]+ s")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two people, a broken file, and weights of a face encoder."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        coarse = rng.integers(0, 255, (14, 14, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((112, 112)).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes((folder / "one.png").read_bytes()[:900])
    (folder / "notes.txt").write_text("no picture")
    torch.manual_seed(0)
    encoder = MobileFaceNet()
    for weights in encoder.parameters():
        if weights.ndim > 1:  # with the usual first weights all pictures look the same to it
            torch.nn.init.kaiming_normal_(weights, a=0.25)
    torch.save(encoder.state_dict(), folder / "encoder.pt")
    return folder


@pytest.fixture(scope="module")
def address(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with app_at(tmp_path_factory.mktemp("store"), data) as found:
        yield found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as made:
        yield made


def choose(page: Any, field: str, option: str) -> None:
    """Choose from a list, as a user does."""
    page.click(f"[data-test={field}]")
    page.locator(".q-menu .q-item").get_by_text(option, exact=True).click()


def fill(page: Any, field: str, value: str) -> None:
    page.fill(f"[data-test={field}]", value)


def upload(page: Any, field: str, path: Path) -> None:
    page.set_input_files(f"[data-test={field}] input[type=file]", str(path))


def try_it(page: Any) -> None:
    before = stage(page)
    page.click("[data-test=try]")
    page.wait_for_function(
        "before => { const now = document.querySelector('[data-test=stage]').textContent;"
        "return now !== before && /^(done|failed|stopped)/.test(now) }",
        arg=before,
    )


def roles(page: Any) -> list[str]:
    return [text.strip() for text in page.locator("figure .role").all_inner_texts()]


def stage(page: Any) -> str:
    return str(page.inner_text("[data-test=stage]"))


def test_a_classifier(chromium: Any, address: str) -> None:
    with page_of(chromium, address) as page:
        page.goto(address)
        try_it(page)
        assert DONE.fullmatch(stage(page))
        assert roles(page)[:3] == ["original", "attacked", "difference \u00d7 8"]
        assert "combined" in roles(page)
        for image in page.locator("figure img").all():
            assert image.get_attribute("alt")
            assert image.evaluate("one => one.complete && one.naturalWidth") == 32
        assert "which 10 % of clean pictures exceed (40 looked at)" in page.inner_text(".facts")
        first = page.locator("figure img").nth(0).get_attribute("src")
        begun = time.monotonic()
        page.click("[data-test=next]")
        page.wait_for_function(
            "old => { const one = document.querySelector('figure img'); "
            "return one && one.getAttribute('src') !== old }",
            arg=first,
        )
        assert time.monotonic() - begun < 60
        page.wait_for_selector("text=/^done in/")
        assert page.input_value("[data-test=place]") == "1"
        keep_picture(page, "app-try-classifier")


def test_it_fits_a_phone(chromium: Any, address: str) -> None:
    with page_of(chromium, address, NARROW) as page:
        page.goto(address)
        try_it(page)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= NARROW["width"]
        page.wait_for_timeout(800)
        keep_picture(page, "app-try-phone")


def test_image_scaling(chromium: Any, address: str) -> None:
    pytest.importorskip("skimage", reason="needs scikit-image for photographs")
    with page_of(chromium, address) as page:
        page.goto(address)
        choose(page, "family", "Image scaling")
        try_it(page)
        assert DONE.fullmatch(stage(page))
        assert {"model sees", "to be hidden", "attacked", "model sees of it"} <= set(roles(page))
        assert "model sees of that" in roles(page)
        assert "attacked is suspect" in page.inner_text(".facts")
        keep_picture(page, "app-try-scaling")


def test_a_quality_metric(chromium: Any, address: str, data: Path) -> None:
    with page_of(chromium, address) as page:
        page.goto(address)
        choose(page, "family", "Quality metric")
        page.wait_for_selector("[data-test=metric]")
        upload(page, "picture", data / "one.png")
        page.wait_for_selector("text=one.png")
        fill(page, "side", "96")
        try_it(page)
        assert DONE.fullmatch(stage(page))
        scores = [float(s) for s in re.findall(r"score ([\d.]+)", page.inner_text(".zoomed"))]
        original, attacked, purified = scores
        assert attacked > original
        assert purified < attacked


def test_a_patch(chromium: Any, address: str) -> None:
    with page_of(chromium, address) as page:
        page.goto(address)
        choose(page, "family", "Patch")
        page.wait_for_selector("[data-test=attack-grid]")
        try_it(page)
        assert DONE.fullmatch(stage(page))
        found = set(roles(page))
        assert {"heat map, original", "heat map, attacked", "heat map, purified"} <= found
        assert "where CamEnergy looks" in found


def test_a_face_login(chromium: Any, address: str, data: Path) -> None:
    with page_of(chromium, address) as page:
        page.goto(address)
        choose(page, "family", "Face login")
        page.wait_for_selector("[data-test=second]")
        upload(page, "picture", data / "one.png")
        page.wait_for_selector("text=one.png")
        try_it_and_fail(page, "second picture")
        upload(page, "second", data / "two.png")
        page.wait_for_selector("text=two.png")
        try_it_and_fail(page, "weights")
        fill(page, "weights", "encoder.pt")
        fill(page, "attack-steps", "5")
        try_it(page)
        assert DONE.fullmatch(stage(page)), page.inner_text(".problem")
        similar = [float(s) for s in re.findall(r"similarity ([\d.]+)", page.inner_text(".zoomed"))]
        assert len(similar) == 3
        assert similar[1] > similar[0]
        assert "enrolled" in roles(page)


def try_it_and_fail(page: Any, word: str) -> None:
    page.click("[data-test=try]")
    page.wait_for_function(
        "word => { const one = document.querySelector('.problem'); "
        "return one && one.textContent.includes(word) }",
        arg=word,
    )


def test_a_stop_ends_a_long_attack_at_once(chromium: Any, address: str) -> None:
    with page_of(chromium, address) as page:
        page.goto(address)
        fill(page, "attack-steps", "1000000")
        page.click("[data-test=try]")
        page.wait_for_selector("text=/^attack [0-9]+ %/")
        page.click("[data-test=stop]")
        page.wait_for_selector("[data-test=stage]:has-text('stopped')", timeout=5_000)
        assert "attacked" not in roles(page)
        # and the next one is not held up by it
        fill(page, "attack-steps", "2")
        try_it(page)
        assert DONE.fullmatch(stage(page))


def test_a_broken_file_gives_a_sentence(chromium: Any, address: str, data: Path) -> None:
    with page_of(chromium, address) as page:
        page.goto(address)
        for name in ("broken.png", "notes.txt"):
            upload(page, "picture", data / name)
            word = name if name.startswith("broken") else "expected a picture"
            page.wait_for_selector(f".problem:has-text('{word}')")
            told = page.inner_text(".problem")
            assert "Traceback" not in told
            assert "\n" not in told.strip()
        choose(page, "source", "dataset")
        fill(page, "path", "../elsewhere")
        page.press("[data-test=path]", "Tab")
        try_it_and_fail(page, "below the data folder")
        fill(page, "path", "nowhere")
        page.press("[data-test=path]", "Tab")
        try_it_and_fail(page, "nowhere")


def test_two_users_do_not_disturb_each_other(chromium: Any, address: str) -> None:
    with page_of(chromium, address) as one, page_of(chromium, address) as other:
        one.goto(address)
        other.goto(address)
        fill(one, "attack-steps", "1000000")
        one.click("[data-test=try]")
        one.wait_for_selector("text=/^attack [0-9]+ %/")
        try_it(other)
        assert DONE.fullmatch(stage(other))
        assert stage(one).startswith("attack")
        assert "attacked" not in roles(one)
        picture = other.locator("figure img").nth(1).get_attribute("src")
        addresses = [image.get_attribute("src") for image in one.locator("figure img").all()]
        assert picture not in addresses
        assert len(str(picture)) > 35
        other.click("[data-test=try]")
        other.press("body", "Escape")
        one.wait_for_timeout(500)
        assert stage(one).startswith("attack")
        one.click("[data-test=stop]")
        one.wait_for_selector("[data-test=stage]:has-text('stopped')")


def test_keys_zoom_and_dark(chromium: Any, address: str) -> None:
    with page_of(chromium, address) as page:
        page.goto(address)
        page.wait_for_selector("[data-test=try]")
        page.press("body", "r")
        page.wait_for_selector("text=/^done in/")
        zoom = "getComputedStyle(document.querySelector('.zoomed')).getPropertyValue('--zoom')"
        page.press("body", "+")
        assert float(page.evaluate(zoom)) == 1.25
        sizes = page.evaluate(
            "[...document.querySelectorAll('figure img')].map(one => "
            "new DOMMatrix(getComputedStyle(one).transform).a)"
        )
        assert {round(size, 4) for size in sizes} == {1.25}
        page.press("body", "0")
        assert float(page.evaluate(zoom)) == 1
        before = page.evaluate("document.body.classList.contains('body--dark')")
        page.press("body", "d")
        assert page.evaluate("document.body.classList.contains('body--dark')") is not before
        page.reload()
        page.wait_for_selector("[data-test=try]")
        page.wait_for_function(
            "was => document.body.classList.contains('body--dark') !== was", arg=before
        )


def test_what_is_seen_can_be_saved(chromium: Any, address: str, tmp_path: Path) -> None:
    with page_of(chromium, address) as page:
        page.goto(address)
        try_it(page)
        with page.expect_download() as got:
            page.locator("figure a[download]").nth(1).click()
        got.value.save_as(tmp_path / "attacked.png")
        with Image.open(tmp_path / "attacked.png") as picture:
            assert (picture.format, picture.size, picture.mode) == ("PNG", (32, 32), "RGB")
        for item, name in (("save-report", "report.html"), ("save-spec", "spec.yaml")):
            page.click("[aria-label=Save]")
            with page.expect_download() as got:
                page.click(f"[data-test={item}]")
            got.value.save_as(tmp_path / name)
        spec = parse_spec(yaml.safe_load((tmp_path / "spec.yaml").read_text()))
        assert spec.attacks[0].name == "IFGSM"
        report = (tmp_path / "report.html").read_text()
        assert report.count("<figure>") == len(roles(page))
        assert "http://" not in report.replace("http://www.w3.org", "")
        assert "shapes-cnn" in report
