"""How theta is fitted: its gradient, its steps, and that a killed fitting goes on exactly."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator

import pytest
import torch

from defender.attacks.grid_patch import GridPatch
from defender.noise import derive_seeds, uniform
from defender.objectives import Classify, RaiseScore
from defender.patch_penalties import non_printability, total_variation
from defender.patch_placing import corners
from defender.patch_training import PatchState, is_snapshot, survivors
from defender.types import Objective
from tests import cases

SEEDS = cases.seeds(10)
GREY = cases.classifier(1)
SMALL = GridPatch(3, 0.5, epochs=4, optimizer="adam", step_size=0.05, starts=1)


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def batches(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Colour and grey images in an order of the epoch's own."""
    order = torch.randperm(8, generator=torch.Generator().manual_seed(epoch))
    for places in order.split(3):
        yield cases.images()[places], places
    yield cases.images(2, channels=1), torch.arange(8, 10)


def goals(images: torch.Tensor, places: torch.Tensor) -> Objective:
    model = cases.MODEL if images.shape[1] == 3 else GREY
    return Classify(model, torch.full((len(images),), 2))


def last(attack: GridPatch, given: object = batches) -> PatchState:
    *_, state = attack.fit(given, goals, seeds=SEEDS)  # type: ignore[arg-type]
    return state


starting = PatchState.beginning


