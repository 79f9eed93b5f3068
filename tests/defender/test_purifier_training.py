"""Training of networks that purify against attackers who know them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from defender.models.denoiser import Denoiser
from defender.objectives import RaiseScore
from defender.purifier_training import PurifierTraining
from tests import cases

EPSILON = 8 / 255


def network() -> Denoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Denoiser(3, width=8, depth=3)


def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    clean = (cases.images(8) * 255).to(torch.uint8)
    yield torch.stack([clean, clean], dim=1), torch.zeros(8)


def test_an_attack_through_the_network_raises_the_score_within_its_radius() -> None:
    recipe = PurifierTraining(adversary=1.0, adversary_epsilon=EPSILON, adversary_steps=4)
    model, metric, clean = network().train(), cases.QUALITY, cases.images(6)
    attacked = recipe.against(model, metric, clean, torch.Generator().manual_seed(1))
    assert float((attacked - clean).abs().max()) <= EPSILON + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    goal = RaiseScore(metric, clean)
    with torch.no_grad():
        rise = goal(model(attacked).clamp(0, 1)) - goal(model(clean).clamp(0, 1))
    assert bool((rise > 0).all())
    none = recipe.against(model, metric, clean[:0], torch.Generator())
    assert none.shape == clean[:0].shape


def test_a_network_trained_against_its_own_attackers_stands_them_better() -> None:
    metric, clean = cases.QUALITY, cases.images(8)

    def shift(recipe: PurifierTraining) -> float:
        model = network()
        for _ in recipe.fit(batches, model, steps_per_epoch=1, seed=0, metric=metric):
            pass
        judge = PurifierTraining(adversary_epsilon=EPSILON, adversary_steps=8)
        model.eval()
        attacked = judge.against(model, metric, clean, torch.Generator().manual_seed(1))
        goal = RaiseScore(metric, clean)
        with torch.no_grad():
            return float((goal(model(attacked)) - goal(clean)).abs().mean())

    given = {"epochs": 40, "peak_lr": 0.01, "crop": 0, "average_decay": 0.0}
    trained = shift(PurifierTraining(**given, adversary=1.0, score_weight=0.1))
    assert trained < 0.8 * shift(PurifierTraining(**given))


def test_without_a_metric_there_is_no_score_to_keep() -> None:
    for recipe in (PurifierTraining(score_weight=0.1), PurifierTraining(adversary=0.5)):
        with pytest.raises(ValueError, match="metric: expected one"):
            next(recipe.fit(batches, network(), steps_per_epoch=1, seed=0))


def test_the_rest_of_the_pairs_and_the_draws_stay_the_same_from_any_state() -> None:
    recipe = PurifierTraining(epochs=3, crop=8, adversary=0.5, score_weight=0.1)
    whole = list(recipe.fit(batches, network(), steps_per_epoch=1, seed=0, metric=cases.QUALITY))
    model = network()
    first = next(recipe.fit(batches, model, steps_per_epoch=1, seed=0, metric=cases.QUALITY))
    *_, last = recipe.fit(
        batches, network(), steps_per_epoch=1, seed=0, state=first, metric=cases.QUALITY
    )
    for name, weight in whole[-1].weights.items():
        assert torch.equal(weight, last.weights[name])
