"""Lists of pairs and templates: what is read, and how what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.errors import SpecError
from tasks.verify_lists import PairList, find_names, read_pairs, read_templates

LFW = """2\t1
Ann_Lee\t1\t2
Bob\t3\tAnn_Lee\t10
Bob\t1\t3
Ann_Lee\t2\tCleo\t1
"""


def pairs_of(folder: Path, text: str, protocol: str = "pairs", name: str = "list.csv") -> PairList:
    (folder / name).write_text(text)
    return read_pairs(folder / name, protocol)


def spelled(found: PairList) -> list[tuple[str, str, int]]:
    names = list(found.names)
    columns = found.first.tolist(), found.second.tolist(), found.same.tolist()
    return [(names[i], names[j], same) for i, j, same in zip(*columns, strict=True)]


def test_pairs_by_name(tmp_path: Path) -> None:
    text = "\ufeffsame, name_b ,name_a,note\n1,a.png,b.png,x\n\nno,c d.png,b.png,\n"
    found = pairs_of(tmp_path, text)
    assert spelled(found) == [("b.png", "a.png", 1), ("b.png", "c d.png", 0)]
    assert found.folds is None
    assert found.where(1).endswith("list.csv line 4")


def test_pairs_with_folds(tmp_path: Path) -> None:
    found = pairs_of(tmp_path, "name_a,name_b,same,fold\na,b,TRUE,3\na,c,0,4\n", "lfw")
    assert found.folds is not None
    assert found.folds.tolist() == [3, 4]


def test_the_classic_pairs_file(tmp_path: Path) -> None:
    found = pairs_of(tmp_path, LFW, "lfw", "pairs.txt")
    assert spelled(found) == [
        ("Ann_Lee/Ann_Lee_0001", "Ann_Lee/Ann_Lee_0002", 1),
        ("Bob/Bob_0003", "Ann_Lee/Ann_Lee_0010", 0),
        ("Bob/Bob_0001", "Bob/Bob_0003", 1),
        ("Ann_Lee/Ann_Lee_0002", "Cleo/Cleo_0001", 0),
    ]
    assert found.folds is not None
    assert found.folds.tolist() == [0, 0, 1, 1]
    views = pairs_of(tmp_path, LFW.replace("2\t1\n", "2\n", 1), "lfw", "dev.txt")
    assert views.folds is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", r"list.csv line 1: expected the columns name_a, name_b, same and perhaps fold; .*"),
        ("name_a,same\n", r"line 1: .*; name_b missing in name_a, same$"),
        ("name_a,name_b,same\n", r"list.csv: expected pairs, got none"),
        ("name_a,name_b,same\na,b,1\na,b\n", r"list.csv line 3: expected 3 columns, got 2"),
        ("name_a,name_b,same\na,,1\n", r"line 2: name_b: expected a value, got nothing"),
        ("name_a,name_b,same\na,b,2\n", r"line 2: same: expected 0 or 1, got '2'"),
        ("name_a,name_b,same,fold\na,b,1,-1\n", r"line 2: expected a whole number, got '-1'"),
    ],
)
def test_bad_pairs_are_named_by_their_line(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(SpecError, match=fault):
        pairs_of(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", r"pairs.txt line 1: expected the number of folds .* got 'nothing'"),
        ("ten 3\n", r"line 1: .* got 'ten 3'"),
        (LFW + "Bob 1\n", r"line 6: expected 'name 1 2' or 'name 1 other 2', got 'Bob 1'"),
        (LFW.replace("\t10", "\tx"), r"line 3: expected a whole number, got 'x'"),
        (LFW + "Bob 1 4\n", r"expected 4 pairs, as line 1 says, got 5"),
    ],
)
def test_bad_classic_files_are_named_by_their_line(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(SpecError, match=fault):
        pairs_of(tmp_path, text, "lfw", "pairs.txt")


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"name_a,name_b,same\na,\xff,1\n")
    with pytest.raises(SpecError, match=r"list.csv line 2: expected UTF-8 text"):
        read_pairs(tmp_path / "list.csv", "pairs")
    with pytest.raises(SpecError, match=r"at .*absent.csv: No such file"):
        read_pairs(tmp_path / "absent.csv", "pairs")
    with pytest.raises(SpecError, match=r"expected a CSV file for protocol pairs, got pairs.txt"):
        pairs_of(tmp_path, LFW, "pairs", "pairs.txt")


def test_templates(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "name,template,media,person\n1.png,t9,m1,ann\n2.png,t9,m2,ann\n1.png,t4,m1,ann\n"
    )
    (tmp_path / "b.csv").write_text("person,media,template,name\nbob,m1,t5,3.png\n")
    found = read_templates([tmp_path / "a.csv", tmp_path / "b.csv"])
    assert found.names == ["1.png", "2.png", "1.png", "3.png"]
    assert list(found.templates) == ["t9", "t4", "t5"]
    assert found.template.tolist() == [0, 0, 1, 2]
    assert found.media.tolist() == [0, 1, 0, 0]
    assert found.people.tolist() == [0, 0, 0, 1]
    pairs = pairs_of(tmp_path, "template_a,template_b\nt4,t5\n", "ijb")
    assert spelled(pairs) == [("t4", "t5", -1)]


def test_a_template_of_two_people_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name,template,media,person\n1,t,m,ann\n2,t,m,bob\n")
    with pytest.raises(SpecError, match=r"a.csv line 3: person: .* got 'bob' as well .* 't'"):
        read_templates([tmp_path / "a.csv"])
    (tmp_path / "a.csv").write_text("name,template,media,person\n")
    with pytest.raises(SpecError, match=r"--templates: expected .* got none in .*a.csv"):
        read_templates([tmp_path / "a.csv"])


def test_names_are_found_by_their_end() -> None:
    there = ["att/s1/1.pgm", "att/s1/2.pgm", "att/s2/1.pgm", "att/s2/3.b.pgm", "1.pgm"]
    wanted = ["s1/1.pgm", "./s1/2", "att/s2/1.pgm", "3.b", "1.pgm", "s2\\1"]
    assert find_names(wanted, there, "list").tolist() == [0, 1, 2, 3, 4, 2]


def test_names_that_are_not_there_are_listed() -> None:
    with pytest.raises(SpecError, match=r"^list: 2 of 3 names .* not in the dataset: x.png, y$"):
        find_names(["a.png", "x.png", "y"], ["b/a.png"], "list")
    with pytest.raises(SpecError, match=r"12 of 12 names .*: n0, .*, n9 and 2 more$"):
        find_names([f"n{i}" for i in range(12)], [], "list")
    with pytest.raises(SpecError, match=r"1 of 1 names that mean several images: a.png$"):
        find_names(["a.png"], ["b/a.png", "c/a.png"], "list")
