"""Filters, orders and pages of stored images, by rows that are written down or read beside them."""

from __future__ import annotations

import itertools
import math
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks import stored_images
from tasks.bounded import Bounded
from tasks.browsing import Gallery
from tasks.views import View
from tests.tasks.stored import WrittenDown, finished_run, library, rows_of

ATTACKED = View("a", "p")
numbers = itertools.count()


def written(**changes: Any) -> Gallery:
    """Six images: right, fooled and restored, fooled and not, wrong before, without a label, ..."""
    rows: dict[str, dict[str, list[Any]]] = {
        "score/none/none": {
            "name": ["a.png", "b.png", "c.png", "d.png", "e.png", "B-last.png"],
            "label": [0, 0, 1, 0, None, 1],
            "prediction": [0, 0, 1, 1, 1, 1],
            "confidence": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
        },
        "score/a/none": {
            "prediction": [0, 1, 0, 1, 0, 0],
            "confidence": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
        },
        "score/a/p": {
            "prediction": [0, 0, 0, 1, 1, 0],
            "confidence": [0.9, 0.3, 0.7, 0.6, 0.5, 0.95],
            "psnr": [30.0, math.nan, 10.0, math.inf, 20.0, 20.0],
            "linf": [0.1, 0.5, 0.3, 0.2, 0.4, 0.6],
        },
        "detect/a/d": {"score": [0.1, 0.9, 0.5, 0.7, 0.3, 0.2]},
        "detect/none/d": {"score": [0.9, 0.1, 0.2, 0.3, 0.4, 0.5]},
    }
    given = {"thresholds": {"d": 0.5}, **changes}
    return Gallery(WrittenDown(rows, name=f"written {next(numbers)}", **given))


def found(gallery: Gallery, **changes: Any) -> list[int]:
    return gallery.rows(gallery.settled(replace(ATTACKED, **changes))).tolist()


def test_filters_keep_what_they_say() -> None:
    gallery = written()
    assert found(gallery) == [0, 1, 2, 3, 4, 5]
    # what the model said of the clean image stands for a label that is not known
    assert found(gallery, show="fooled") == [1, 2, 4, 5]
    assert found(gallery, show="restored") == [1, 4]
    assert found(gallery, show="wrong") == [2, 5]
    # above the threshold, not at it
    assert found(gallery, show="flagged", detector="d") == [1, 3]
    assert found(gallery, attack="none", purifier="none", show="wrong") == [3]
    assert found(gallery, attack="none", purifier="none", show="flagged") == [0]


def test_a_targeted_attack_fools_where_its_target_is_said() -> None:
    gallery = written(config={"target": 1})
    # of those whose class is another: 0, 1 and 3
    assert found(gallery, show="fooled") == [1, 3]
    assert found(gallery, show="restored") == [1]
    assert found(gallery, show="wrong") == [3]


def test_a_detector_without_a_threshold_flags_nothing() -> None:
    assert found(written(thresholds={"d": None}), show="flagged") == []


def test_orders_put_the_worst_first_and_the_unknown_last() -> None:
    gallery = written()
    assert found(gallery, by="psnr", order="worst") == [2, 4, 5, 0, 3, 1]
    assert found(gallery, by="psnr", order="best") == [3, 0, 4, 5, 2, 1]
    # a high change is worse
    assert found(gallery, by="linf", order="worst") == [5, 1, 4, 2, 3, 0]
    # wrong and sure, ..., right and unsure, ..., right and sure
    assert found(gallery, by="confidence", order="worst") == [5, 2, 3, 1, 4, 0]
    # a detector does worst where it sees nothing, and on clean images where it sees something
    assert found(gallery, by="detector: d", order="worst") == [0, 5, 4, 2, 3, 1]
    clean = {"attack": "none", "purifier": "none"}
    assert found(gallery, by="detector: d", order="worst", **clean) == [0, 5, 4, 3, 2, 1]


def test_names_are_searched_in_either_case_and_with_filters() -> None:
    gallery = written()
    assert found(gallery, search="B") == [1, 5]
    assert found(gallery, search="b", show="restored") == [1]
    assert found(gallery, search=".*") == []


def test_what_a_run_lacks_is_replaced_by_what_it_has() -> None:
    gallery = written()
    asked = View("../..", "q", "everything", "x", "prediction", "sideways", "y" * 500)
    settled = gallery.settled(asked)
    assert (settled.attack, settled.purifier, settled.show) == ("a", "none", "all")
    assert (settled.detector, settled.order, len(settled.search)) == ("d", "place", 200)
    assert settled.by in gallery.columns(settled)
    assert gallery.settled(View("none", "none", "restored")).show == "all"


def test_pages_hold_every_image_once() -> None:
    gallery = written()
    view = gallery.settled(replace(ATTACKED, by="psnr", order="worst"))
    pages = [gallery.page(view, number, size=4) for number in (1, 2)]
    assert [shot.place for page in pages for shot in page.shots] == [2, 4, 5, 0, 3, 1]
    assert [(p.number, p.pages, p.found, p.total) for p in pages] == [(1, 2, 6, 6), (2, 2, 6, 6)]
    assert gallery.page(view, 99, size=4).number == 2
    assert gallery.page(view, -3, size=4).number == 1
    nothing = gallery.page(gallery.settled(replace(ATTACKED, search="zzz")))
    assert (nothing.shots, nothing.pages, nothing.found) == ([], 1, 0)


