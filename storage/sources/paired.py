"""Clean images beside the same images already attacked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from storage.errors import DatasetNotFound, SourceError
from storage.sources.folder import Folder, file_hint, file_stamp, read_file
from storage.sources.items import JSON, Content, Item, identity_of, require_text
from storage.sources.listing import is_item


@dataclass(frozen=True)
class Paired:
    """A folder with clean images in one sub-folder and a further one for each attack.

    The items are the clean images, by the rules of ``folder``. The attacked version of
    ``cat/1.png`` is the file in the attack's folder whose path is the same up to the suffix.

    Args:
        path: the folder.
        clean: name of the sub-folder with the clean images.
        labels_csv: a labels file relative to the clean folder, as for ``folder``.
    """

    kind: ClassVar[str] = "paired"
    doc: ClassVar[str] = "a folder of clean images beside one folder for each attack"

    path: Path
    clean: str = "clean"
    labels_csv: str | None = None

    def __post_init__(self) -> None:
        """Accept the path as text and check the options."""
        object.__setattr__(self, "path", Path(self.path))
        require_text("clean", self.clean, least=1)
        if self.labels_csv is not None:
            require_text("labels_csv", self.labels_csv, least=1)

    def identity(self) -> dict[str, JSON]:
        """Kind and options."""
        return identity_of(self)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the sub-folders of the clean folder, or those of the labels file."""
        return self._folder.classes

    def items(self) -> Iterator[Item]:
        """List the clean images; the stamp is size and modification time.

        Raises:
            DatasetNotFound: where there is no clean folder.
        """
        return self._folder.items()

    def read(self, items: Sequence[Item]) -> Iterator[Content]:
        """Yield the bytes of the clean images.

        Raises:
            DatasetNotFound: where there is no clean folder.
        """
        return self._folder.read(items)

    def attacks(self) -> tuple[str, ...]:
        """Names of the attacks: all sub-folders but the clean one, sorted.

        Raises:
            DatasetNotFound: where the folder does not exist.
        """
        if not self.path.is_dir():
            raise DatasetNotFound(f"expected a folder of image folders at {self.path}")
        return tuple(
            sorted(
                folder.name
                for folder in self.path.iterdir()
                if folder.is_dir() and folder.name != self.clean and is_item(f"{folder.name}/x")
            )
        )

    def counterpart(self, attack: str) -> Counterpart:
        """The attacked versions of the clean images.

        Raises:
            DatasetNotFound: where there is no such attack.
        """
        if attack not in (known := self.attacks()):
            raise DatasetNotFound(
                f"expected an attack of {self.path}, one of {list(known)}, got {attack!r}"
            )
        return Counterpart(self, attack)

    @property
    def _folder(self) -> Folder:
        return Folder(self.path / self.clean, labels_csv=self.labels_csv)


@dataclass(frozen=True)
class Counterpart:
    """The images of a paired dataset after one attack, under the names of the clean ones.

    Args:
        paired: the dataset.
        attack: name of the attack's sub-folder.
    """

    kind: ClassVar[str] = "paired-attack"
    doc: ClassVar[str] = "the attacked versions of a paired dataset"

    paired: Paired
    attack: str

    def identity(self) -> dict[str, JSON]:
        """Kind and options of the dataset, and the attack."""
        return {**self.paired.identity(), "kind": self.kind, "attack": self.attack}

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes of the clean images."""
        return self.paired.classes

    def items(self) -> Iterator[Item]:
        """List the clean items with the stamps and sizes of their attacked versions.

        An image without exactly one attacked version has a stamp that says so.

        Raises:
            DatasetNotFound: where there is no clean folder.
        """
        clean = list(self.paired.items())
        for item, found in zip(clean, self._matches(clean), strict=True):
            if len(found) != 1:
                yield item._replace(stamp=f"{len(found)} counterparts", size_hint=0)
                continue
            path = self._root / found[0]
            yield item._replace(stamp=file_stamp(path), size_hint=file_hint(path))

    def read(self, items: Sequence[Item]) -> Iterator[Content]:
        """Yield the bytes of the attacked versions of the given clean items.

        Raises:
            DatasetNotFound: where the attack's folder has vanished.
        """
        for item, found in zip(items, self._matches(items), strict=True):
            if len(found) == 1:
                yield read_file(self._root / found[0])
            elif found:
                yield SourceError(f"has several counterparts in {self.attack}: {found}")
            else:
                wanted = f"{_stem(item.name)}.*"
                yield SourceError(f"has no counterpart: expected {wanted} in {self._root}")

    def stamps(self, items: Sequence[Item]) -> list[str]:
        """Stamps of the attacked versions of the given clean items, as ``items`` states them.

        Only the folders of these items are looked at, and no file is opened.

        Raises:
            DatasetNotFound: where the attack's folder has vanished.
        """
        return [
            file_stamp(self._root / found[0]) if len(found) == 1 else f"{len(found)} counterparts"
            for found in self._matches(items)
        ]

    def _matches(self, items: Sequence[Item]) -> list[list[str]]:
        """For each clean item the attacked files with its path up to the suffix, sorted."""
        if not self._root.is_dir():
            raise DatasetNotFound(f"expected a folder of attacked images at {self._root}")
        names: list[str] = []
        for folder in {PurePosixPath(item.name).parent for item in items}:
            if (self._root / folder).is_dir():
                with os.scandir(self._root / folder) as entries:
                    names.extend(
                        (folder / entry.name).as_posix()
                        for entry in entries
                        if is_item(entry.name) and entry.is_file()
                    )
        matches = _by_stem(names)
        return [sorted(matches.get(_stem(item.name), [])) for item in items]

    @property
    def _root(self) -> Path:
        return self.paired.path / self.attack


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _by_stem(names: Sequence[str]) -> dict[str, list[str]]:
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(_stem(name), []).append(name)
    return stems
