"""Settings that every test shares: one torch thread, and a Prefect home of the test run's own."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

_HOME = tempfile.mkdtemp(prefix="image-defender-tests-")
os.environ["PREFECT_HOME"] = _HOME
os.environ["PREFECT_RESULTS_LOCAL_STORAGE_PATH"] = str(Path(_HOME) / "results")

from flows import engine  # noqa: E402

engine.settle()

import torch  # noqa: E402

torch.set_num_threads(1)


def data_folder() -> Path | None:
    """The folder of real images and weights, where this machine has it."""
    root = Path(__file__).resolve().parents[1]
    stated = os.environ.get("IMAGE_DEFENDER_DATA")
    for folder in ([Path(stated)] if stated else []) + [root / "../shared/data"]:
        if folder.is_dir():
            return folder.resolve()
    return None


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real images and weights; the test is skipped where it is absent."""
    folder = data_folder()
    if folder is None:
        pytest.skip("no data folder: set IMAGE_DEFENDER_DATA or place it at ../shared/data")
    return folder
