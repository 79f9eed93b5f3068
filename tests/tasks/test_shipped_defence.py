"""The shipped metric can be attacked, and our best purifier takes most of it away again.

On photographs that neither was trained on, at the size of ``examples/iqa.yaml`` and with its
settings, so that what the documents say of 500 photographs can be seen on a few anywhere.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage
import yaml

from tasks.columns import Columns
from tasks.leaderboard import Standing, standings
from tasks.survey import Survey
from tests import toy

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/iqa.yaml"
PHOTOGRAPHS = (
    *("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"),
    *("motorcycle_left.png", "motorcycle_right.png"),
)
"""The colour photographs that scikit-image carries, without those from telescopes, microscopes and
of the inside of an eye."""
FOUND = {"IFGSM": 2 / 255, "Zhang": 0.0032, "Korhonen": 0.0032, "MADC": 0.0041, "SSAH": 0.0032}
"""Step sizes; but for the first, those at which a search ends that wants a mean linf of 8/255."""
LINF = 8 / 255
ATTACKS = [
    {"name": "IFGSM", "label": "IFGSM", "epsilon": LINF, "steps": 10, "step_size": FOUND["IFGSM"]},
    {"name": "MIFGSM", "label": "MIFGSM", "epsilon": LINF},
    *({"name": name, "label": name, "step_size": FOUND[name]} for name in list(FOUND)[1:]),
]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    folder = tmp_path_factory.mktemp("photographs")
    for name in PHOTOGRAPHS:
        shutil.copy(Path(skimage.__file__).parent / "data" / name, folder / name)
    example = yaml.safe_load(EXAMPLE.read_text())
    purifiers = [
        one
        for one in example["purifiers"]
        if one["label"] in ("noise gate", "jpeg 50", "half-size")
    ]
    assert len(purifiers) == 3
    bench = toy.bench(
        tmp_path_factory.mktemp("run"),
        dataset={"kind": "folder", "path": str(folder), "resize": [224, 224]},
        model=None,
        metric="linearity-small",
        attacks=ATTACKS,
        detectors=[],
        purifiers=purifiers,
        baseline="half-size",
        metrics=["gain", "quality", "srcc", "score_shift", "linf"],
    )
    return toy.run(bench)[0]


@pytest.mark.slow
@pytest.mark.parametrize("attack", [one["label"] for one in ATTACKS])
def test_a_change_nobody_sees_raises_the_score(state: Survey, attack: str) -> None:
    """Measured: 8.6 (MADC) to 12.1 (MIFGSM) standard deviations of 5.1; the mean is 85.2."""
    columns = Columns(state)
    clean = columns.column("score/none/none", "score")
    attacked = columns.column(f"score/{attack}/none", "score")
    assert len(clean) == len(PHOTOGRAPHS)
    assert columns.column(f"score/{attack}/none", "linf").mean() == pytest.approx(LINF, rel=0.05)
    assert attacked.mean() - clean.mean() >= 1.0 * clean.std(ddof=1)
    assert bool((attacked > clean + 10).all()), "of every photograph"


@pytest.mark.slow
def test_the_gate_takes_more_of_it_away_than_jpeg_and_costs_less(state: Survey) -> None:
    """Measured, the gate beside JPEG: gain 0.066 and 0.107, quality 0.646 and 0.626; on clean
    photographs gain 0.018 and 0.101. Half the size leaves a gain of 0.044 of these few, less than
    the gate, at a quality of 0.586; of the 500 of ``docs/iqa.md`` it leaves more."""
    board = {one.purifier: one for one in standings(state, Columns(state))}
    gate, jpeg, half = board["noise gate"], board["jpeg 50"], board["half-size"]
    assert mean(gate, "gain") < 0.85 * mean(jpeg, "gain")
    assert mean(gate, "gain") < 0.2 * mean(board["none"], "gain")
    assert mean(gate, "quality") > mean(jpeg, "quality") + 0.01
    assert mean(gate, "quality") > mean(half, "quality") + 0.03
    assert gate.attacks["none"]["gain"] <= 0.5 * jpeg.attacks["none"]["gain"]
    assert gate.attacks["none"]["gain"] <= 0.6 * half.attacks["none"]["gain"]


def mean(one: Standing, measure: str) -> float:
    value = one.mean[measure].value
    assert np.isfinite(value)
    return value
