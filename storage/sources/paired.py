"""Clean images beside the same images already attacked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from storage.errors import DatasetNotFound, SourceError
from storage.sources.archive import Zip
from storage.sources.folder import Folder, file_hint, file_stamp, read_file
from storage.sources.items import JSON, Content, Item, identity_of, require_text
from storage.sources.listing import is_item


@dataclass(frozen=True)
class Paired:
    """A folder or zip with clean images in one sub-folder and a further one for each attack.

    The items are the clean images, by the rules of ``folder`` or ``zip``. The attacked version of
    ``cat/1.png`` is the file in the attack's folder whose path is the same up to the suffix.

    Args:
        path: the folder, or a zip, which is never unpacked.
        clean: name of the sub-folder with the clean images.
        labels_csv: a labels file relative to the clean folder, as for ``folder`` and ``zip``.
        prefix: the folder inside ``path`` that holds these sub-folders.
    """

    kind: ClassVar[str] = "paired"
    doc: ClassVar[str] = "clean images beside one folder for each attack, in a folder or a zip"

    path: Path
    clean: str = "clean"
    labels_csv: str | None = None
    prefix: str = ""

    def __post_init__(self) -> None:
        """Accept the path as text and check the options."""
        object.__setattr__(self, "path", Path(self.path))
        require_text("clean", self.clean, least=1)
        require_text("prefix", self.prefix)
        if self.labels_csv is not None:
            require_text("labels_csv", self.labels_csv, least=1)

    def identity(self) -> dict[str, JSON]:
        """Kind and options."""
        return identity_of(self, without=() if self.prefix else ("prefix",))

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the sub-folders of the clean folder, or those of the labels file."""
        return self._clean.classes

    def items(self) -> Iterator[Item]:
        """List the clean images, with the stamps of ``folder`` or ``zip``.

        Raises:
            DatasetNotFound: where there is no clean folder.
        """
        return self._clean.items()

    def read(self, items: Sequence[Item]) -> Iterator[Content]:
        """Yield the bytes of the clean images.

        Raises:
            DatasetNotFound: where there is no clean folder.
        """
        return self._clean.read(items)

    def attacks(self) -> tuple[str, ...]:
        """Names of the attacks: all sub-folders but the clean one, sorted.

        Raises:
            DatasetNotFound: where the folder does not exist.
        """
        if self.path.is_file():
            inside = Zip(self.path, prefix=self.prefix).stamps()
            names = {name.partition("/")[0] for name in inside if "/" in name}
        elif self.root.is_dir():
            names = {folder.name for folder in self.root.iterdir() if folder.is_dir()}
        else:
            raise DatasetNotFound(f"expected a folder of image folders at {self.root}")
        return tuple(sorted(name for name in names - {self.clean} if is_item(f"{name}/x")))

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
    def root(self) -> Path:
        """What holds the sub-folders; of a zip, a path into it that only people can follow."""
        return self.path / self.prefix.strip("/")

    def zipped(self, folder: str, labels_csv: str | None = None) -> Zip | None:
        """A sub-folder of a zip; None where the dataset is a folder."""
        if not self.path.is_file():
            return None
        prefix = "/".join(part for part in (self.prefix.strip("/"), folder) if part)
        return Zip(self.path, prefix=prefix, labels_csv=labels_csv)

    @property
    def _clean(self) -> Folder | Zip:
        inside = self.zipped(self.clean, self.labels_csv)
        return inside or Folder(self.root / self.clean, labels_csv=self.labels_csv)


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
        """List the clean items with the stamps of their attacked versions, and their sizes.

        An image without exactly one attacked version has a stamp that says so. In a zip the size
        is that of the clean image.

        Raises:
            DatasetNotFound: where there is no clean folder.
        """
        clean = list(self.paired.items())
        for item, found, stamp in zip(clean, self._matches(clean), self.stamps(clean), strict=True):
            hint = item.size_hint if len(found) == 1 else 0
            if hint and self._inside is None:
                hint = file_hint(self._root / found[0])
            yield item._replace(stamp=stamp, size_hint=hint)

    def read(self, items: Sequence[Item]) -> Iterator[Content]:
        """Yield the bytes of the attacked versions of the given clean items.

        Raises:
            DatasetNotFound: where the attack's folder has vanished.
        """
        matches = self._matches(items)
        contents = self._contents([found[0] for found in matches if len(found) == 1])
        for item, found in zip(items, matches, strict=True):
            if len(found) == 1:
                yield next(contents)
            elif found:
                yield SourceError(f"has several counterparts in {self.attack}: {found}")
            else:
                wanted = f"{_stem(item.name)}.*"
                yield SourceError(f"has no counterpart: expected {wanted} in {self._root}")

    def stamps(self, items: Sequence[Item]) -> list[str]:
        """Stamps of the attacked versions of the given clean items, as ``items`` states them.

        Only the folders of these items are looked at, or the zip's own list; no file is opened.

        Raises:
            DatasetNotFound: where the attack's folder has vanished.
        """
        known = {} if self._inside is None else self._inside.stamps()
        return [
            f"{len(found)} counterparts"
            if len(found) != 1
            else known.get(found[0]) or file_stamp(self._root / found[0])
            for found in self._matches(items)
        ]

    def _matches(self, items: Sequence[Item]) -> list[list[str]]:
        """For each clean item the attacked files with its path up to the suffix, sorted."""
        folders = {PurePosixPath(item.name).parent for item in items}
        matches = _by_stem(self._names(folders) if self._inside is None else self._inside.stamps())
        return [sorted(matches.get(_stem(item.name), [])) for item in items]

    def _names(self, folders: Iterable[PurePosixPath]) -> Iterator[str]:
        """The attacked files that lie in some folders."""
        if not self._root.is_dir():
            raise DatasetNotFound(f"expected a folder of attacked images at {self._root}")
        for folder in folders:
            if (self._root / folder).is_dir():
                with os.scandir(self._root / folder) as entries:
                    for entry in entries:
                        if is_item(entry.name) and entry.is_file():
                            yield (folder / entry.name).as_posix()

    def _contents(self, names: Sequence[str]) -> Iterator[Content]:
        if self._inside is None:
            return (read_file(self._root / name) for name in names)
        return self._inside.read([Item(name, None, "", 0) for name in names])

    @property
    def _root(self) -> Path:
        return self.paired.root / self.attack

    @property
    def _inside(self) -> Zip | None:
        return self.paired.zipped(self.attack)


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    stems: dict[str, list[str]] = {}
    for name in names:
        stems.setdefault(_stem(name), []).append(name)
    return stems
