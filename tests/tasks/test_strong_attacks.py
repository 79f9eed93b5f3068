"""The strong attacks on the shipped CIFAR-10 classifier and real images."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from defender.attacks import APGD, FAB, PGD, AutoAttack, CarliniWagner
from defender.margins import margin
from defender.norms import lengths
from defender.objectives import Misclassify
from tasks.models import load_model
from tasks.subject_specs import ModelSpec

pytestmark = [pytest.mark.slow, pytest.mark.data]
NUMBER = 16
SEEDS = torch.arange(NUMBER)


@pytest.fixture(scope="module")
def real(data: Path) -> tuple[Tensor, Misclassify]:
    """Test images of CIFAR-10 that the classifier sees as what they are."""
    table = pq.read_table(next((data / "cifar10").glob("test-*.parquet"))).slice(0, 2 * NUMBER)
    column = next(name for name in table.column_names if name != "label")
    pictures = [np.array(Image.open(io.BytesIO(one["bytes"]))) for one in table[column].to_pylist()]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div(255)
    model = load_model(ModelSpec(name="cifar-resnet"), data, torch.device("cpu"))
    goal = Misclassify(model, torch.tensor(table["label"].to_pylist()))
    with torch.no_grad():
        right = (margin(goal, images) <= 0).nonzero().flatten()[:NUMBER]
    return images[right].contiguous(), Misclassify(model, goal.labels[right])


@torch.no_grad()
def reached(goal: Misclassify, result: Tensor) -> Tensor:
    return margin(goal, result) > 0


@pytest.mark.parametrize("levels", [1, 8])
def test_auto_pgd_is_at_least_as_strong_as_pgd(
    real: tuple[Tensor, Misclassify], levels: int
) -> None:
    images, goal = real
    epsilon = levels / 255
    fixed = PGD(epsilon, epsilon / 4, 40)(images, goal, seeds=SEEDS)
    auto = APGD(epsilon, loss="ce")(images, goal, seeds=SEEDS)
    assert reached(goal, auto).sum() >= reached(goal, fixed).sum()
    with torch.no_grad():
        assert goal(auto).mean() > goal(fixed).mean()
        assert (goal(auto) > goal(fixed) - 0.01).float().mean() > 0.8


def test_fab_finds_smaller_changes_than_the_budget_of_pgd(
    real: tuple[Tensor, Misclassify],
) -> None:
    images, goal = real
    broken = reached(goal, PGD(8 / 255, 2 / 255, 40)(images, goal, seeds=SEEDS))
    fab = FAB(1.0, steps=20, target_classes=3, stored=False)
    result = fab(images, goal, seeds=SEEDS)
    assert broken.sum() >= NUMBER - 1
    assert reached(goal, result).all()
    assert fab.length(result - images).max() < 8 / 255
    assert fab.length(result - images).mean() < 2 / 255


def test_short_changes_in_l2(real: tuple[Tensor, Misclassify]) -> None:
    images, goal = real
    result = CarliniWagner(2.0, 60, 3, 0.01, stored=False)(images, goal, seeds=SEEDS)
    assert reached(goal, result).all()
    assert lengths(result - images).mean() < 0.3


def test_auto_attack_breaks_what_any_of_its_members_breaks(
    real: tuple[Tensor, Misclassify],
) -> None:
    images, goal = real
    attack = AutoAttack(0.5 / 255, steps=10, target_classes=2, queries=50, stored=False)
    result = reached(goal, attack(images, goal, seeds=SEEDS))
    assert 0 < result.sum() < NUMBER
    for _, member, target in attack.members(images, goal):
        found = reached(goal, member(images, target, seeds=SEEDS))
        assert result.sum() >= found.sum()
