"""A short soak, each fault once: a run ends with the bytes of an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.faults import BEGUN, FAILED, REFUSED, noted
from tests.soak.soak import FAULTS, Soak


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_end_is_that_of_an_undisturbed_run(tmp_path: Path) -> None:
    pytest.importorskip("prefect_dask", reason="needs prefect-dask")
    soak = Soak(tmp_path, seed=1, images=120)
    assert soak.run(0.0) == []
    assert {name for name in FAULTS if soak.log[name] == 0} == set()
    notes = noted(tmp_path)
    assert notes[FAILED]["read"] > 0
    assert notes[FAILED]["write"] > 0
    assert notes[REFUSED].total() > 0
    assert len(notes[BEGUN]) == soak.chunks
    # one at least, whose byte was flipped
    assert 1 <= soak.again <= soak.again_at_most
