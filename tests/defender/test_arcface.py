"""ArcFace: the margin by hand, and a training that goes on from any epoch to the same bits."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from defender.arcface import ArcFaceHead, FaceTraining, additive_angular_margin
from defender.models.face_encoder import FaceEncoder
from defender.training import TrainingState


def test_margin_by_hand() -> None:
    angles = torch.tensor([[0.3, 1.0], [2.0, 0.7]], dtype=torch.float64)
    logits = additive_angular_margin(angles.cos(), torch.tensor([0, 1]), margin=0.5, scale=10)
    wanted = [[math.cos(0.8), math.cos(1.0)], [math.cos(2.0), math.cos(1.2)]]
    torch.testing.assert_close(logits, 10 * torch.tensor(wanted, dtype=torch.float64))


def test_the_logit_falls_with_the_angle_beyond_where_the_cosine_turns() -> None:
    angles = torch.linspace(0, math.pi, 400, dtype=torch.float64)
    cosines = torch.stack([angles.cos(), torch.zeros_like(angles)], dim=1)
    logits = additive_angular_margin(cosines, torch.zeros(400, dtype=torch.int64), scale=1.0)
    assert (logits[:, 0].diff() < 0).all()
    assert bool((logits[:, 1] == 0).all())


def test_gradients_are_finite_where_the_angle_is_none_or_straight() -> None:
    cosines = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], requires_grad=True)
    additive_angular_margin(cosines, torch.tensor([0, 0])).sum().backward()  # type: ignore[no-untyped-call]
    assert cosines.grad is not None
    assert bool(cosines.grad.isfinite().all())


def test_without_a_margin_it_is_a_scaled_softmax() -> None:
    head = ArcFaceHead(3, 4)
    embeddings = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    cosines = head(7 * embeddings)
    wanted = nn.functional.cosine_similarity(embeddings[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(cosines, wanted)
    people = torch.tensor([0, 1, 2, 0, 1])
    loss = FaceTraining(margin=0.0, scale=4.0).loss(cosines, people)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(4 * wanted, people))


class Tiny(nn.Module):
    """A convolution with dropout, as the large encoders have it, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Dropout(0.4), nn.Flatten(), nn.Linear(32, 8)
        )
        self.encoder = FaceEncoder(network, (8, 8))
        self.head = ArcFaceHead(3, 8)

    def forward(self, images: Tensor) -> Tensor:
        cosines: Tensor = self.head(self.encoder(images))
        return cosines


PEOPLE = torch.arange(24) % 3
PIXELS = (
    torch.stack([torch.full((1, 10, 10), 60 + 60 * int(p), dtype=torch.uint8) for p in PEOPLE])
    + torch.randint(0, 40, (24, 1, 10, 10), generator=torch.Generator().manual_seed(1))
).to(torch.uint8)


def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(24, generator=torch.Generator().manual_seed(epoch))
    for part in order.split(8):
        yield PIXELS[part], PEOPLE[part]


RECIPE = FaceTraining(
    epochs=4, peak_lr=0.02, scale=8.0, margin=0.2, padding=1, brightness=0.02, average_decay=0.5
)


def states(model: nn.Module, state: TrainingState | None = None) -> list[TrainingState]:
    fitted = RECIPE.fit(batches, model, steps_per_epoch=3, seed=5, state=state)
    return [copy.deepcopy(state) for state in fitted]


def test_training_goes_on_from_an_epoch_to_the_same_bits() -> None:
    whole = states(Tiny())
    assert [state.epoch for state in whole] == [1, 2, 3, 4]
    torch.manual_seed(99)  # the process that goes on has another history
    rest = states(Tiny(), whole[1])
    assert [state.epoch for state in rest] == [3, 4]
    for name in ("weights", "average"):
        one, other = getattr(whole[-1], name), getattr(rest[-1], name)
        assert all(torch.equal(one[k], other[k]) for k in one)
    assert whole[-1].history == rest[-1].history


def test_training_tells_people_apart_and_leaves_the_generator_alone() -> None:
    model = Tiny()
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    trained = states(model)
    assert torch.equal(torch.rand(2), wanted)
    losses = [record["loss"] for record in trained[-1].history]
    assert losses[-1] < 0.7 * losses[0]
    model.eval()
    right = model(PIXELS.float() / 255).argmax(1) == PEOPLE
    assert right.double().mean() > 0.9


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    model = Tiny()
    nn.init.constant_(model.head.weight, math.nan)
    with pytest.raises(FloatingPointError, match="training loss is nan at step 0"):
        states(model)
