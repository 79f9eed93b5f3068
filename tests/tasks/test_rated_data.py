"""Tables of opinions: what is taken from them, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tasks.errors import ModelError, SpecError
from tests.merging import merged
from tests.tasks.rated_pictures import write_table
from tests.tasks.rated_training import TABLE, begun, prepare, rated, trainer


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and a table with a column of sets; nothing is trained."""
    return prepare(tmp_path_factory.mktemp("rated"))


def test_the_column_of_sets_says_which_images_are_held_out(drawn: Path) -> None:
    training = trainer(drawn)
    table = [line.split(",") for line in (drawn / "scores.csv").read_text().split()[1:]]
    decoded = {}
    for chunk in range(3):
        ref = training.data._ref(training.data.marks[chunk])
        rows = pq.read_table(training.data.bench.store.rows(ref))
        decoded |= dict(zip(rows["id"].to_pylist(), rows["name"].to_pylist(), strict=True))
    for data, wanted in ((rated(training), "training"), (rated(training, held_out=True), "test")):
        mine = [(name, float(score)) for name, score, part in table if part == wanted]
        used = [image for chunk in data.rated for image in chunk]
        assert [(decoded[image.id], image.score) for image in used] == mine
        assert data.labels.tolist() == pytest.approx([score for _, score in mine], rel=1e-6)
        assert (data.count, data.rejected, sum(data.counts)) == (len(mine), 0, len(mine))
        assert [len(data.chunk(index)) for index in range(3)] == data.counts
    assert (training.data.count, training.held_out.count) == (16, 4)
    assert training.data.node.fingerprint == training.held_out.node.fingerprint


def test_batches_have_the_images_of_their_labels(drawn: Path) -> None:
    data = rated(trainer(drawn))
    known = {
        image.tobytes(): label
        for index in range(data.chunk_count)
        for image, label in zip(
            data.chunk(index), [one.score for one in data.rated[index]], strict=True
        )
    }
    for window in (1 << 30, 1):
        seen = []
        for pixels, labels in data.batches(0, seed=3, batch=4, window_bytes=window):
            seen += [image.numpy().tobytes() for image in pixels]
            assert labels.tolist() == pytest.approx([known[key] for key in seen[-4:]], rel=1e-6)
        assert len(set(seen)) == 16


ROWS = [(f"{number}.png", 1 + number / 10) for number in range(10)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures, whose names are those of ROWS."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "pictures").mkdir()
    for name, _ in ROWS:
        (folder / "pictures" / name).write_bytes(b"never decoded")
    return folder


SPLIT_BY_NAME = {
    "dataset": {"exclude": "[0-2].png"},
    "held_out": {"kind": "folder", "path": "pictures", "include": "[0-2].png"},
}
HEADER = ("image_name", "MOS")


@pytest.mark.parametrize(
    ("rows", "header", "expected"),
    [
        (ROWS, ("file", "MOS"), "opinions: .* columns image_name, MOS; image_name missing in file"),
        ([*ROWS[:4], ("4.png", "n/a"), ("5.png", "inf"), *ROWS[6:]], HEADER,
         r"opinions.score: .* got 2 others: 'n/a' \(line 6\), 'inf' \(line 7\)"),
        ([*ROWS[:9], ("9.png", "")], HEADER, "line 11: MOS: expected a value, got nothing"),
        ([*ROWS, ROWS[2]], HEADER, "opinions.name: .* every image once, got 1 more often: 2.png"),
        ([*ROWS, ("pictures/../2.png", 2)], HEADER, "opinions.name: .* got 1 other names of 11"),
        ([*ROWS, ("2", 2)], HEADER, "opinions.name: .* 1 images of held_out have several scores"),
        (ROWS[:-2], HEADER, r"every image of dataset .* got none for 2 of 7: 8.png, 9.png"),
        (ROWS[1:], HEADER, r"every image of held_out .* got none for 1 of 3: 0.png"),
        ([*ROWS, ("x.png", 3)], HEADER, "opinions.name: .* got 1 other names of 11: x.png"),
        ([(name, 50) for name, _ in ROWS], HEADER, "differ, got 50 for all of 7 images of dataset"),
        ([(n, 3 if n < "3" else s) for n, s in ROWS], HEADER, "got 3 for all of 3 images of held"),
        ([], HEADER, "opinions.path: .* expected scores, got none"),
    ],
)  # fmt: skip
def test_mistakes_in_a_table_are_named_before_images_are_decoded(
    plain: Path, tmp_path: Path, rows: list[Any], header: tuple[str, ...], expected: str
) -> None:
    path = write_table(tmp_path / "t.csv", rows, header)
    opinions = {"path": str(path), "split": None}
    with pytest.raises(SpecError, match=expected):
        begun(plain, opinions={**TABLE, **opinions}, **SPLIT_BY_NAME).check()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"opinions": {**TABLE, "path": "no.csv"}}, "opinions.path: expected a table 'no.csv'"),
        ({"opinions": {"name": ""}}, "opinions.name: .* at least 1 character, got ''"),
        ({"opinions": {**TABLE, "dataset": "test"}}, "opinions: held_out: expected another value"),
        (
            {"opinions": {**TABLE, "held_out": "tets"}},
            "opinions.held_out: .* set, such as test, training, validation; got 'tets'",
        ),
        ({"opinions": {**TABLE, "split": None}}, "held_out: expected a value, got nothing"),
        (
            {
                "opinions": {**TABLE, "split": None},
                "held_out": {"kind": "folder", "path": "pictures", "include": "00*"},
            },
            "held_out: expected images that are not in dataset, got 10 of them: 000.png, ",
        ),
        ({"distortions": ["noise"]}, "distortions, unseen: expected none beside opinions"),
        ({"unseen": ["noise"]}, "distortions, unseen: expected none beside opinions"),
        ({"initial": "absent.pth"}, "initial: expected a file, got .*absent.pth"),
    ],
)
def test_mistakes_are_named_before_images_are_decoded(
    drawn: Path, change: dict[str, Any], expected: str
) -> None:
    with pytest.raises((SpecError, ModelError), match=expected):
        begun(drawn, **change).check()


def test_partial_passes_over_what_has_no_other_half(plain: Path, tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.csv", [*ROWS[:-1], ("x.png", 3), ("y.png", 4)])
    opinions = {**TABLE, "path": str(path), "split": None, "partial": True}
    training = begun(plain, opinions=opinions, **SPLIT_BY_NAME)
    training.check()
    assert rated(training).unrated == ["9.png"]
    assert rated(training, held_out=True).unknown == ["x.png", "y.png"]
    assert sorted(rated(training).wanted) == [f"{number}.png" for number in range(3, 9)]


def test_images_that_a_limit_leaves_out_are_not_missed(plain: Path, tmp_path: Path) -> None:
    opinions = {**TABLE, "path": str(write_table(tmp_path / "t.csv", ROWS)), "split": None}
    changes = merged(SPLIT_BY_NAME, {"dataset": {"limit": 3, "exclude": "[0-2].png"}})
    training = begun(plain, opinions=opinions, **changes)
    training.check()
    assert sorted(rated(training).wanted) == ["3.png", "4.png", "5.png"]
