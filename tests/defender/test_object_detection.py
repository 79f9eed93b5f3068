from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from defender.attacks.grid_patch import GridPatch
from defender.gradients import value_and_gradient
from defender.metrics.detections import detection_scores, matched
from defender.models.object_detection import (
    Detections,
    ObjectDetector,
    public_class_names,
    torchvision_detector,
)
from defender.objectives_detection import HideObjects, InventObjects
from defender.types import Objective
from tests.defender.object_detectors import FAMILIES, LABELS, SIDE, detector, images

families = pytest.mark.parametrize("family", FAMILIES)
CORNER, PATCH = 16, 32


class Stated(nn.Module):
    """A detector whose proposed boxes have stated confidences, times the image's mean."""

    has_object_at_zero = False

    def __init__(self, confidences: list[list[float]]) -> None:
        super().__init__()
        self.confidences = torch.tensor(confidences).reshape(-1, 3)

    def log_confidences(self, image: Tensor) -> Tensor:
        return self.confidences.log() + image.mean().log()


def stated(*confidences: list[float]) -> ObjectDetector:
    return Stated([[0.0, *row] for row in confidences])  # type: ignore[return-value]


def found(*rows: tuple[float, float, float, float, int, float]) -> Detections:
    """Detections of rows top, left, height, width, label, confidence."""
    table = torch.tensor(rows).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4].long(), table[:, 5])


def pasted(batch: Tensor, patch: Tensor) -> Tensor:
    result = batch.clone()
    result[:, :, CORNER : CORNER + PATCH, CORNER : CORNER + PATCH] = patch
    return result


def random_patch() -> Tensor:
    return torch.rand(3, PATCH, PATCH, generator=torch.Generator().manual_seed(9))


def trained(objective: Objective, batch: Tensor, steps: int = 30) -> tuple[Tensor, list[float]]:
    """A patch at a fixed place by signed ascent, and the mean score before each step."""
    patch, scores = random_patch(), []
    for step in range(steps):
        score, slope = value_and_gradient(objective, pasted(batch, patch))
        scores.append(float(score.mean()))
        inside = slope[:, :, CORNER : CORNER + PATCH, CORNER : CORNER + PATCH].mean(dim=0)
        patch = (patch + 0.06 * (1 - step / steps) * inside.sign()).clamp(0, 1)
    return patch, scores


@families
def test_a_trained_patch_hides_what_is_there(family: str) -> None:
    victim, batch = detector(family), images()
    patch, scores = trained(HideObjects(victim, threshold=0.4), batch)
    assert scores[-1] > 0.65 * scores[0]  # of scores below 0
    clean, hidden = victim(batch), victim(pasted(batch, patch))
    after = detection_scores(clean, hidden)
    control = detection_scores(clean, victim(pasted(batch, random_patch())))
    before = int(after["detections_before"].sum())
    assert before >= 15
    assert after["detections_after"].sum() <= 0.55 * before
    assert after["detections_after"].sum() <= 0.5 * control["detections_after"].sum()
    assert after["vanished"].mean() > 0.45


@families
def test_a_trained_patch_invents_objects_of_a_class(family: str) -> None:
    victim, batch = detector(family), images()
    patch, scores = trained(InventObjects(victim, target=2), batch)
    assert scores[-1] > scores[0] + 0.2
    clean = victim(batch)
    after = detection_scores(clean, victim(pasted(batch, patch)), target=2)
    control = detection_scores(clean, victim(pasted(batch, random_patch())), target=2)
    assert (after["invented"] >= control["invented"] + 2).all()


def test_grid_patch_is_fitted_against_a_detector() -> None:
    victim, batch, seeds = detector("RetinaNet"), images(8), torch.arange(8)
    attack = GridPatch(grid=4, size=0.4, epochs=15, step_size=0.1, target=2)
    goal = InventObjects(victim, target=2)
    (*_, last) = attack.fit([batch], lambda _, places: goal, seeds=seeds)
    assert last.history[-1]["loss"] < last.history[0]["loss"] - 0.2
    assert last.history[-1]["success"] > 0.8
    clean, elsewhere = victim(batch), seeds + 100
    random = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(9))
    invented = {}
    for name, theta in (("fitted", last.theta), ("random", random)):
        patched, boxes = attack.apply(batch, theta, seeds=elsewhere)
        assert boxes[:, 2:].eq(24).all()
        invented[name] = detection_scores(clean, victim(patched), target=2)["invented"]
    assert invented["fitted"].float().mean() > 2 * invented["random"].float().mean() + 2


