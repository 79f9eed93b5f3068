"""The universal perturbation: how it is laid over images, and how it is fitted."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
import torch

from defender.attacks.uap import UAP
from defender.objectives import Misclassify, RaiseScore
from defender.types import Objective
from defender.universal import Perturbation, UniversalState, UniversalTraining, covering
from tests import cases

SMALL = UniversalTraining(epochs=4, side=5)


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def batches(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Colour, grey and large images in an order of the epoch's own."""
    order = torch.randperm(8, generator=torch.Generator().manual_seed(epoch))
    for places in order.split(3):
        yield cases.images()[places], places
    yield cases.images(2, channels=1), torch.arange(2)
    yield some(2, 3, 17, 9), torch.arange(2)


def goals(images: torch.Tensor, places: torch.Tensor) -> Objective:
    return RaiseScore(cases.SmoothQuality(images.shape[1]))


def test_covers_images_of_any_size() -> None:
    values = some(3, 4, 5)
    for height, width in ((4, 5), (9, 12), (2, 3), (4, 6), (1, 1)):
        cover = covering(values, torch.zeros(2, 3, height, width))
        assert cover.shape == (1, 3, height, width)
        for row in range(height):
            for column in range(width):
                assert torch.equal(cover[0, :, row, column], values[:, row % 4, column % 5])


def test_grey_images_take_the_mean_and_a_grey_perturbation_goes_into_every_channel() -> None:
    values = some(3, 4, 4)
    grey = covering(values, torch.zeros(1, 1, 6, 4))
    torch.testing.assert_close(grey[0, 0, :4], (values[0] + values[1] + values[2]) / 3)
    colour = covering(values[:1], torch.zeros(1, 3, 4, 4))
    assert all(torch.equal(colour[0, c], values[0]) for c in range(3))
    with pytest.raises(ValueError, match="images: expected 1 or 3 channels, got 4"):
        covering(values, torch.zeros(1, 4, 4, 4))


def test_the_attack_adds_and_clips() -> None:
    values = torch.tensor([0.1, -0.1, 0.05, 0.0]).view(1, 2, 2)
    images = torch.tensor([[0.5, 0.5, 0.99], [0.5, 0.5, 0.0], [0.5, 0.02, 0.5]]).view(1, 1, 3, 3)
    attack = UAP(0.5, Perturbation(values))
    attacked = attack(images, lambda images: images, seeds=cases.seeds(1))
    expected = torch.tensor([[0.55, 0.45, 1.0], [0.525, 0.5, 0.025], [0.55, 0.0, 0.55]])
    torch.testing.assert_close(attacked[0, 0], expected)


def test_a_perturbation_is_what_it_holds() -> None:
    values = some(3, 4, 4)
    one, same = Perturbation(values), Perturbation(values.clone())
    values[0, 0, 0] = 0.5
    other = Perturbation(values)
    assert one == same != other
    assert hash(one) == hash(same)
    assert repr(one) == f"uap@{one.digest[:12]}" != repr(other)
    assert repr(UAP(0.3, one)) == f"UAP(amplitude=0.3, perturbation={one!r})"
    assert Perturbation(torch.zeros(1, 2, 8)) != Perturbation(torch.zeros(1, 4, 4))


def test_what_is_no_perturbation_is_refused() -> None:
    with pytest.raises(ValueError, match=r"values: expected \(c, height, width\), got \(4, 4\)"):
        Perturbation(torch.zeros(4, 4))
    with pytest.raises(ValueError, match="values: expected finite numbers"):
        Perturbation(torch.full((1, 2, 2), torch.nan))
    with pytest.raises(ValueError, match="perturbation: expected a fitted one, got UAP"):
        UAP()(cases.images(), goals, seeds=cases.seeds())


