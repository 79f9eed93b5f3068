"""An attack's strength is searched until its stored images change by as much as is wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.report import render
from storage.scores import read_rows
from tasks.columns import Columns
from tasks.comparison import compare, open_finished
from tasks.errors import SpecError
from tasks.outputs import write_outputs
from tasks.survey import Survey
from tests import toy

WANTED = 8 / 255


def changes(attack: dict[str, Any] | None = None, **strength: Any) -> dict[str, Any]:
    """A specification of one attack whose strength is searched on 20 images, over two chunks."""
    stated = {"linf": "8/255", "images": 20, **strength}
    ifgsm = {"name": "IFGSM", "epsilon": 1.0, "steps": 3, "label": "wanted"}
    attacks = [{**(attack or ifgsm), "strength": stated}]
    return {"attacks": attacks, "detectors": [], "purifiers": []}


def found(state: Survey) -> dict[str, Any]:
    node = state.plan.nodes["strength/wanted"]
    given = state.done[("strength/wanted", 0)]
    assert node.gathers == 2
    (row,) = read_rows(state.bench.store.rows(given.ref)).to_pylist()
    return dict(row)


def test_the_stored_change_is_the_wanted_one(tmp_path: Path) -> None:
    state, made = toy.run(toy.bench(tmp_path, **changes()))
    row = found(state)
    assert (row["parameter"], row["images"]) == ("step_size", 20)
    assert row["reached"] == pytest.approx(WANTED, rel=0.02)
    changed = Columns(state).column("score/wanted/none", "linf")
    assert changed[:20].mean() == pytest.approx(row["reached"], rel=1e-6)
    assert changed.mean() == pytest.approx(WANTED, rel=0.1)
    assert sum(work.node.kind == "strength" for work in made) == 1


def test_what_was_found_is_in_the_summary_and_on_the_page(tmp_path: Path) -> None:
    state, _ = toy.run(toy.bench(tmp_path, **changes()))
    summary = write_outputs(state, render)
    row = found(state)
    assert summary["strengths"] == [
        {
            "attack": "wanted",
            "parameter": "step_size",
            "unit": "[0, 1] intensity",
            **{name: row[name] for name in ("value", "wanted", "reached", "images")},
            "tries": len(row["tries"]),
        }
    ]
    folder = state.bench.store.run("toy")
    assert json.loads((folder / "summary.json").read_bytes()) == summary
    page = (folder / "report.html").read_text()
    section = page[page.index('<section id="strengths">') :].partition("</section>")[0]
    assert f"<td>{row['value']:.4g}<small>{255 * row['value']:.2f}/255</small></td>" in section
    assert f"<td>8.00/255</td>\n<td>{255 * row['reached']:.2f}/255</td>\n<td>20</td>" in section


def test_summaries_of_earlier_versions_are_read(tmp_path: Path) -> None:
    state, _ = toy.run(toy.bench(tmp_path, **changes()))
    summary = write_outputs(state, render)
    folder = tmp_path / "store/toy"
    del summary["strengths"]
    (tmp_path / "old").mkdir()
    (tmp_path / "old/summary.json").write_text(json.dumps(summary))
    old = open_finished(str(tmp_path / "old"), "")
    new = open_finished(str(folder), "")
    for first, second in ((old, new), (new, old)):
        compared = compare(first, second)
        assert len(compared["rows"]) == len(summary["rows"])
        assert compared["differs"] == []
    assert 'id="strengths"' not in render(state, summary, Columns(state))


def test_it_is_searched_once_and_the_same_whatever_the_order(tmp_path: Path) -> None:
    first, _ = toy.run(toy.bench(tmp_path / "a", **changes()))
    again, made = toy.run(toy.bench(tmp_path / "a", **changes()))
    assert made == []
    other, _ = toy.run(toy.bench(tmp_path / "b", **changes()), order=[2, 1, 0])
    assert found(first) == found(again) == found(other)
    assert {k: v.content for k, v in first.done.items()} == {
        k: v.content for k, v in other.done.items()
    }


def test_another_wish_is_another_attack(tmp_path: Path) -> None:
    first, _ = toy.run(toy.bench(tmp_path, **changes()))
    state, made = toy.run(toy.bench(tmp_path, **changes(linf="4/255")))
    kinds = [work.node.kind for work in made]
    assert kinds.count("strength") == 1
    assert kinds.count("attack") == 3
    assert kinds.count("ingest") == 0
    assert found(state)["value"] < found(first)["value"]


def test_what_no_strength_reaches_is_refused(tmp_path: Path) -> None:
    weak = {"name": "IFGSM", "epsilon": 0.01, "steps": 3, "label": "wanted"}
    with pytest.raises(SpecError, match=r"attacks\[0\]\.strength\.linf: .*the closest of"):
        toy.run(toy.bench(tmp_path, **changes(weak)))


def test_an_attack_without_a_strength_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"attacks\[0\]\.strength: Corruption has no strength"):
        toy.bench(
            tmp_path, **changes({"name": "Corruption", "kind": "jpeg", "quality": 50})
        ).check()
