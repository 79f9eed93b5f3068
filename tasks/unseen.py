"""What a defence in a process of its own must not see: stores, and where clean images come from."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from storage.files import Place
from storage.sources import Cifar10, Source
from storage.sources.cifar10 import ARCHIVE_FOLDER
from storage.sources.paths import data_folder, places
from tasks.datasets import Dataset
from tasks.sandbox.contents import Unseen
from tasks.specs import DatasetSpec, Spec

_PACKAGES = "lib*/python*/*-packages"
_PHOTOS = "skimage/data"


def unseen_by_defences(spec: Spec, folder: Path, store: Place) -> Unseen:
    """The store of a run, every file and folder of its data sets, and built-in photographs.

    Args:
        spec: of the run.
        folder: against which its paths are resolved.
        store: its root; one in a cloud is out of reach without a network.

    Raises:
        SpecError, DatasetNotFound: where a data set cannot be found.
    """
    stated: list[object] = [spec.dataset]
    stated += [one for attack in spec.attacks for one in (attack.targets, attack.fit_dataset)]
    found = [*photographs()]
    for one in stated:
        if isinstance(one, DatasetSpec):
            found += _files_of(Dataset(one, folder).source)
    return Unseen((store,) if isinstance(store, Path) else (), tuple(dict.fromkeys(found)))


def nothing_named(store: Place) -> Unseen:
    """What a defence must not see where no run is known: a store and built-in photographs."""
    return Unseen((store,) if isinstance(store, Path) else (), photographs())


def _files_of(source: Source) -> Iterator[Path]:
    path = getattr(source, "path", None)
    if path is not None:
        yield Path(path)
    elif isinstance(source, Cifar10):
        yield data_folder(os.environ) / ARCHIVE_FOLDER
        for name in ("cifar10", ARCHIVE_FOLDER):
            yield from places(name, None, os.environ)


@cache
def photographs() -> tuple[Path, ...]:
    """Every folder of photographs that a scikit-image of this machine's Pythons carries."""
    roots = {Path(p) for p in (sys.prefix, sys.exec_prefix, sys.base_prefix, "/usr", "/usr/local")}
    found = [Path(entry) / _PHOTOS for entry in sys.path if entry]
    spec = importlib.util.find_spec("skimage")
    if spec is not None and spec.origin is not None:
        found.append(Path(spec.origin).parent / "data")
    for root in sorted(roots):
        for below in ("", "local/", "envs/*/"):
            found += root.glob(f"{below}{_PACKAGES}/{_PHOTOS}")
        # where conda keeps packages to be linked
        found += [root / "pkgs"] if (root / "conda-meta").is_dir() else []
    return tuple(dict.fromkeys(path.resolve() for path in found if path.is_dir()))
