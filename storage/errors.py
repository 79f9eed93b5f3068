"""Errors of the storage package: one base class and the few specific ones."""

from __future__ import annotations


class StorageError(Exception):
    """Something about stored or source data is not as expected; the text is one sentence."""


class SourceError(StorageError):
    """An item or container of a dataset cannot be read."""


class DatasetNotFound(StorageError):
    """No dataset lies where the specification says."""


class StoreError(StorageError):
    """The store cannot be opened or written."""


class StoreFault(StoreError):
    """The store gave an error that may pass, so what was tried may be tried again."""


class DamagedChunk(StorageError):
    """Stored bytes are not those that the ledger vouches for."""


class StoreBusy(StorageError):
    """Another run holds the store."""
