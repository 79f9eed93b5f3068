from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from flows.cli import Exit, app
from flows.compare_page import lines, render, span, verdict
from flows.report import render as report
from flows.scorecard import BETWEEN
from tasks.comparison import Finished, compare
from tasks.outputs import write_outputs
from tests import toy
from tests.flows.page import Page
from tests.flows.test_report import check
from tests.tasks.test_comparison import CHANGES, quality, run
from tests.tasks.test_requirements import row

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs ``a`` and ``b``, of the same images behind another purifier."""
    folder = tmp_path_factory.mktemp("compared")
    for name, level in (("a", 20), ("b", 90)):
        bench = toy.bench(folder, **{**CHANGES, "purifiers": quality(level), "name": name})
        write_outputs(toy.run(bench)[0], report)
    return folder / "store"


def invoke(*words: object) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, words)], catch_exceptions=False)


def test_the_command_prints_and_draws(store: Path, tmp_path: Path) -> None:
    result = invoke("a", "b", "--store", store, "--out", tmp_path / "made/page.html")
    assert result.exit_code == Exit.DONE, result.output
    assert "A: a   B: b" in result.stdout
    assert "spec.purifiers[0].quality" in result.stdout
    assert "PSNR, dB" in result.stdout
    text = (tmp_path / "made/page.html").read_text()
    page = Page(text)
    check(page, text)
    assert "a → b" in page.text()
    titles = [str(one["aria-label"]) for one in page.all("div") if one.get("role") == "img"]
    assert any(title.startswith("psnr, dB. ") for title in titles)
    assert all(": " in title and " to " in title for title in titles)
    assert "interval leaves out 0" in page.text()
    assert "spec.purifiers" in page.text()
    again = tmp_path / "again.html"
    assert invoke("a", "b", "--store", store, "--out", again).exit_code == Exit.DONE
    assert again.read_text() == text


def test_json(store: Path) -> None:
    result = invoke(store / "a", store / "b/summary.json", "--json")
    found = json.loads(result.stdout)
    assert found["first"]["name"] == "a"
    assert found["differs"][0] == {"field": "name", "first": "a", "second": "b"}
    assert {one["field"] for one in found["differs"]} == {"name", "spec.purifiers[0].quality"}
    assert found["only_first"] == found["only_second"] == []
    rows = {one["metric"]: one for one in found["rows"] if one["purifier"] == "jpeg"}
    assert rows["psnr"]["interval"]["images"] == 24
    assert rows["psnr"]["interval"]["all"]


def test_a_run_that_is_not_there(store: Path) -> None:
    result = invoke("a", "nothing", "--store", store)
    assert result.exit_code == Exit.INPUT
    assert result.stderr.startswith("error: nothing: expected a finished run")


def pair(first: Any, second: Any, **more: Any) -> dict[str, Any]:
    return compare(run(*first), run(*second, **more))


def test_a_verdict() -> None:
    other = {"kind": "k", "digest": "e", "images": 9, "rejected": 0}
    found = pair([row(value=0.5), row("ssim", 0.5)], [row(value=0.25), row("ssim", 0.5)])
    assert verdict(found) == [
        "Of 2 figures that both runs have, 1 is worse and 1 is equal.",
        "Worst: Accuracy of no attack · no purifier, from 50.0\u00a0% to 25.0\u00a0%.",
    ]
    found = pair([row(value=0.5)], [row(value=0.5)], dataset=other)
    assert verdict(found) == [
        "Of the figure that both runs have, 1 is equal.",
        "The runs are not of the same images.",
    ]
    assert verdict(pair([row()], [row("psnr")])) == ["The runs have no figure in common."]


def test_lines_and_intervals_in_words() -> None:
    found = pair([row(value=0.5), row("psnr", 30.0)], [row(value=0.25), row("psnr", 31.0)])
    first, second = lines(found["rows"])
    assert (first["first"], first["second"]) == ("50.0\u00a0%", "25.0\u00a0%")
    assert first["difference"] == "-25.0 pp"
    assert second["difference"] == "+1.00"
    assert not first["sure"]
    interval = {"difference": -0.25, "low": -0.3, "high": -0.1, "images": 7, "all": False}
    given = found["rows"][0] | {"interval": interval, "no_interval": None}
    assert span(given) == f"-30.0{BETWEEN}-10.0 pp"
    [line] = lines([given])
    assert line["sure"]
    assert line["note"] == "interval of -25.0 pp on the 7 images that both have"


def test_a_page_of_hostile_names_and_of_runs_that_share_nothing() -> None:
    first = run(row(attack=HOSTILE), row(purifier=HOSTILE))
    second = run(row(attack=HOSTILE, value=0.1), row("psnr", detector=HOSTILE, policy="reject"))
    first, second = (Finished(HOSTILE, one.summary, None) for one in (first, second))
    text = render(compare(first, second))
    page = Page(text)
    check(page, text)
    assert page.all("script") == []
    assert len([one for one in page.all("section") if str(one.get("id")).startswith("only-")]) == 2
    text = render(compare(run(row()), run(row("psnr"))))
    check(Page(text), text)
    assert "No figure differs." in Page(text).text()
