from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from defender.scaling import Pipeline
from defender.training import ClassifierTraining, through_one

PLAIN = {"padding": 0, "flip": False, "cutout": 0, "label_smoothing": 0.0, "weight_decay": 0.0}


class Constant(nn.Module):
    """The same logits whatever it sees: it can learn how frequent classes are, and no more."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(classes))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        return self.bias.expand(len(images), -1)


def three_to_one(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    for _ in range(10):
        yield torch.zeros(8, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 1, 1] * 2)


@pytest.mark.parametrize(
    ("weights", "expected"), [("equal", [0.25, 0.75]), ("balanced", [0.5, 0.5])]
)
@pytest.mark.parametrize("classes", [2, 3])
def test_balanced_weights_give_rare_classes_the_same_say(
    weights: str, expected: list[float], classes: int
) -> None:
    model = Constant(classes)
    recipe = ClassifierTraining(epochs=30, peak_lr=0.5, class_weights=weights, **PLAIN)
    list(recipe.fit(three_to_one, model, steps_per_epoch=10, seed=0, class_counts=[20, 60]))
    shares = model.bias.detach().softmax(0)[:2]
    torch.testing.assert_close(shares / shares.sum(), torch.tensor(expected), rtol=0, atol=0.02)


class Recorder(Constant):
    """Keeps the images it saw."""

    def forward(self, images: Tensor) -> Tensor:
        self.images = images.detach().clone()
        return super().forward(images)


def black_and_white(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    pixels = torch.tensor([0, 255] * 4, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 1, 4, 4)
    yield pixels, torch.tensor([0, 1] * 4)


def test_mixup_mixes_images_and_their_losses_by_one_share_a_batch() -> None:
    recipe = ClassifierTraining(epochs=1, mixup=0.4, peak_lr=1e-9, **PLAIN)
    model = Recorder(2)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([2.0, 0.0]))
    (state,) = recipe.fit(black_and_white, model, steps_per_epoch=1, seed=3)
    seen = model.images[:, 0, 0, 0].double()
    shares = sorted({round(value, 6) for value in seen.tolist()})
    inside = [value for value in shares if 0 < value < 1]
    assert inside
    assert all(
        abs(value - inside[0]) < 1e-5 or abs(value - 1 + inside[0]) < 1e-5 for value in inside
    )
    # constant logits: an image's loss is its share of white times log-loss of 1, and the rest of 0
    losses = -torch.tensor([2.0, 0.0]).double().log_softmax(0)
    expected = (1 - seen) * losses[0] + seen * losses[1]
    assert state.history[0]["loss"] == pytest.approx(expected.mean().item(), rel=1e-5)
    again = Recorder(2)
    list(recipe.fit(black_and_white, again, steps_per_epoch=1, seed=3))
    assert torch.equal(again.images, model.images)


def test_balanced_weights_need_counts() -> None:
    recipe = ClassifierTraining(epochs=1, class_weights="balanced", **PLAIN)
    with pytest.raises(ValueError, match="class_counts: expected"):
        next(recipe.fit(three_to_one, Constant(2), steps_per_epoch=10, seed=0))


def test_the_model_sees_what_a_pipeline_makes() -> None:
    model = Constant(2)
    recipe = ClassifierTraining(epochs=1, **PLAIN)
    list(
        recipe.fit(
            three_to_one, model, steps_per_epoch=10, seed=0, pipelines=[Pipeline(target=(3, 2))]
        )
    )
    assert set(model.seen) == {(8, 1, 3, 2)}


def test_each_image_goes_through_one_pipeline_drawn_for_it() -> None:
    images = torch.rand(40, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    pipelines = [Pipeline("opencv", name, target=(4, 4)) for name in ("nearest", "area")]
    nearest, area = (pipeline.of(images)(images) for pipeline in pipelines)
    scaled = through_one(images, pipelines, torch.Generator().manual_seed(1))
    by_nearest = (scaled == nearest).all(dim=3).all(dim=2).all(dim=1)
    by_area = (scaled == area).all(dim=3).all(dim=2).all(dim=1)
    assert torch.equal(by_nearest, ~by_area)
    assert 8 < by_nearest.sum() < 32
    again = through_one(images, pipelines, torch.Generator().manual_seed(1))
    assert torch.equal(scaled, again)