@families
def test_an_image_gives_the_same_whatever_is_beside_it(family: str) -> None:
    victim, batch = detector(family), images(3)
    for objective in (HideObjects(victim), InventObjects(victim, target=1)):
        scores, slopes = value_and_gradient(objective, batch)
        for index in range(3):
            score, slope = value_and_gradient(objective, batch[index : index + 1])
            assert torch.equal(score[0], scores[index])
            assert torch.equal(slope[0], slopes[index])
        assert torch.equal(objective(batch), scores)
    for alone, beside in zip(
        [victim(image[None])[0] for image in batch], victim(batch), strict=True
    ):
        assert torch.equal(alone.boxes, beside.boxes)
        assert torch.equal(alone.confidences, beside.confidences)


@families
def test_gradients_are_slopes_of_the_score(family: str) -> None:
    victim = detector(family).double()
    batch = images(2).double()
    batch.mul_(0.8).add_(0.1)
    for objective in (HideObjects(victim, reduction="max"), InventObjects(victim, target=3)):
        _, slopes = value_and_gradient(objective, batch)
        direction = slopes / slopes.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        step = 1e-6
        rise = (objective(batch + step * direction) - objective(batch - step * direction)) / 2e-6
        # the regions that Faster R-CNN proposes move with the image, which no gradient follows
        exact = 5e-2 if family == "FasterRCNN" else 1e-4
        torch.testing.assert_close(
            rise, (slopes * direction).sum(dim=(1, 2, 3)), rtol=exact, atol=0
        )


@families
def test_gradients_pass_through_what_comes_before(family: str) -> None:
    victim, batch = detector(family), images(2).requires_grad_(True)
    objective = HideObjects(victim, reduction="mean")
    weights = torch.tensor([2.0, -3.0])
    (slopes,) = torch.autograd.grad((weights * objective(batch.square())).sum(), batch)
    inner = value_and_gradient(objective, batch.detach().square())[1]
    expected = weights.view(-1, 1, 1, 1) * inner * 2 * batch.detach()
    torch.testing.assert_close(slopes, expected)


@families
@pytest.mark.parametrize("shape", [(SIDE, SIDE), (50, 71)])
def test_raw_confidences_are_those_of_what_is_found(family: str, shape: tuple[int, int]) -> None:
    victim = detector(family)
    image = images(1, *shape)[0]
    confidences = victim.log_confidences(image).exp()
    (seen,) = victim(image[None])
    assert confidences.shape[1] == LABELS
    assert len(seen) > 20
    # every one that is found is among the proposed, and none that is surer is suppressed
    for label, confidence in zip(seen.labels, seen.confidences, strict=True):
        assert float((confidences[:, label] - confidence).abs().min()) < 1e-6
    assert float(confidences.amax()) == pytest.approx(float(seen.confidences.amax()), abs=1e-6)
    assert all(first >= second for first, second in pairwise(seen.confidences.tolist()))
    boxes = seen.boxes
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 0] + boxes[:, 2] <= shape[0] + 1e-3).all()
    assert (boxes[:, 1] + boxes[:, 3] <= shape[1] + 1e-3).all()


@families
def test_score_above_zero_says_that_nothing_is_found(family: str) -> None:
    victim, batch = detector(family), images(2)
    surest = [float(seen.confidences.amax()) for seen in victim(batch)]
    for threshold in (0.3, *surest):
        for margin in (-0.02, 0.02):
            objective = HideObjects(victim, threshold=min(threshold + margin, 0.99))
            hidden = [len(seen.above(objective.threshold)) == 0 for seen in victim(batch)]
            assert (objective(batch) > 0).tolist() == hidden


