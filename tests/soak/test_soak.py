"""A short soak: whatever happens to a run, it ends with the bytes of an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.soak import Soak


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_end_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    pytest.importorskip("prefect_dask", reason="needs prefect-dask")
    soak = Soak(tmp_path, seed=1, images=200)
    assert soak.run(45.0) == []
    assert sum(soak.log.values()) > 3