@pytest.mark.parametrize("grid", [1, 3, 6])
def test_the_gradient_of_a_cell_is_the_mean_of_those_of_its_pixels(grid: int) -> None:
    images, theta = cases.images(), 0.3 + 0.4 * some(3, grid, grid)
    attack = GridPatch(grid, 0.5, epochs=1, optimizer="gradient", step_size=1e-3)
    (state,) = attack.fit([(images, torch.arange(8))], goals, seeds=SEEDS, state=starting(theta))
    stepped = (state.theta - theta).double() / 1e-3

    side, cell = 6, 6 // grid
    top, left = corners(images, side, "random", derive_seeds(SEEDS[:8], "epoch 0"))
    expected = torch.zeros(3, grid, grid, dtype=torch.float64)
    for image, row, column in zip(images, top.tolist(), left.tolist(), strict=True):
        pasted = image.clone()
        for channel in range(3):
            for i in range(side):
                for j in range(side):
                    colour = theta[channel, i // cell, j // cell]
                    pasted[channel, row + i, column + j] = colour
        pasted = pasted[None].requires_grad_(True)
        loss = torch.nn.functional.cross_entropy(cases.MODEL(pasted), torch.tensor([2]))
        (slope,) = torch.autograd.grad(loss, pasted)
        for i in range(side):
            for j in range(side):
                pixel = slope[0, :, row + i, column + j].double()
                expected[:, i // cell, j // cell] -= pixel / cell**2 / 8
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(stepped, expected, rtol=0, atol=2e-4)


def test_steps_of_each_optimizer() -> None:
    theta, items = 0.3 + 0.4 * some(3, 3, 3), [(cases.images(), torch.arange(8))]
    moved = {}
    for name in ("gradient", "sign", "adam"):
        attack = dataclasses.replace(SMALL, epochs=1, optimizer=name, step_size=0.01)
        (state,) = attack.fit(items, goals, seeds=SEEDS, state=starting(theta))
        moved[name] = state.theta - theta
        assert state.steps == 1
    torch.testing.assert_close(moved["sign"], 0.01 * moved["gradient"].sign())
    # the first step of Adam has the same length for every value
    torch.testing.assert_close(moved["adam"], moved["sign"], rtol=0, atol=1e-5)


def test_penalties_pull_theta() -> None:
    theta = 0.3 + 0.4 * some(3, 3, 3)
    plain = dataclasses.replace(SMALL, epochs=1, optimizer="gradient", step_size=0.01)
    items = [(cases.images(), torch.arange(8))]

    def stepped(**weights: float) -> torch.Tensor:
        attack = dataclasses.replace(plain, **weights)
        (state,) = attack.fit(items, goals, seeds=SEEDS, state=starting(theta))
        return state.theta

    for name, penalty in (("total_variation", total_variation), ("printable", non_printability)):
        leaf = theta.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(penalty(leaf), leaf)
        pull = stepped() - stepped(**{name: 2.0})
        torch.testing.assert_close(pull, 0.02 * slope, rtol=0, atol=1e-6)
    smooth = last(dataclasses.replace(SMALL, epochs=30, total_variation=50.0))
    rough = last(dataclasses.replace(SMALL, epochs=30))
    assert smooth.history[-1]["total_variation"] < 0.3 * rough.history[-1]["total_variation"]
    inked = last(dataclasses.replace(SMALL, epochs=30, printable=50.0))
    assert inked.history[-1]["non_printability"] < 0.5 * rough.history[-1]["non_printability"]


@pytest.mark.parametrize("optimizer", ["adam", "sign", "gradient"])
def test_theta_stays_in_range(optimizer: str) -> None:
    attack = dataclasses.replace(SMALL, optimizer=optimizer, step_size=30.0)
    for state in attack.fit(batches, goals, seeds=SEEDS):
        assert 0 <= state.theta.min() < state.theta.max() <= 1
        assert ((state.theta == 0) | (state.theta == 1)).float().mean() > 0.5


def test_what_was_fitted_meets_the_objective_on_other_images() -> None:
    attack = GridPatch(4, 0.67, epochs=40, optimizer="adam", step_size=0.1)
    items = [(cases.images(), torch.arange(8))]
    for wanted in range(cases.CLASSES):
        goal = torch.full((8,), wanted)

        def towards(
            images: torch.Tensor, places: torch.Tensor, to: torch.Tensor = goal
        ) -> Objective:
            return Classify(cases.MODEL, to)

        *_, state = attack.fit(items, towards, seeds=SEEDS)
        others = cases.images(seed=44)
        patched = attack.apply(others, state.theta, seeds=cases.seeds() + 5)[0]
        objective = Classify(cases.MODEL, goal)
        assert objective(patched).mean() > 0.7 * objective(others).mean()
        first, final = state.history[0], state.history[-1]
        assert final["loss"] < first["loss"]
        assert final["success"] >= first["success"]
    assert set(first) == {"loss", "success", "total_variation", "non_printability"}


@pytest.mark.parametrize(
    "attack",
    [
        SMALL,
        dataclasses.replace(SMALL, starts=3),
        dataclasses.replace(SMALL, optimizer="sign", total_variation=0.1),
        dataclasses.replace(SMALL, rotation=20.0, brightness=0.2, noise=0.05, blur=0.5),
    ],
    ids=["adam", "starts", "sign", "transforms"],
)
@pytest.mark.parametrize("stopped", [1, 3])
def test_goes_on_from_any_state_to_the_same_bits(attack: GridPatch, stopped: int) -> None:
    whole = last(attack)
    fitting = attack.fit(batches, goals, seeds=SEEDS)
    for _ in range(stopped):
        state = next(fitting)
    stored = io.BytesIO()
    torch.save(state.as_dict(), stored)
    stored.seek(0)
    loaded = PatchState(**torch.load(stored, weights_only=True))
    *_, resumed = attack.fit(batches, goals, seeds=SEEDS, state=loaded)
    for name in ("theta", "first", "second"):
        assert torch.equal(getattr(resumed, name), getattr(whole, name))
    assert (resumed.epoch, resumed.steps) == (whole.epoch, whole.steps) == (4, 16)
    assert resumed.history == whole.history
    assert len(whole.history) == 4
    assert resumed.snapshot_epochs == whole.snapshot_epochs == [0, 1, 2, 3, 4]
    assert all(map(torch.equal, resumed.snapshots, whole.snapshots))
    assert resumed.patch == whole.patch
    assert len(resumed.rivals) == len(whole.rivals) == attack.starts - 1
    for mine, other in zip(resumed.rivals, whole.rivals, strict=True):
        assert torch.equal(mine["theta"], other["theta"])
        assert mine["history"] == other["history"]


def test_states_that_were_yielded_stay_as_they_were() -> None:
    fitting = SMALL.fit(batches, goals, seeds=SEEDS)
    state = next(fitting)
    before = {name: value.clone() for name, value in vars(state).items() if hasattr(value, "clone")}
    list(fitting)
    assert state.epoch == len(state.history) == 1
    assert all(torch.equal(getattr(state, name), value) for name, value in before.items())
    assert torch.equal(state.snapshots[-1], state.theta)


def test_of_several_starts_the_best_is_kept() -> None:
    attack = dataclasses.replace(SMALL, starts=5, epochs=40)
    alone: dict[bytes, list[float]] = {}
    numbers = []
    for state in attack.fit(batches, goals, seeds=SEEDS):
        running = [state, *(PatchState(**one) for one in state.rivals)]
        numbers.append(len(running))
        for one in running:
            assert one.epoch == len(one.history) == state.epoch
            assert one.steps == 4 * state.epoch
            begun = one.snapshots[0].numpy().tobytes()
            alone[begun] = [record["loss"] for record in one.history]
    # 50 steps are over after epoch 13, 100 after epoch 25, 150 after epoch 38
    assert numbers == [5] * 12 + [3] * 12 + [2] * 13 + [1] * 3
    assert len(alone) == 5
    assert [survivors(5, steps) for steps in (0, 49, 50, 100, 149, 150, 10**6)] == [
        *(5, 5, 3, 2, 2, 1, 1)
    ]


def test_each_start_is_fitted_as_if_it_were_alone() -> None:
    attack = dataclasses.replace(SMALL, starts=3)
    state = last(attack)
    for one in (state, *(PatchState(**rival) for rival in state.rivals)):
        begun = PatchState.beginning(one.snapshots[0])
        *_, again = SMALL.fit(batches, goals, seeds=SEEDS, state=begun)
        assert torch.equal(again.theta, one.theta)
        assert again.history == one.history
    assert torch.equal(last(SMALL).snapshots[0], sorted_by_draw(attack)[0])


def sorted_by_draw(attack: GridPatch) -> list[torch.Tensor]:
    """The starts in the order in which they are drawn."""
    key = derive_seeds(SEEDS[:1], "patch start 0")
    state = next(attack.fit(batches, goals, seeds=SEEDS))
    starts = [state.snapshots[0], *(one["snapshots"][0] for one in state.rivals)]
    first = uniform(key, (3, 3, 3))[0]
    return sorted(starts, key=lambda start: not torch.equal(start, first))


def test_the_lower_loss_wins() -> None:
    def closeness(images: torch.Tensor, places: torch.Tensor) -> Objective:
        """Rises to 0 as the mean of the images rises to 1."""
        return lambda images: images.mean(dim=(1, 2, 3)) - 1

    attack = GridPatch(2, 1.0, epochs=1, optimizer="gradient", step_size=1e-6, starts=6)
    (state,) = attack.fit([cases.images()], closeness, seeds=SEEDS)
    losses = [state.history[0]["loss"], *(one["history"][0]["loss"] for one in state.rivals)]
    assert losses == sorted(losses)
    means = [state.theta.mean().item(), *(one["theta"].mean().item() for one in state.rivals)]
    assert means == sorted(means, reverse=True)
    assert len(set(means)) == 6


def test_snapshots_thin_out() -> None:
    kept = [epoch for epoch in range(100) if is_snapshot(epoch)]
    assert kept == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91]


def test_places_and_start_follow_the_seeds() -> None:
    one_step = dataclasses.replace(SMALL, epochs=1)
    first = next(one_step.fit(batches, goals, seeds=SEEDS))
    assert torch.equal(first.theta, last(one_step).theta)
    other = next(one_step.fit(batches, goals, seeds=SEEDS + 1))
    assert not torch.equal(first.snapshots[0], other.snapshots[0])
    for start, value in (("zero", 0.0), ("grey", 0.5)):
        state = next(dataclasses.replace(one_step, start=start).fit(batches, goals, seeds=SEEDS))
        assert torch.equal(state.snapshots[0], torch.full((3, 3, 3), value))


def test_images_without_places_are_numbered_as_they_come() -> None:
    images = cases.images()
    numbered = [(images[:3], torch.arange(3)), (images[3:], torch.arange(3, 8))]
    alone = [images[:3], images[3:]]
    assert torch.equal(last(SMALL, numbered).theta, last(SMALL, alone).theta)
    assert torch.equal(last(SMALL, lambda epoch: alone).theta, last(SMALL, alone).theta)


def test_fits_the_score_of_a_quality_metric() -> None:
    def quality(images: torch.Tensor, places: torch.Tensor) -> Objective:
        return RaiseScore(cases.QUALITY)

    *_, state = SMALL.fit([cases.images()], quality, seeds=SEEDS)
    assert state.history[-1]["loss"] < state.history[0]["loss"] < 0


def test_refusals() -> None:
    with pytest.raises(ValueError, match="batches: expected images in epoch 0, got none"):
        next(SMALL.fit([], goals, seeds=SEEDS))
    once = iter([cases.images()])
    with pytest.raises(ValueError, match="batches: expected images in epoch 1, got none"):
        list(SMALL.fit(once, goals, seeds=SEEDS))
    with pytest.raises(ValueError, match="seeds: expected one for each of 8 images"):
        next(SMALL.fit([cases.images()], goals, seeds=SEEDS[:7]))
    with pytest.raises(ValueError, match=r"state: expected \(c, 3, 3\), got \(3, 4, 4\)"):
        next(SMALL.fit(batches, goals, seeds=SEEDS, state=starting(torch.zeros(3, 4, 4))))
    with pytest.raises(ValueError, match="size: expected cells of at least 1 pixel"):
        next(dataclasses.replace(SMALL, grid=7).fit(batches, goals, seeds=SEEDS))


def test_works_in_inference_mode() -> None:
    expected = last(SMALL)
    with torch.inference_mode():
        state = last(SMALL)
    assert torch.equal(state.theta, expected.theta)