def test_scores_by_hand() -> None:
    victim = stated([0.9, 0.1], [0.2, 0.5], [0.1, 0.1])
    white = torch.ones(1, 3, 2, 2)

    def score(objective: Objective) -> float:
        return float(objective(white))

    def margin(confidence: float, threshold: float) -> float:
        return math.log(1 - confidence) - math.log(1 - threshold)

    first, second = margin(0.9, 0.3), margin(0.5, 0.3)
    assert score(HideObjects(victim)) == pytest.approx(first + second, rel=1e-5)
    assert score(HideObjects(victim, reduction="mean")) == pytest.approx(
        (first + second) / 3, rel=1e-5
    )
    assert score(HideObjects(victim, reduction="max")) == pytest.approx(first, rel=1e-5)
    assert score(HideObjects(victim, target=2)) == pytest.approx(second, rel=1e-5)
    assert score(HideObjects(victim, threshold=0.95)) == pytest.approx(margin(0.9, 0.95), rel=1e-5)
    assert score(InventObjects(victim, target=1, boxes=2)) == pytest.approx(
        (math.log(0.9 / 0.5) + math.log(0.2 / 0.5)) / 2, rel=1e-5
    )
    everything = InventObjects(victim, target=2, threshold=0.1)
    assert score(everything) == pytest.approx(math.log(5) / 3, rel=1e-5)


def test_an_image_without_proposed_boxes() -> None:
    white = torch.ones(2, 3, 2, 2)
    hidden, slope = value_and_gradient(HideObjects(stated()), white)
    assert hidden.tolist() == pytest.approx([-math.log(0.7)] * 2)
    assert not slope.any()
    invented, slope = value_and_gradient(InventObjects(stated(), target=1), white)
    assert (invented < -10).all()
    assert not slope.any()


def test_certainty_has_finite_slopes() -> None:
    scores, slopes = value_and_gradient(HideObjects(stated([1.0, 0.0])), torch.ones(1, 3, 2, 2))
    assert scores.isfinite().all()
    assert slopes.isfinite().all()


def test_grey_images_are_seen_as_colour() -> None:
    victim, grey = detector("SSD"), images(2)[:, :1]
    objective = HideObjects(victim)
    scores, slopes = value_and_gradient(objective, grey)
    assert slopes.shape == grey.shape
    assert torch.equal(scores, objective(grey.expand(-1, 3, -1, -1)))
    assert torch.equal(victim(grey)[0].boxes, victim(grey.expand(-1, 3, -1, -1))[0].boxes)


def test_the_detector_is_frozen_and_known_by_its_digest() -> None:
    victim = detector("RetinaNet")
    assert repr(victim) == "retinanet@0123456789ab"
    assert not any(weight.requires_grad for weight in victim.parameters())
    assert not victim.training
    before = {name: value.clone() for name, value in victim.state_dict().items()}
    value_and_gradient(HideObjects(victim), images(1))
    assert all(torch.equal(before[name], value) for name, value in victim.state_dict().items())
    assert all(weight.grad is None for weight in victim.parameters())


def test_errors() -> None:
    victim, batch = detector("SSD"), images(1)
    for target in (0, LABELS):
        with pytest.raises(ValueError, match=f"target: expected 1 to 3, .* got {target}"):
            InventObjects(victim, target=target)(batch)
    with pytest.raises(ValueError, match="target: expected 0 to 3"):
        HideObjects(detector("FCOS"), target=LABELS)(batch)
    with pytest.raises(ValueError, match="threshold: expected"):
        HideObjects(victim, threshold=1.0)
    with pytest.raises(ValueError, match=r"reduction: expected sum \| mean \| max"):
        HideObjects(victim, reduction="median")
    with pytest.raises(ValueError, match="boxes: expected >= 1"):
        InventObjects(victim, target=1, boxes=0)
    with pytest.raises(TypeError, match=r"expected an object detector of torchvision .* Linear"):
        ObjectDetector(nn.Linear(1, 1))
    victim.train()
    for call in (victim, HideObjects(victim)):
        with pytest.raises(ValueError, match=r"expected ssd@.* in evaluation mode"):
            call(batch)


