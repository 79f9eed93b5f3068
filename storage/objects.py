"""Objects of a cloud store, under the part of pathlib's interface that stores use.

An object is written whole or not at all, and is read as it was last written: S3, Google Cloud
Storage and Azure promise both. Folders do not exist; a prefix that objects share stands for one.

What fails in passing is tried again, but for the two conditional writes: when the answer to one is
lost, only who reads the object back can tell whether it was written.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlparse

from storage.errors import StoreError, StoreFault
from storage.patience import patiently

SCHEMES = ("s3", "gs", "az", "abfs", "memory")
"""Schemes of URLs of cloud stores; ``memory`` is for tests and lives as long as the process."""
T = TypeVar("T")


@lru_cache(maxsize=32)
def _opened(url: str) -> Any:
    """The store behind a URL, made once a process; credentials come from the environment."""
    try:
        from obstore import store
    except ModuleNotFoundError:
        raise StoreError(
            f"store: {url} needs the package obstore: pip install 'image-defender[s3]'"
        ) from None
    if url.startswith("memory:"):
        return store.MemoryStore()
    plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    options: Any = {"client_options": {"allow_http": True}} if plain else {}
    with _explained(url):
        return store.from_url(url, **options)


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """Say in one sentence what an error of the store means; what is missing stays missing."""
    from obstore import exceptions

    lasting = (
        exceptions.PermissionDeniedError,
        exceptions.UnauthenticatedError,
        exceptions.InvalidPathError,
        exceptions.UnknownConfigurationKeyError,
        exceptions.NotSupportedError,
    )
    try:
        yield
    except (FileNotFoundError, FileExistsError, exceptions.PreconditionError):
        raise
    except exceptions.AlreadyExistsError as error:
        raise FileExistsError(place) from error
    except exceptions.NotFoundError as error:
        raise FileNotFoundError(place) from error
    except lasting as error:
        raise StoreError(f"store: cannot use {place}: {_first(error)}") from error
    except exceptions.BaseError as error:
        raise StoreFault(f"store: cannot use {place}: {_first(error)}") from error


def _first(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]


@dataclass(frozen=True)
class ObjectPath:
    """An object, or the prefix of several, in a cloud store.

    Args:
        url: of the store: scheme, bucket and a prefix, without a slash at the end.
        key: name within the store, without slashes at its ends.

    Raises:
        StoreError: where the store cannot be used, and the reason lasts.
        StoreFault: where the reason may pass, and did not while it was tried again.
    """

    url: str
    key: str = ""

    @cached_property
    def _store(self) -> Any:
        return _opened(self.url)

    def _once(self, action: Callable[[], T]) -> T:
        """One attempt at a request; its errors say what they mean."""
        with _explained(str(self)):
            return action()

    def _patiently(self, action: Callable[[], T]) -> T:
        """A request, tried again where it fails in passing."""
        return patiently(lambda: self._once(action))

    def __truediv__(self, other: str) -> ObjectPath:
        return ObjectPath(self.url, (PurePosixPath(self.key) / other).as_posix())

    def __str__(self) -> str:
        return f"{self.url}/{self.key}" if self.key else self.url

    def __lt__(self, other: ObjectPath) -> bool:
        return str(self) < str(other)

    @property
    def name(self) -> str:
        """The last part of the key."""
        return PurePosixPath(self.key).name

    @property
    def stem(self) -> str:
        """The name without its last suffix."""
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        """The last suffix of the name."""
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> ObjectPath:
        """What this lies in."""
        key = PurePosixPath(self.key).parent.as_posix()
        return ObjectPath(self.url, "" if key == "." else key)

    def with_name(self, name: str) -> ObjectPath:
        """Another object beside this one."""
        return ObjectPath(self.url, PurePosixPath(self.key).with_name(name).as_posix())

    def with_suffix(self, suffix: str) -> ObjectPath:
        """The object beside this one that differs in the suffix."""
        return ObjectPath(self.url, PurePosixPath(self.key).with_suffix(suffix).as_posix())

    def relative_to(self, other: ObjectPath) -> PurePosixPath:
        """The part of the key below another.

        Raises:
            ValueError: where this does not lie below it.
        """
        if self.url != other.url:
            raise ValueError(f"expected a place below {other}, got {self}")
        return PurePosixPath(self.key).relative_to(other.key)

    def as_uri(self) -> str:
        """The URL of the object."""
        return str(self)

    def resolve(self) -> ObjectPath:
        """Itself: there are no links."""
        return self

    def read_bytes(self) -> bytes:
        """The object.

        Raises:
            FileNotFoundError: where there is none.
        """
        return self.read_tagged()[0]

    def read_tagged(self) -> tuple[bytes, str]:
        """The object and the tag of this version of it, for :meth:`replace_tagged`.

        Raises:
            FileNotFoundError: where there is none.
        """
        import obstore

        def read() -> tuple[bytes, str]:
            found = obstore.get(self._store, self.key)
            return bytes(found.bytes()), str(found.meta["e_tag"])

        return self._patiently(read)

    def modified(self) -> datetime:
        """When the object was written last.

        Raises:
            FileNotFoundError: where there is none.
        """
        import obstore

        found: datetime = self._patiently(lambda: obstore.head(self._store, self.key))[
            "last_modified"
        ]
        return found

    def read_text(self, encoding: str = "utf-8") -> str:
        """The object as text."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str = "rb") -> io.BytesIO:
        """The object as a stream, read as a whole.

        Raises:
            ValueError: for a mode other than ``rb``.
        """
        if mode != "rb":
            raise ValueError(f"mode: expected rb, got {mode}")
        return io.BytesIO(self.read_bytes())

    def write_bytes(self, data: bytes) -> None:
        """Write the whole object; readers see what was there before, or all of it."""
        import obstore

        self._patiently(lambda: obstore.put(self._store, self.key, data))

    def create(self, data: bytes) -> str:
        """Write an object that must not be there yet; of several writers one succeeds.

        Returns:
            The tag of what was written.

        Raises:
            FileExistsError: where it is there, be it by this call, whose answer was lost.
        """
        import obstore

        made = self._once(lambda: obstore.put(self._store, self.key, data, mode="create"))
        return str(made["e_tag"])

    def replace_tagged(self, data: bytes, tag: str) -> str | None:
        """Write an object that must still be what was read; of several writers one succeeds.

        Returns:
            The tag of what was written, or None where it is another now, be it by this call, whose
            answer was lost.
        """
        import obstore
        from obstore.exceptions import PreconditionError

        try:
            made = self._once(lambda: obstore.put(self._store, self.key, data, mode={"e_tag": tag}))
        except (PreconditionError, FileNotFoundError):
            return None
        return str(made["e_tag"])

    def exists(self) -> bool:
        """Whether this is an object or a prefix."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether this is an object."""
        import obstore

        try:
            self._patiently(lambda: obstore.head(self._store, self.key))
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether objects lie below this."""
        return next(self.rglob("*"), None) is not None

    def mkdir(self, *, parents: bool = True, exist_ok: bool = True) -> None:
        """Do nothing: a prefix needs no making."""

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the object.

        Raises:
            FileNotFoundError: where there is none and ``missing_ok`` is false.
        """
        import obstore

        if not missing_ok and not self.is_file():
            raise FileNotFoundError(str(self))
        # gone since it was looked for, perhaps by an attempt whose answer was lost
        with suppress(FileNotFoundError):
            self._patiently(lambda: obstore.delete(self._store, self.key))

    def rglob(self, pattern: str) -> Iterator[ObjectPath]:
        """Objects at any depth below this, by a pattern of their names."""
        import obstore

        pages: Any = None
        last: str | None = None

        def page() -> Any:
            nonlocal pages
            try:
                if pages is None:
                    pages = iter(obstore.list(self._store, self.key or None, offset=last))
                return next(pages, ())
            except BaseException:
                pages = None  # goes on behind what was listed last
                raise

        while entries := self._patiently(page):
            last = str(entries[-1]["path"])
            for entry in entries:
                found = ObjectPath(self.url, str(entry["path"]))
                if fnmatchcase(found.name, pattern):
                    yield found

    def iterdir(self) -> Iterator[ObjectPath]:
        """Objects and prefixes directly below this."""
        import obstore

        found = self._patiently(lambda: obstore.list_with_delimiter(self._store, self.key or None))
        for prefix in found["common_prefixes"]:
            yield ObjectPath(self.url, str(prefix).strip("/"))
        for entry in found["objects"]:
            yield ObjectPath(self.url, str(entry["path"]))

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """What lies directly below this, by a pattern of names."""
        return (found for found in self.iterdir() if fnmatchcase(found.name, pattern))


def object_root(store: str) -> ObjectPath | None:
    """The root of a store that a URL of a cloud store names; None for another URL.

    Raises:
        StoreError: where no bucket is named.
    """
    parts = urlparse(store)
    if parts.scheme not in SCHEMES:
        return None
    if not parts.netloc:
        raise StoreError(f"store: expected {parts.scheme}://BUCKET/PREFIX, got {store!r}")
    return ObjectPath(store.rstrip("/"))
