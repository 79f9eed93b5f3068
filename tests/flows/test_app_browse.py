"""Browse, with real clicks: a store of 10,000 images, a run that goes on, pages that are served."""

from __future__ import annotations

import hashlib
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

pytest.importorskip("nicegui", reason="needs nicegui")

from flows.report import render
from tasks import begun
from tasks.outputs import write_outputs
from tasks.spec_files import parse_spec
from tasks.survey import Survey, survey
from tasks.without_prefect import compute_left
from tasks.workbench import Workbench
from tests.flows.app_server import NARROW, app_at, browser, keep_picture, page_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
COUNT = 10_000
PLACE = re.compile(r"/stored/big/\d+/(\d+)\.png")


def begin(store: Path, name: str, count: int, **changes: Any) -> Survey:
    """A run of which nothing is computed yet."""
    spec = {
        "name": name,
        "dataset": {"kind": "builtin:shapes", "count": count, "chunk_size": 256},
        "model": {"name": "shapes-cnn"},
        "attacks": [{"name": "FGSM", "label": "FGSM", "epsilon": "8/255"}],
        "purifiers": [{"name": "Median", "label": "median"}],
        "metrics": ["accuracy", "attack_success", "psnr"],
        "compute": {"workers": 1, "device": "cpu"},
        **changes,
    }
    bench = Workbench(parse_spec(spec), store, str(store))
    bench.catalogue(keep=True)
    return survey(bench, hashed=False)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("store")
    state = begin(
        root,
        "big",
        COUNT,
        require=[{"metric": "accuracy", "attack": "none", "purifier": "none", "min": 0.5}],
    )
    compute_left(state)
    write_outputs(state, render)
    folder = root / "broken"
    folder.mkdir()
    (folder / "run.json").write_text("{")
    return root


