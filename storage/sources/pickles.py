"""Pickles of plain values and numpy arrays, read without running anything in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from storage.errors import DatasetNotFound, SourceError

_rebuild: Any = np.zeros(0).__reduce__()[0]  # numpy's own, wherever this release keeps it


def _reconstruct(kind: Any, shape: Any, code: Any) -> Any:
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("expected an empty numpy array to be filled")
    return _rebuild(kind, shape, code)


def _encode(text: Any, coding: Any) -> bytes:
    if not isinstance(text, str) or coding != "latin1":
        raise pickle.UnpicklingError("expected text in latin1")
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"expected plain values and numpy arrays, got {module}.{name}"
            ) from None


def load_arrays(path: Path) -> Any:
    """Load a pickle that holds nothing but plain values and numpy arrays.

    Args:
        path: a pickle of any protocol; byte strings of Python 2 become text (latin1).

    Raises:
        DatasetNotFound: where there is no such file.
        SourceError: where it holds anything else or is damaged.
    """
    try:
        with path.open("rb") as stream:
            return _Unpickler(stream, encoding="latin1").load()
    except FileNotFoundError as error:
        raise DatasetNotFound(f"expected a file at {path}, got nothing") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        if isinstance(error, MemoryError):
            raise
        raise SourceError(f"{path}: cannot be read as a pickle of arrays: {error}") from error
