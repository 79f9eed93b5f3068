"""What a defence sees of its folder, and that it is known by exactly that."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.errors import DefenseError
from tasks.sandbox import contents as module
from tasks.sandbox.contents import Unseen, contents


def written(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def names(folder: Path, unseen: Unseen | None = None) -> tuple[list[str], list[str]]:
    """What is seen and what is not."""
    found = contents(folder, unseen or Unseen())
    hidden = sorted(path.relative_to(folder).as_posix() for path in found.hidden)
    return [name for name, _ in found.files], hidden


def digest(folder: Path, unseen: Unseen | None = None) -> str:
    return contents(folder, unseen or Unseen()).digest(folder)


def test_everything_is_seen_but_stores_data_and_what_python_or_git_keep(tmp_path: Path) -> None:
    written(tmp_path, "defense.py", "deep/er/w.any", ".git/HEAD", "__pycache__/x.pyc", ".env")
    written(tmp_path, "store/.lock", "store/data/x", "mine/y", "photos/1.png", "p.zip")
    (tmp_path / "link").symlink_to("/etc/passwd")
    unseen = Unseen((tmp_path / "mine",), (tmp_path / "photos", tmp_path / "p.zip"))
    seen, hidden = names(tmp_path, unseen)
    assert seen == ["deep", "deep/er", "deep/er/w.any", "defense.py", "link"]
    assert hidden == [".env", ".git", "__pycache__", "mine", "p.zip", "photos", "store"]


@pytest.mark.parametrize("above", [".", ".."])
def test_where_a_data_set_lies_around_it_only_what_is_no_image_is_seen(
    tmp_path: Path, above: str
) -> None:
    own = tmp_path / "own"
    written(own, "defense.py", "w.pt", "1.png", "cat/1.jpg", "cat/2.unknown", "net/a.py", "net/b")
    assert names(own, Unseen(data=((own / above).resolve(),))) == (
        ["defense.py", "net", "net/a.py", "w.pt"],
        ["1.png", "cat", "net/b"],
    )


def test_any_change_of_what_is_seen_is_another_digest_and_nothing_else_is(tmp_path: Path) -> None:
    written(tmp_path, "defense.py", "deep/w.any", "photos/1.png")
    unseen = Unseen(data=(tmp_path / "photos",))
    found = [digest(tmp_path, unseen)]
    written(tmp_path, ".hidden", "__pycache__/x", "deep/__pycache__/y", "photos/2.png")
    assert digest(tmp_path, unseen) == found[0]
    # the same size and time of change
    times = (tmp_path / "deep" / "w.any").stat()
    (tmp_path / "deep" / "w.any").write_text("deep/w.ANY")
    os.utime(tmp_path / "deep" / "w.any", ns=(times.st_atime_ns, times.st_mtime_ns))
    found.append(digest(tmp_path, unseen))
    (tmp_path / "deep" / "w.any").rename(tmp_path / "deep" / "v.any")
    found.append(digest(tmp_path, unseen))
    (tmp_path / "link").symlink_to("a")
    found.append(digest(tmp_path, unseen))
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("b")
    found.append(digest(tmp_path, unseen))
    found.append(digest(tmp_path))
    assert len(set(found)) == 6


def test_the_digest_is_that_of_a_copy_and_files_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for copy in ("one", "two"):
        written(tmp_path / copy, "defense.py", "deep/w.any")
    first = digest(tmp_path / "one")
    assert digest(tmp_path / "two") == first
    monkeypatch.setattr(module.hashlib, "file_digest", None)
    assert digest(tmp_path / "one") == first


def test_a_folder_of_far_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "defense.py", "a", "b")
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(module.MOST_BYTES)
    with pytest.raises(DefenseError, match=r"more than 2 GB of files.* a folder of its own"):
        contents(tmp_path, Unseen())
    assert contents(tmp_path, Unseen(data=(tmp_path / "large",))).hidden == [tmp_path / "large"]
    monkeypatch.setattr(module, "MOST_FILES", 3)
    with pytest.raises(DefenseError, match=r"holds more than 3 files, .* a folder of its own"):
        contents(tmp_path, Unseen())


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(DefenseError, match=r"path: cannot read .*absent: No such file"):
        contents(tmp_path / "absent", Unseen())
    written(tmp_path, "defense.py")
    found = contents(tmp_path, Unseen())
    (tmp_path / "defense.py").unlink()
    with pytest.raises(DefenseError, match=r"path: cannot read .*defense\.py: No such file"):
        found.digest(tmp_path)