def test_architectures_of_torchvision() -> None:
    network = torchvision_detector("ssdlite320_mobilenet_v3_large", labels=3)
    victim = ObjectDetector(network, name="ssdlite")
    assert victim.family == "SSD"
    assert victim.log_confidences(images(1)[0]).shape == (3234, 3)
    with pytest.raises(ValueError, match=r"expected one of torchvision's object detectors, .*ssd"):
        torchvision_detector("resnet50")
    with pytest.raises(ValueError, match="labels: expected none beside public weights, got 3"):
        torchvision_detector("retinanet_resnet50_fpn", public_weights=True, labels=3)
    names = public_class_names("fasterrcnn_resnet50_fpn")
    assert (names[0], names[1], names[18], len(names)) == ("__background__", "person", "dog", 91)


def test_detections_found_again_by_hand() -> None:
    first = found((0, 0, 10, 10, 1, 0.9), (0, 0, 10, 10, 2, 0.8), (50, 50, 10, 20, 1, 0.7))
    # the second row shares 5 x 10 of 150 pixels, the third 10 x 15 of 10 x 25
    second = found((0, 1, 10, 10, 1, 0.6), (5, 0, 10, 10, 2, 0.9), (50, 55, 10, 20, 1, 0.9))
    assert matched(first, second).tolist() == [True, False, True]
    assert matched(first, second, iou=0.7).tolist() == [True, False, False]
    assert matched(first, second, iou=0.3).tolist() == [True, True, True]
    assert matched(first, found()).tolist() == [False] * 3
    assert matched(found(), first).tolist() == []


def test_one_detection_is_found_again_once_and_by_the_surest() -> None:
    twice = found((0, 0, 10, 10, 1, 0.6), (0, 0, 10, 11, 1, 0.9))
    once = found((0, 0, 10, 10, 1, 0.9))
    assert matched(twice, once).tolist() == [False, True]
    assert matched(once, twice).tolist() == [True]


def test_scores_of_detections_by_hand() -> None:
    clean = [
        found((0, 0, 10, 10, 1, 0.9), (20, 20, 10, 10, 2, 0.6), (40, 40, 10, 10, 2, 0.3)),
        found((0, 0, 10, 10, 1, 0.4)),
        found((0, 0, 10, 10, 1, 0.8)),
    ]
    patched = [
        found((0, 0, 10, 10, 1, 0.5), (20, 20, 10, 10, 1, 0.6), (60, 60, 10, 10, 2, 0.9)),
        found((0, 0, 10, 10, 1, 0.7)),
        found((0, 0, 10, 10, 1, 0.49)),
    ]
    scores = detection_scores(clean, patched)
    assert scores["detections_before"].tolist() == [2, 0, 1]
    assert scores["detections_after"].tolist() == [3, 1, 0]
    assert scores["vanished"].tolist() == pytest.approx([0.5, math.nan, 1.0], nan_ok=True)
    assert scores["invented"].tolist() == [2, 1, 0]
    assert detection_scores(clean, patched, target=1)["invented"].tolist() == [1, 1, 0]
    assert detection_scores(clean, patched, threshold=0.65)["vanished"].tolist() == pytest.approx(
        [1.0, math.nan, 1.0], nan_ok=True
    )
    assert {len(column) for column in detection_scores([], []).values()} == {0}
    with pytest.raises(ValueError, match="patched: expected 3 images, got 2"):
        detection_scores(clean, patched[:2])
    with pytest.raises(ValueError, match=r"iou: expected \(0, 1\], got 0"):
        detection_scores(clean, patched, iou=0)


def test_boxes_are_places_in_the_image() -> None:
    # the network's own boxes are left, top, right, bottom
    victim, batch = detector("RetinaNet"), images(1, 48, 96)
    (seen,) = victim(batch)
    (own,) = victim.network(list(batch))
    top, left, height, width = seen.boxes.unbind(dim=1)
    torch.testing.assert_close(
        torch.stack([left, top, left + width, top + height], dim=1), own["boxes"].detach()
    )
