"""Datasets behind one interface: each is listed and read in a stream, never loaded whole.

``SOURCES`` maps the kind that a specification states to the class whose fields are its options.
The option ``path``, where there is one, is to be resolved with ``storage.sources.paths.resolve``
before the class is called.
"""

from __future__ import annotations

from typing import Any

from storage.sources.archive import Zip
from storage.sources.cifar10 import Cifar10
from storage.sources.folder import Folder
from storage.sources.items import JSON, Content, Item, Source
from storage.sources.paired import Counterpart, Paired
from storage.sources.parquet import Parquet
from storage.sources.photos import Photos
from storage.sources.shapes import Shapes

SOURCES: dict[str, type[Any]] = {
    Cifar10.kind: Cifar10,
    Folder.kind: Folder,
    Zip.kind: Zip,
    Parquet.kind: Parquet,
    Shapes.kind: Shapes,
    Photos.kind: Photos,
    Paired.kind: Paired,
}

__all__ = [
    "JSON",
    "SOURCES",
    "Cifar10",
    "Content",
    "Counterpart",
    "Folder",
    "Item",
    "Paired",
    "Parquet",
    "Photos",
    "Shapes",
    "Source",
    "Zip",
]