@pytest.fixture(scope="module")
def address(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with app_at(store, tmp_path_factory.mktemp("data")) as found:
        yield found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as made:
        yield made


@pytest.fixture
def page(chromium: Any, address: str) -> Iterator[Any]:
    with page_of(chromium, address) as found:
        yield found


def choose(page: Any, field: str, option: str) -> None:
    """Choose from a list, as a user does, and wait for the images."""
    page.click(f"[data-test={field}]")
    page.locator(".q-menu .q-item").get_by_text(option, exact=True).click()


def position(page: Any, text: str) -> None:
    """Wait until the line above the images says so."""
    page.locator("[data-test=position]").get_by_text(text).wait_for()


def places(page: Any) -> list[int]:
    """Places of the images that are shown, in order, once there are strips."""
    page.locator(".br-strip").first.wait_for()
    sources = page.eval_on_selector_all(
        ".br-look", "all => all.map(one => one.querySelector('img').getAttribute('src'))"
    )
    return [int(found.group(1)) for one in sources if (found := PLACE.match(one))]


def all_drawn(page: Any) -> None:
    """Wait until every picture on the screen is drawn."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('.br-look img')].filter(i => "
        "i.getBoundingClientRect().top < innerHeight).every(i => i.complete && i.naturalWidth)"
    )


def rows_of(store: Path, attack: str, purifier: str) -> list[dict[str, Any]]:
    for path in (store / "big" / "scores").glob("score--*.parquet"):
        table = pq.read_table(path)
        if (table["attack"][0].as_py(), table["purifier"][0].as_py()) == (attack, purifier):
            rows: list[dict[str, Any]] = table.to_pylist()
            return rows
    raise AssertionError(f"no rows of {attack} {purifier}")


def test_a_store_is_opened_and_a_filter_finds_what_the_rows_say(
    page: Any, address: str, store: Path
) -> None:
    page.goto(f"{address}/browse")
    assert page.locator(".br-runs .problem, .br-runs .bad").first.is_visible()
    page.get_by_role("link", name="big").click()
    position(page, "page 1 of 417")
    assert places(page) == list(range(24))
    all_drawn(page)
    keep_picture(page, "app-browse-run")
    clean, attacked, purified = (
        rows_of(store, *one) for one in (("none", "none"), ("FGSM", "none"), ("FGSM", "median"))
    )
    fooled = [
        i
        for i in range(COUNT)
        if clean[i]["prediction"] == clean[i]["label"] != attacked[i]["prediction"]
    ]
    choose(page, "show", "fooled by the attack")
    position(page, f"{len(fooled):,}".replace(",", "\u202f"))
    assert places(page) == fooled[:24]
    worst = sorted(fooled, key=lambda i: purified[i]["psnr"])
    choose(page, "by", "PSNR, dB")
    page.wait_for_function("() => location.search.includes('order=worst')")
    assert places(page) == worst[:24]
    page.evaluate("document.querySelector('section[aria-label=Images]').scrollIntoView()")
    all_drawn(page)
    keep_picture(page, "app-browse-images")
    # the address is that of what is seen
    page.reload()
    position(page, "page 1 of")
    assert places(page) == worst[:24]


def test_pages_are_turned_with_keys_but_not_while_something_is_written(
    page: Any, address: str
) -> None:
    page.goto(f"{address}/browse/big?attack=FGSM&purifier=median")
    position(page, "page 1 of 417")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    position(page, "page 2 of 417")
    assert places(page) == list(range(24, 48))
    page.fill("[data-test=jump] input, input[data-test=jump]", "417")
    position(page, "page 417 of 417")
    assert places(page) == list(range(9984, 10_000))
    field = page.locator("input[data-test=search], [data-test=search] input")
    field.fill("000077")
    position(page, "page 1 of 1")
    assert places(page) == [77, *range(770, 780)]
    field.press("ArrowRight")
    field.press("ArrowLeft")
    assert places(page) == [77, *range(770, 780)]


def test_a_strip_is_enlarged_and_left_with_the_keyboard(page: Any, address: str) -> None:
    page.goto(f"{address}/browse/big?attack=FGSM&purifier=median")
    position(page, "page 1 of 417")
    page.locator(".br-look").nth(2).focus()
    page.keyboard.press("Enter")
    large = page.locator("#br-large")
    large.wait_for()
    assert large.locator("#br-large-name").inner_text() == "test/0000002"
    page.wait_for_function(
        "() => [...document.querySelectorAll('#br-large img')].every("
        "i => i.naturalWidth === 32 && getComputedStyle(i).imageRendering === 'pixelated')"
    )
    assert large.locator("img").count() == 4
    page.keyboard.press("ArrowRight")
    assert large.locator("#br-large-name").inner_text() == "test/0000003"
    page.keyboard.press("Escape")
    large.wait_for(state="hidden")
    # the page behind it was not turned
    assert places(page) == list(range(24))


def test_every_picture_has_words_and_everything_is_reached_by_tab(page: Any, address: str) -> None:
    page.goto(f"{address}/browse/big?attack=FGSM&purifier=median")
    position(page, "page 1 of 417")
    alts = page.eval_on_selector_all("img", "all => all.map(i => i.alt)")
    assert len(alts) == 24 * 4
    assert all("test/00000" in alt for alt in alts)
    assert sum(alt.startswith("clean") for alt in alts) == 24
    reached: set[str] = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "() => { const e = document.activeElement; return e.dataset.test || "
                "e.closest('[data-test]')?.dataset.test || e.id || e.className || e.textContent }"
            )
        )
    wanted = {"attack", "purifier", "show", "order", "by", "search", "jump", "br-next"}
    assert wanted <= {one.split(" ")[0] for one in reached}
    assert any("br-look" in one for one in reached)


def test_the_score_card_is_sorted_and_searched(page: Any, address: str, store: Path) -> None:
    page.goto(f"{address}/browse/big")
    page.locator(".br-card").wait_for()
    rows = json.loads((store / "big" / "summary.json").read_bytes())["rows"]
    page.get_by_text("The requirement is met.").wait_for()

    def column(number: int) -> list[str]:
        found: list[str] = page.locator(
            f".br-card tbody tr > :nth-child({number})"
        ).all_inner_texts()
        return found

    assert len(column(1)) == len(rows)
    page.locator(".br-card").get_by_role("button", name="Metric").click()
    page.locator(".br-card th[aria-sort=ascending]").wait_for()
    assert [one.lower() for one in column(5)] == sorted(
        (one.lower() for one in column(5)), key=lambda one: one.replace("psnr, db", "psnr")
    )
    page.fill("[data-test=rows] input, input[data-test=rows]", "median psnr")
    wanted = [r for r in rows if r["purifier"] == "median" and r["metric"] == "psnr"]
    page.locator("[data-test=card-position]").get_by_text(f"{len(wanted)} rows").wait_for()
    shown = {text.split()[0] for text in column(6)}
    assert shown == {f"{row['value']:.2f}" for row in wanted}


def test_a_narrow_screen_shows_everything_without_scrolling_aside(
    chromium: Any, address: str
) -> None:
    with page_of(chromium, address, NARROW) as page:
        page.emulate_media(color_scheme="dark")
        for path in ("/browse", "/browse/big?attack=FGSM&purifier=median&show=restored"):
            page.goto(f"{address}{path}")
            page.locator("h1").wait_for()
            if "big" in path:
                position(page, "page 1 of")
                page.evaluate(
                    "document.querySelector('section[aria-label=Images]').scrollIntoView()"
                )
                all_drawn(page)
                keep_picture(page, "app-browse-phone")
            ink, paper = (
                page.evaluate(f"getComputedStyle(document.body).{name}.match(/\\d+/g).map(Number)")
                for name in ("color", "backgroundColor")
            )
            assert sum(ink) > 3 * 150 > 3 * 60 > sum(paper)
            assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]


def test_what_cannot_be_read_is_said_in_a_sentence(page: Any, address: str) -> None:
    for name, said in (("broken", "damaged file"), ("nothing", "expected a run of the store")):
        page.goto(f"{address}/browse/{name}")
        text = page.locator(".problem").inner_text()
        assert said in text
        assert "Traceback" not in page.content()


def answer(url: str) -> tuple[int, dict[str, str], bytes]:
    try:
        with urllib.request.urlopen(url, timeout=30) as found:
            return found.status, dict(found.headers), found.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_stored_pages_run_nothing_and_other_paths_are_refused(address: str, store: Path) -> None:
    status, headers, body = answer(f"{address}/stored/big/files/report.html")
    assert status == 200
    assert (
        hashlib.sha256(body).digest()
        == hashlib.sha256((store / "big" / "report.html").read_bytes()).digest()
    )
    policies = [v for k, v in headers.items() if k.lower() == "content-security-policy"]
    assert any("sandbox" in policy for policy in policies)
    assert answer(f"{address}/stored/big/0/9999.png")[0] == 200
    for path in (
        "/stored/big/0/10000.png",
        "/stored/big/0/-1.png",
        "/stored/big/x/0.png",
        "/stored/big/0/0x1.png",
        "/stored/big/0/%D9%A1.png",
        "/stored/big/0/0.png?side=9999",
        "/stored/big/0/0.png?v=0123456789ab",
        "/stored/data/0/0.png",
        "/stored/big/files/run.json",
        "/stored/big/files/..%2f..%2fbig%2freport.html",
        "/stored/big/files/%2fetc%2fpasswd",
        "/stored/..%2fbig/files/report.html",
    ):
        status, _, body = answer(f"{address}{path}")
        assert status in (400, 404), path
        assert b"Traceback" not in body


def test_a_run_that_goes_on_is_followed_until_it_ends(chromium: Any, tmp_path: Path) -> None:
    state = begin(tmp_path, "going", 512)
    begun.note(state)
    with app_at(tmp_path, tmp_path) as address, page_of(chromium, address) as page:
        page.goto(f"{address}/browse")
        page.get_by_text("not finished").first.wait_for()
        page.get_by_role("link", name="going").click()
        page.get_by_role("status").get_by_text("0 of 16 chunks").wait_for()
        compute_left(state, kinds=("ingest", "attack"))
        page.get_by_role("status").get_by_text("4 of 16 chunks").wait_for()
        compute_left(state)
        page.get_by_role("status").get_by_text("16 of 16 chunks").wait_for()
        position(page, "512 images")
        all_drawn(page)
        write_outputs(state, render)
        begun.finish(state)
        page.get_by_role("link", name="report.html").first.wait_for()
        position(page, "512 images")
