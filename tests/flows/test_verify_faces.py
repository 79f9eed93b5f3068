"""The command ``verify-faces``, with an encoder whose embeddings are known without it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from defender.metrics.verification import Pairs as Compared
from defender.metrics.verification import equal_error_rate, far_at, frr_at, similarities
from flows.cli import Exit
from storage.scores import read_rows
from tests.flows.test_cli import invoke, one_line

SIDE = 6
PEOPLE = ("ann", "bob", "cleo", "dan")
PICTURES = 3
ENCODER = ["--encoder", "python:tests.flows.test_verify_faces:Pixels", "--normalisation", "none"]
OUTPUTS = {
    *("verify.json", "pairs.parquet", "roc.svg", "det.svg"),
    *("rejected.parquet", "stages.json", "run.json"),
}


class Pixels(nn.Module):
    """What is left of a picture without its mean: a network that needs no weights."""

    input_size = (SIDE, SIDE)

    def forward(self, images: Tensor) -> Tensor:
        """Embed images (n, 3, SIDE, SIDE): (n, 3 SIDE SIDE)."""
        flat = images.flatten(1)
        return flat - flat.mean(dim=1, keepdim=True)


def names() -> list[str]:
    return [f"{person}/{number}.png" for person in PEOPLE for number in range(PICTURES)]


def embeddings(folder: Path) -> NDArray[np.float64]:
    """What :class:`Pixels` says of the pictures, without it."""
    found = [np.asarray(Image.open(folder / name), dtype=np.float64) / 255 for name in names()]
    flat = np.stack([picture.transpose(2, 0, 1).ravel() for picture in found])
    return flat - flat.mean(axis=1, keepdims=True)


def draw(folder: Path) -> None:
    generator = np.random.default_rng(3)
    for person in PEOPLE:
        (folder / person).mkdir(parents=True)
        texture = generator.integers(90, 166, (SIDE, SIDE, 3))
        for number in range(PICTURES):
            noise = generator.normal(0, 28, texture.shape)
            pixels = np.clip(texture + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / person / f"{number}.png")


def listed(path: Path, header: str, rows: list[tuple[object, ...]]) -> Path:
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def every_pair() -> list[tuple[str, str, int]]:
    return [(a, b, int(a[:3] == b[:3])) for a, b in itertools.combinations(names(), 2)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    draw(folder / "faces")
    (folder / "faces/ann/broken.png").write_bytes(b"no picture")
    listed(folder / "pairs.csv", "name_a,name_b,same", list(every_pair()))
    return folder


def words(home: Path, *more: object, pairs: str = "pairs.csv") -> list[object]:
    given = ["verify-faces", home / pairs, "--dataset", home / "faces", *ENCODER]
    return [*given, "--store", home / "store", *more]


@pytest.fixture(scope="module")
def finished(home: Path) -> dict[str, Any]:
    more = ("--far", 0.1, "--purifier", "median(3)", "--out", home / "out", "--json")
    result = invoke(*words(home, *more))
    assert result.exit_code == Exit.DONE, result.output
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def by_hand(home: Path) -> Compared:
    whole = similarities(embeddings(home / "faces"), embeddings(home / "faces"))
    first, second = np.triu_indices(len(names()), 1)
    people = np.arange(len(names())) // PICTURES
    return Compared(
        whole[first, second], people[first] == people[second], people[first], people[second]
    )


def test_figures_are_those_of_the_pairs(home: Path, finished: dict[str, Any]) -> None:
    plain, purified = finished["systems"]
    pairs = by_hand(home)
    assert (plain["purifier"], purified["purifier"]) == ("none", "median(3)")
    assert (plain["genuine_pairs"], plain["impostor_pairs"]) == (12, 54)
    assert plain["far"]["value"] == pytest.approx(far_at(pairs, plain["threshold"]), abs=1e-9)
    assert plain["far"]["value"] == pytest.approx(5 / 54)
    assert plain["frr"]["value"] == pytest.approx(frr_at(pairs, plain["threshold"]), abs=1e-9)
    assert plain["eer"]["value"] == pytest.approx(equal_error_rate(pairs)[0])
    # each defence has a threshold of its own, at the same rate
    assert purified["threshold"] != plain["threshold"]
    assert purified["far"]["value"] == pytest.approx(5 / 54)
    assert finished["people_from"] == "folders"
    assert finished["dataset"]["rejected"] == 1


def test_similarities_are_kept_a_row_a_pair(home: Path, finished: dict[str, Any]) -> None:
    folder = Path(finished["folder"])
    assert {path.name for path in folder.iterdir()} == OUTPUTS
    table = read_rows(folder / "pairs.parquet")
    assert table["first"].to_pylist() == [pair[0] for pair in every_pair()]
    found = table["similarity_none"].to_numpy()
    np.testing.assert_allclose(found, by_hand(home).similarity, atol=1e-5)
    stored = json.loads((folder / "verify.json").read_text())
    assert [one["far"] for one in stored["systems"]] == [one["far"] for one in finished["systems"]]
    assert "curve" in stored["systems"][0]
    for name in ("verify.json", "roc.svg", "det.svg", "pairs.parquet"):
        assert (home / "out" / name).read_bytes() == (folder / name).read_bytes()


def test_only_probes_are_purified(home: Path, finished: dict[str, Any]) -> None:
    turned = [(b, a, same) for a, b, same in every_pair()]
    listed(home / "turned.csv", "name_a,name_b,same", list(turned))
    more = ("--far", 0.1, "--purifier", "median(3)", "--json")
    result = invoke(*words(home, *more, pairs="turned.csv"))
    assert result.exit_code == Exit.DONE, result.output
    # the embeddings are those of the first run
    assert json.loads(result.stdout)["chunk_tasks"] == 0
    one, other = (
        read_rows(home / "store" / f"verify-{name}/pairs.parquet") for name in ("pairs", "turned")
    )
    plain, purified = "similarity_none", "similarity_median(3)"
    np.testing.assert_allclose(one[plain].to_numpy(), other[plain].to_numpy(), atol=1e-6)
    assert np.abs(one[purified].to_numpy() - other[purified].to_numpy()).max() > 1e-3


def test_nothing_is_done_twice(home: Path, finished: dict[str, Any]) -> None:
    before = {path.name: path.read_bytes() for path in Path(finished["folder"]).iterdir()}
    again = invoke(*words(home, "--far", 0.1, "--purifier", "median(3)"))
    assert again.exit_code == Exit.DONE, again.output
    assert "0 of 4 chunks were computed now" in again.stdout
    assert "12 genuine and 54 impostor pairs of 4 people" in again.stdout
    assert before == {p.name: p.read_bytes() for p in Path(finished["folder"]).iterdir()}


def test_a_fixed_threshold_and_ten_folds(home: Path) -> None:
    folds = [(*pair, place % 3) for place, pair in enumerate(every_pair())]
    listed(home / "folds.csv", "name_a,name_b,same,fold", list(folds))
    more = ("--threshold", 0.7, "--protocol", "lfw", "--json")
    result = invoke(*words(home, *more, pairs="folds.csv"))
    assert result.exit_code == Exit.DONE, result.output
    content = json.loads(result.stdout)
    system = content["systems"][0]
    pairs = by_hand(home)
    assert (content["fixed_threshold"], system["threshold"]) == (0.7, 0.7)
    assert system["far"]["value"] == pytest.approx(far_at(pairs, 0.7))
    assert [one["pairs"] for one in system["ten_fold"]["folds"]] == [22, 22, 22]
    shown = invoke(*words(home, "--threshold", 0.7, "--protocol", "lfw", pairs="folds.csv"))
    assert "accuracy" in shown.stdout


def test_templates(home: Path) -> None:
    rows = [(name, f"t{place // 2}", place, name[:3]) for place, name in enumerate(names())]
    # pictures 2 and 3 are of two people
    rows = [row for row in rows if row[1] not in ("t1", "t4")]
    listed(home / "templates.csv", "name,template,media,person", list(rows))
    kinds = sorted({(row[1], row[3]) for row in rows})
    pairs = [(a, b) for (a, _), (b, _) in itertools.product(kinds, kinds)]
    listed(home / "ijb.csv", "template_a,template_b", list(pairs))
    more = ("--protocol", "ijb", "--templates", home / "templates.csv", "--far", 0.2, "--json")
    result = invoke(*words(home, *more, pairs="ijb.csv"))
    assert result.exit_code == Exit.DONE, result.output
    content = json.loads(result.stdout)
    whole = embeddings(home / "faces")
    units = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    means = np.stack([units[2 * int(t[1:]) : 2 * int(t[1:]) + 2].mean(axis=0) for t, _ in kinds])
    table = read_rows(Path(content["folder"]) / "pairs.parquet")
    found = table["similarity_none"].to_numpy().reshape(len(kinds), len(kinds))
    np.testing.assert_allclose(found, similarities(means, means), atol=1e-5)
    assert content["people_from"] == "templates"
    assert content["systems"][0]["genuine_pairs"] == len(kinds)

    listed(home / "wrong.csv", "template_a,template_b,same", [("t0", "t0", 1), ("t0", "t5", 1)])
    wrong = invoke(*words(home, *more, pairs="wrong.csv"))
    one_line(wrong, Exit.INPUT, "wrong.csv line 3: same: expected 0")
    listed(home / "lacks.csv", "template_a,template_b", [("t0", "t7")])
    lacks = invoke(*words(home, *more, pairs="lacks.csv"))
    one_line(lacks, Exit.INPUT, "lacks.csv: 1 of 2 templates that --templates lacks: t7")


def test_people_come_from_the_pairs_where_folders_do_not_fit(home: Path) -> None:
    # somebody is said to be in two folders
    rows = [(a, b, int(same or {a[:3], b[:3]} == {"ann", "bob"})) for a, b, same in every_pair()]
    listed(home / "joined.csv", "name_a,name_b,same", list(rows))
    result = invoke(*words(home, "--json", pairs="joined.csv"))
    assert result.exit_code == Exit.DONE, result.output
    content = json.loads(result.stdout)
    assert (content["people_from"], content["systems"][0]["people"]) == ("pairs", 3)
    stated = invoke(*words(home, "--identity", "^([a-z]+)/", pairs="joined.csv"))
    one_line(stated, Exit.INPUT, "joined.csv line", "--identity: expected people as the pairs")
    listed(home / "torn.csv", "name_a,name_b,same", [*rows, ("ann/0.png", "bob/1.png", 0)])
    torn = invoke(*words(home, pairs="torn.csv"))
    one_line(torn, Exit.INPUT, f"torn.csv line {len(rows) + 2}: same: expected 1")


@pytest.mark.parametrize(
    ("rows", "more", "fault"),
    [
        ([("ann/0.png", "eve/0.png", 0)], (), "1 of 2 names that are not in the dataset: eve/0"),
        (
            [("ann/0.png", "ann/broken.png", 1)],
            (),
            "bad.csv: 1 images cannot be used: ann/broken.png (",
        ),
        ([("ann/0.png", "ann/1.png", 1)], (), "bad.csv: expected pairs of two people as well"),
        ([("ann/0.png", "bob/1.png", 0)], (), "bad.csv: expected pairs of one person as well"),
        ([("ann/0.png", "bob/1.png", "?")], (), "bad.csv line 2: same: expected 0 or 1"),
        ([("ann/0.png", "bob/1.png", 0)], ("--purifier", "medien(3)"), "purifiers[0]: 'medien(3)'"),
        ([("ann/0.png", "bob/1.png", 0)], ("--resize", "12"), "--resize: expected height x width"),
        ([("ann/0.png", "bob/1.png", 0)], ("--protocol", "lwf"), "protocol"),
        ([("ann/0.png", "bob/1.png", 0)], ("--protocol", "ijb"), "--templates: expected files"),
        ([("ann/0.png", "bob/1.png", 0)], ("--templates", "x.csv"), "--templates: expected none"),
        ([("ann/0.png", "bob/1.png", 0)], ("--weights", "absent.pt"), "--weights: expected the"),
    ],
)
def test_mistakes_are_one_line(
    home: Path, rows: list[tuple[object, ...]], more: tuple[object, ...], fault: str
) -> None:
    listed(home / "bad.csv", "name_a,name_b,same", rows)
    one_line(invoke(*words(home, *more, pairs="bad.csv")), Exit.INPUT, fault)


@pytest.mark.slow
def test_real_faces(data: Path, tmp_path: Path) -> None:
    for name in ("att_faces.zip", "weights/mobilefacenet.pt"):
        if not (data / name).is_file():
            pytest.skip(f"no {name} in {data}")
    people = [f"s{number}" for number in range(1, 9)]
    rows = [
        (f"{one}/{i}", f"{other}/{j}", int(one == other))
        for one, other in itertools.combinations_with_replacement(people, 2)
        for i, j in ((1, 2), (3, 4), (5, 6))
    ]
    pairs = listed(tmp_path / "att.csv", "name_a,name_b,same", list(rows))
    given = ["verify-faces", pairs, "--dataset", data / "att_faces.zip", "--scale", 0.85]
    given += ["--weights", data / "weights/mobilefacenet.pt", "--store", tmp_path, "--json"]
    torch.manual_seed(0)
    result = invoke(*given, "--include", "*/s[1-8]/*")
    assert result.exit_code == Exit.DONE, result.output
    system = json.loads(result.stdout)["systems"][0]
    assert (system["genuine_pairs"], system["impostor_pairs"]) == (24, 84)
    # 0.983 was measured on all pairs of all 40 people
    assert system["auc"]["value"] > 0.93
