from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from defender.models.linearity import Linearity
from defender.quality_training import QualityTraining
from defender.training import TrainingState

STEPS, BATCH = 4, 6


def pictures(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Noise of a strength that is the label, the worse the stronger."""
    for step in range(STEPS):
        generator = torch.Generator().manual_seed(100 * epoch + step)
        labels = torch.rand(BATCH, generator=generator)
        noise = torch.randn(BATCH, 3, 40, 44, generator=generator)
        images = 0.5 + 0.3 * (1 - labels).view(-1, 1, 1, 1) * noise
        yield (255 * images.clamp(0, 1)).byte(), 100 * labels


def network() -> Linearity:
    torch.manual_seed(0)
    return Linearity("small")


def train(recipe: QualityTraining, state: TrainingState | None = None) -> Iterator[TrainingState]:
    return recipe.fit(pictures, network(), steps_per_epoch=STEPS, seed=5, state=state)


def stored(state: TrainingState) -> TrainingState:
    """A state as a file gives it back."""
    buffer = io.BytesIO()
    torch.save(state.as_dict(), buffer)
    buffer.seek(0)
    return TrainingState(**torch.load(buffer, weights_only=True))


@pytest.mark.parametrize("after", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_goes_on_to_the_same_bits(after: int, precision: str) -> None:
    recipe = QualityTraining(epochs=3, crop=32, precision=precision)
    states = train(recipe)
    for _ in range(after):
        kept = stored(next(states))
    *_, expected = states
    *_, found = train(recipe, kept)
    assert found.epoch == expected.epoch == 3
    assert found.history == expected.history
    for name in ("weights", "average"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert all(torch.equal(*pair) for pair in zip(found.momentum, expected.momentum, strict=True))


def test_states_that_were_yielded_do_not_change() -> None:
    states = train(QualityTraining(epochs=2))
    first = next(states).weights
    kept = copy.deepcopy(first)
    next(states)
    assert all(torch.equal(first[name], kept[name]) for name in kept)


def test_it_learns_to_tell_stronger_noise() -> None:
    model = network()
    recipe = QualityTraining(epochs=12, peak_lr=3e-3, average_decay=0.9)
    *_, state = recipe.fit(pictures, model, steps_per_epoch=STEPS, seed=5)
    losses = [record["loss"] for record in state.history]
    assert losses[-1] < 0.5 * losses[0]
    model.load_state_dict(state.average)
    model.eval()
    correlations = []
    with torch.no_grad():
        for pixels, labels in pictures(99):
            scores = model(pixels.float() / 255)
            correlations.append(float(torch.corrcoef(torch.stack([scores, labels]))[0, 1]))
    assert min(correlations) > 0.8


class Fixed(nn.Module):
    """Three heads that say what they were told, and remember what they saw."""

    def __init__(self, *outputs: list[float]) -> None:
        super().__init__()
        self.outputs = nn.Parameter(torch.tensor(outputs))
        self.seen: list[Tensor] = []

    def heads(self, images: Tensor) -> Any:
        self.seen.append(images)
        return tuple(self.outputs)


def test_the_loss_weighs_the_final_head_ten_times() -> None:
    labels, rising, falling = torch.tensor([1.0, 2.0, 3.0]), [0.0, 1.0, 2.0], [2.0, 1.0, 0.0]
    images = torch.zeros(3, 3, 8, 8)
    recipe = QualityTraining()
    # normalised, the falling scores differ from the labels by 2/sqrt(2) at either end; the scale
    # is 2 sqrt(3)
    worst = 2 * 2**0.5 / (2 * 3**0.5)
    for outputs, weight in (
        ((rising, rising, rising), 0.0),
        ((falling, rising, rising), 0.1 / 1.2),
        ((rising, falling, rising), 0.1 / 1.2),
        ((rising, rising, falling), 1 / 1.2),
    ):
        loss = recipe.loss(Fixed(*outputs), images, labels)
        assert float(loss.detach()) == pytest.approx(weight * worst, abs=1e-6)


@pytest.mark.parametrize("side", [0, 24])
def test_images_are_cropped_and_mirrored_and_nothing_else(side: int) -> None:
    pixels = (
        torch.arange(3 * 40 * 44).remainder(251).view(1, 3, 40, 44).byte().expand(6, -1, -1, -1)
    )
    model = Fixed(*[[float(i) for i in range(6)]] * 3)
    recipe = QualityTraining(epochs=1, crop=side)
    batches = [(pixels, torch.arange(6.0))]
    list(recipe.fit(lambda epoch: batches, model, steps_per_epoch=1, seed=2))
    (seen,) = model.seen
    height, width = (side, side) if side else (40, 44)
    assert seen.shape == (6, 3, height, width)
    whole = pixels[0].float() / 255
    windows = {
        window.numpy().tobytes(): mirrored
        for mirrored, source in ((False, whole), (True, whole.flip(2)))
        for top in range(40 - height + 1)
        for window in source[:, top : top + height].unfold(2, width, 1).movedim(2, 0).contiguous()
    }
    kinds = [windows[image.contiguous().numpy().tobytes()] for image in seen]
    assert set(kinds) == {False, True}
    if side:
        assert len({image.contiguous().numpy().tobytes() for image in seen}) > 4


def test_rates_are_those_of_torch_with_groups_and_steps() -> None:
    recipe = QualityTraining(
        epochs=4,
        peak_lr=1e-3,
        weight_decay=0.0,
        flip=False,
        average_decay=0.0,
        backbone_rate=0.1,
        schedule="steps",
        step_epochs=2,
        decay=0.2,
    )
    *_, state = train(recipe)
    model = network().train()
    backbone = list(model.features.parameters())
    heads = [p for name, p in model.named_parameters() if not name.startswith("features.")]
    optimiser = torch.optim.Adam([{"params": heads}, {"params": backbone, "lr": 1e-4}], lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimiser, step_size=2, gamma=0.2)
    for epoch in range(4):
        for pixels, labels in pictures(epoch):
            optimiser.zero_grad()
            images = (pixels.float() / 255).contiguous(memory_format=torch.channels_last)
            recipe.loss(model, images, labels).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        scheduler.step()
    assert len(scheduler.get_last_lr()) == 2
    expected, first = model.state_dict(), network().state_dict()
    for name in ("features.4.0.conv1.weight", "dr6.0.weight", "regression.weight"):
        change = (expected[name] - first[name]).abs().max()
        assert change > 0
        # rounding errors grow over sixteen steps of Adam, but not to what another rate would do
        torch.testing.assert_close(state.weights[name], expected[name], rtol=0, atol=0.02 * change)
        assert torch.equal(state.average[name], state.weights[name])


def test_a_backbone_at_rate_0_stays_and_heads_learn() -> None:
    recipe = QualityTraining(epochs=1, backbone_rate=0.0)
    *_, state = train(recipe)
    first = network().state_dict()
    same = {name for name, value in first.items() if torch.equal(state.weights[name], value)}
    weights = {name for name, _ in network().named_parameters()}
    assert same & weights == {name for name in weights if name.startswith("features.")}


def test_a_rate_of_steps_goes_on_to_the_same_bits() -> None:
    recipe = QualityTraining(epochs=2, schedule="steps", step_epochs=1, backbone_rate=0.1)
    states = train(recipe)
    kept = stored(next(states))
    *_, expected = states
    *_, found = train(recipe, kept)
    assert all(torch.equal(found.weights[name], expected.weights[name]) for name in found.weights)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="schedule: expected one of one-cycle, steps, got 'sine'"):
        QualityTraining(schedule="sine")


def test_images_smaller_than_the_crop_are_refused() -> None:
    with pytest.raises(ValueError, match="crop: expected at most 40 x 44, got 41 x 41"):
        next(train(QualityTraining(epochs=1, crop=41)))


def test_a_loss_that_is_not_finite_is_refused() -> None:
    model = Fixed(*[[float("nan")] * BATCH] * 3)
    with pytest.raises(FloatingPointError, match="training loss is nan at step 0"):
        next(QualityTraining(epochs=1).fit(pictures, model, steps_per_epoch=STEPS, seed=0))