def by_autograd(training: UniversalTraining, epochs: int, seed: int) -> torch.Tensor:
    """The fitting as the benchmark writes it, with torch's own Adam."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(3, training.side, training.side, generator=generator)
    values = ((2 * values - 1) * training.start).requires_grad_()
    optimiser = torch.optim.Adam([values], lr=training.step_size)
    for epoch in range(epochs):
        for images, places in batches(epoch):
            pattern = values.mean(0, keepdim=True) if images.shape[1] == 1 else values
            rows = torch.arange(images.shape[2]) % training.side
            columns = torch.arange(images.shape[3]) % training.side
            attacked = images + pattern[:, rows][:, :, columns]
            attacked.data.clamp_(0, 1)
            loss = 1 - goals(images, places)(attacked).mean() / 100
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            values.data.clamp_(-training.limit, training.limit)
    return values.detach()


@pytest.mark.parametrize(
    "training", [SMALL, UniversalTraining(2, 0.01, limit=0.02, side=16)], ids=repr
)
def test_is_the_minimisation_of_the_benchmark(training: UniversalTraining) -> None:
    *_, state = training.fit(batches, goals, seed=3)
    expected = by_autograd(training, training.epochs, 3)
    torch.testing.assert_close(state.values, expected, rtol=0, atol=1e-5)
    assert state.values.abs().max() <= training.limit


@pytest.mark.parametrize("stopped", [1, 2, 3])
def test_goes_on_from_any_state_to_the_same_bits(stopped: int) -> None:
    *_, whole = SMALL.fit(batches, goals, seed=3)
    fitting = SMALL.fit(batches, goals, seed=3)
    for _ in range(stopped):
        state = next(fitting)
    assert state.epoch == stopped
    stored = io.BytesIO()
    torch.save(state.as_dict(), stored)
    stored.seek(0)
    loaded = UniversalState(**torch.load(stored, weights_only=True))
    *_, resumed = SMALL.fit(batches, goals, seed=99, state=loaded)
    assert torch.equal(resumed.values, whole.values)
    assert torch.equal(resumed.first, whole.first)
    assert torch.equal(resumed.second, whole.second)
    assert (resumed.epoch, resumed.steps) == (whole.epoch, whole.steps) == (4, 20)
    assert resumed.history == whole.history
    assert len(whole.history) == 4


def test_states_that_were_yielded_stay_as_they_were() -> None:
    fitting = SMALL.fit(batches, goals, seed=3)
    state = next(fitting)
    before = {name: value.clone() for name, value in vars(state).items() if hasattr(value, "clone")}
    list(fitting)
    assert state.epoch == len(state.history) == 1
    assert all(torch.equal(getattr(state, name), value) for name, value in before.items())


def test_raises_scores_of_images_it_was_not_fitted_to() -> None:
    def only_colour(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield cases.images(), torch.arange(8)

    training = UniversalTraining(epochs=30, side=12)
    *_, state = training.fit(only_colour, goals, seed=1)
    attack, quality = UAP(1.0, Perturbation(state.values)), cases.QUALITY
    others = cases.images(seed=44)
    gain = quality(attack(others, goals, seeds=cases.seeds())) - quality(others)
    assert gain.min() > 0
    scores = [record["score"] for record in state.history]
    assert scores == sorted(scores)
    weak = UAP(0.25, Perturbation(state.values))(others, goals, seeds=cases.seeds())
    assert (weak - others).abs().max() <= 0.25 * 1.03 * 30 * 0.001


def test_labels_are_found_by_the_places_of_images() -> None:
    def labelled(images: torch.Tensor, places: torch.Tensor) -> Objective:
        return Misclassify(cases.MODEL, cases.labels()[places])

    def shuffled(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        places = torch.tensor([5, 2, 7, 0, 1, 3, 6, 4])
        yield cases.images()[places], places

    *_, state = UniversalTraining(epochs=1, side=12).fit(shuffled, labelled, seed=0)
    clean = Misclassify(cases.MODEL, cases.labels())(cases.images()).mean().item()
    assert state.history[0]["score"] == pytest.approx(clean, abs=1e-2)


def test_an_image_without_a_finite_gradient_does_not_stop_the_others() -> None:
    def partly_broken(images: torch.Tensor, places: torch.Tensor) -> Objective:
        def objective(images: torch.Tensor) -> torch.Tensor:
            broken = (images[:1] - images[:1].detach()).sqrt().sum(dim=(1, 2, 3))
            return torch.cat([broken, images[1:].mean(dim=(1, 2, 3))])

        return objective

    def one_batch(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield cases.images(), torch.arange(8)

    *_, state = UniversalTraining(epochs=3, side=6).fit(one_batch, partly_broken, seed=0)
    assert state.values.isfinite().all()
    assert (state.values > 0.002).all()


def test_an_epoch_without_images_is_refused() -> None:
    with pytest.raises(ValueError, match="batches: expected images in epoch 0, got none"):
        next(SMALL.fit(lambda epoch: [], goals, seed=0))