def test_a_strip_says_what_the_model_said() -> None:
    gallery = written()
    shot = gallery.page(gallery.settled(ATTACKED)).shots[1]
    assert (shot.name, shot.truth) == ("b.png", "cat")
    assert [pane.role for pane in shot.panes] == ["clean", "attacked", "difference", "purified"]
    said = [(p.answer.said, p.answer.confidence, p.answer.right) for p in shot.panes if p.answer]
    assert said == [("cat", 0.8, True), ("dog", 0.8, False), ("cat", 0.3, True)]
    assert dict(shot.figures) == {"linf": 0.5}
    assert [(flag.detector, flag.score, flag.flagged) for flag in shot.flags] == [("d", 0.9, True)]
    unlabelled = gallery.page(gallery.settled(ATTACKED)).shots[4]
    assert unlabelled.truth == ""
    assert unlabelled.panes[0].answer is not None
    assert unlabelled.panes[0].answer.right is None


def test_scores_of_a_quality_metric_are_ordered_by_their_gain() -> None:
    rows: dict[str, dict[str, list[Any]]] = {
        "score/none/none": {"name": ["x", "y", "z"], "label": [None] * 3, "score": [10.0, 20, 40]},
        "score/a/none": {"score": [20.0, 50, 90]},
        "score/a/p": {"score": [15.0, 21, 10]},
    }
    gallery = Gallery(WrittenDown(rows, name="quality"))
    view = gallery.settled(replace(ATTACKED, by="gain", order="worst"))
    assert gallery.shows(view) == ["all"]
    # by hand: 0.5, 0.05 and 0.75
    page = gallery.page(view)
    assert [shot.place for shot in page.shots] == [2, 0, 1]
    gains = [dict(shot.figures)["gain"] for shot in page.shots]
    assert gains == pytest.approx([0.75, 0.5, 0.05])
    assert page.shots[1].panes[1].score == ("score", 20.0)


@pytest.mark.parametrize(("aim", "expected"), [("impersonate", [1, 2, 0]), ("dodge", [0, 2, 1])])
def test_what_a_high_similarity_means_depends_on_the_aim(aim: str, expected: list[int]) -> None:
    rows: dict[str, dict[str, list[Any]]] = {
        "score/none/none": {"name": ["x", "y", "z"], "label": [0, 1, 1]},
        "score/a/none": {"similarity": [0.1, 0.9, 0.5]},
    }
    gallery = Gallery(WrittenDown(rows, {"aim": aim}, name=aim))
    view = gallery.settled(View("a", "none", by="similarity", order="worst"))
    assert gallery.rows(view).tolist() == expected


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("toy"))


def test_a_computed_run_is_filtered_as_its_rows_say(store: Path) -> None:
    gallery = library(store).open("toy").gallery
    assert gallery is not None
    attack = gallery.attacks[0]
    clean = rows_of(store, "score", "none", "none").to_pylist()
    attacked = rows_of(store, "score", attack, "none").to_pylist()
    purified = rows_of(store, "score", attack, "median").to_pylist()
    together = list(zip(clean, attacked, purified, strict=True))
    fooled = [
        i
        for i, (c, a, _) in enumerate(together)
        if c["prediction"] == c["label"] != a["prediction"]
    ]
    view = gallery.settled(View(attack, "median", "fooled"))
    page = gallery.page(view)
    assert [shot.place for shot in page.shots] == fooled[:24]
    restored = [i for i in fooled if purified[i]["prediction"] == clean[i]["label"]]
    assert gallery.rows(replace(view, show="restored")).tolist() == restored
    worst = sorted(range(48), key=lambda i: purified[i]["psnr"])
    ordered = gallery.page(gallery.settled(View(attack, "median", by="psnr", order="worst")))
    assert [shot.place for shot in ordered.shots] == worst[:24]
    assert ordered.pages == 2
    assert [shot.name for shot in ordered.shots] == [clean[i]["name"] for i in worst[:24]]


def test_only_the_columns_that_are_needed_are_read(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    columns = stored_images.read_columns

    def noted(path: Any, names: Any) -> Any:
        read.extend(names)
        return columns(path, names)

    monkeypatch.setattr(stored_images, "read_columns", noted)
    # rows that no other test has asked for
    fresh = finished_run(store.parent / "fresh", seed=5)
    gallery = library(fresh).open("toy").gallery
    assert gallery is not None
    view = gallery.settled(View("none", "none", by="psnr", order="worst"))
    gallery.rows(view)
    assert sorted(read) == ["name", "psnr"]
    gallery.rows(view)
    gallery.rows(replace(view, order="best"))
    assert sorted(read) == ["name", "psnr"]


def test_what_is_kept_is_bounded_and_made_once() -> None:
    kept: Bounded[str] = Bounded(10, len)
    made: list[str] = []
    gate = threading.Barrier(4)

    def make() -> str:
        made.append("x")
        return "x" * 6

    def ask() -> None:
        gate.wait()
        assert kept.get("one", make) == "x" * 6

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["x"]
    assert kept.get("two", lambda: "yyyyy") == "yyyyy"
    assert (kept.used, len(kept)) == (5, 1)
    assert kept.get("three", lambda: "z" * 11) == "z" * 11
    assert kept.used <= 10

    def fail() -> str:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        kept.get("four", fail)
    assert kept.get("four", lambda: "4") == "4"
