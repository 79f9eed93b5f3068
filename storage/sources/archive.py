"""A zip of image files, read without being unpacked."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from storage.errors import DatasetNotFound, SourceError
from storage.sources.headers import size_hint
from storage.sources.items import JSON, Content, Item, identity_of, require_choice, require_text
from storage.sources.listing import (
    CLASS_FOLDERS,
    ORDERS,
    ClassFolder,
    Labels,
    Numbering,
    Order,
    check_numbering,
    is_item,
    labels_from_csv,
    labels_from_folders,
    ordered,
)

MAX_MEMBER_BYTES = 512 * 1024 * 1024
"""Largest member that is unpacked; its declared size is checked first and never exceeded."""

_ENCRYPTED = 0x1
_UNREADABLE = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError)


@dataclass(frozen=True)
class Zip:
    """Image files in a zip, which is never unpacked to disk.

    The rules are those of ``folder``: the sub-folders below the prefix, sorted by name, are the
    classes; hidden files and sidecars are left out.

    Args:
        path: the zip file.
        prefix: the folder inside the zip, such as ``chest_xray/test``, whose sub-folders are the
            classes.
        labels_csv: a CSV with the columns ``file``, ``label`` and optionally ``name``: inside the
            zip, relative to the prefix, or else a file beside the zip.
        order: ``name`` (sorted by path) or ``hash`` (a fixed shuffle, so that the first N items
            are of all classes).
        class_folder: which folder of a path is its class: the first one (``top``), or the one that
            holds the file (``parent``), for sets such as ``train/CAT`` beside ``test/CAT``.
        labels: what numbers the classes: the ``folders``' own order, or their places among the
            thousand of ``imagenet``, whose numbers or names the folders then bear.
    """

    kind: ClassVar[str] = "zip"
    doc: ClassVar[str] = "image files in a zip, with class sub-folders or a labels file"

    path: Path
    prefix: str = ""
    labels_csv: str | None = None
    order: Order = "name"
    class_folder: ClassFolder = "top"
    labels: Numbering = "folders"

    def __post_init__(self) -> None:
        """Accept the path as text and check the options."""
        object.__setattr__(self, "path", Path(self.path))
        require_text("prefix", self.prefix)
        if self.labels_csv is not None:
            require_text("labels_csv", self.labels_csv, least=1)
        require_choice("order", self.order, ORDERS)
        require_choice("class_folder", self.class_folder, CLASS_FOLDERS)
        check_numbering(self.labels, self.labels_csv)

    def identity(self) -> dict[str, JSON]:
        """Kind and options."""
        return identity_of(self, without=("labels",) if self.labels == "folders" else ())

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the sub-folders, those that the labels file states, or those of ImageNet."""
        with self._open() as archive:
            return self._labels(archive, self._members(archive)).classes

    def items(self) -> Iterator[Item]:
        """List the members; the stamp is CRC-32 and size.

        Raises:
            DatasetNotFound: where there is no such file.
            SourceError: where it is no zip, or the labels file cannot be used.
        """
        with self._open() as archive:
            members = self._members(archive)
            labels = self._labels(archive, members)
            for name in ordered(members, self.order):
                info = members[name]
                yield Item(name, labels.of(name), _stamp(info), self._hint(archive, info))

    def stamps(self) -> dict[str, str]:
        """Stamps of all members by name, from the zip's own list: no member is opened.

        Raises:
            DatasetNotFound: where there is no such file or prefix.
            SourceError: where it is no zip.
        """
        with self._open() as archive:
            return {name: _stamp(info) for name, info in self._members(archive).items()}

    def read(self, items: Sequence[Item]) -> Iterator[Content]:
        """Yield the bytes of the members.

        Raises:
            DatasetNotFound: where there is no such file.
            SourceError: where it is no zip.
        """
        with self._open() as archive:
            for item in items:
                try:
                    info = archive.getinfo(self._root + item.name)
                except KeyError:
                    yield SourceError("cannot be read: no such member in the zip")
                else:
                    yield _unpack(archive, info)

    @property
    def _root(self) -> str:
        prefix = self.prefix.strip("/")
        return f"{prefix}/" if prefix else ""

    def _open(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise DatasetNotFound(
                f"expected a zip file at {self.path}: {error.strerror}"
            ) from error
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise SourceError(f"expected a zip file at {self.path}, got: {error}") from error

    def _members(self, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
        """Items by name below the prefix; of two members with one name the last one counts."""
        root = self._root
        members = {
            info.filename[len(root) :]: info
            for info in archive.infolist()
            if info.filename.startswith(root) and not info.is_dir()
        }
        if root and not members:
            folders = sorted({info.filename.rpartition("/")[0] for info in archive.infolist()})
            raise DatasetNotFound(
                f"expected files under {root} in {self.path}, got the folders {folders[:10]}"
            )
        return {name: info for name, info in members.items() if is_item(name)}

    def _labels(self, archive: zipfile.ZipFile, names: dict[str, zipfile.ZipInfo]) -> Labels:
        if self.labels_csv is None:
            return labels_from_folders(names, self.class_folder, self.labels)
        where = self._root + self.labels_csv
        beside = self.path.parent / self.labels_csv
        if where in archive.namelist():
            data = _unpack(archive, archive.getinfo(where))
            if isinstance(data, SourceError):
                raise SourceError(f"{where} in {self.path} {data}")
            parent = PurePosixPath(self.labels_csv).parent.as_posix()
            folder = "" if parent == "." else parent
            return labels_from_csv(data, f"{where} in {self.path}", folder)
        if beside.is_file():
            return labels_from_csv(beside.read_bytes(), str(beside), "")
        raise SourceError(f"expected a labels file {where} in {self.path} or at {beside}")

    def _hint(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
        if _refusal(info) is not None:
            return 0
        try:
            with archive.open(info) as stream:
                return size_hint(stream)
        except _UNREADABLE:
            return 0


def _stamp(info: zipfile.ZipInfo) -> str:
    return f"{info.CRC:08x}-{info.file_size}"


def _refusal(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & _ENCRYPTED:
        return "cannot be read: it is encrypted"
    if info.file_size > MAX_MEMBER_BYTES:
        return (
            f"is too large (zip bomb?): expected at most {MAX_MEMBER_BYTES:,} bytes, "
            f"got {info.file_size:,} from {info.compress_size:,} compressed"
        )
    return None


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes | SourceError:
    """Unpack a member, never to more than its declared size, and check its CRC-32."""
    if (refusal := _refusal(info)) is not None:
        return SourceError(refusal)
    try:
        return archive.read(info)
    except _UNREADABLE as error:
        return SourceError(f"cannot be unpacked: {error}")
