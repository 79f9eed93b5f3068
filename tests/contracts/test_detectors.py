"""What every detector must fulfil."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from defender.detectors import DETECTORS
from defender.types import Detector
from tests import cases

detectors = pytest.mark.parametrize("detector", cases.DETECTOR_CASES, ids=repr)


def suspicious() -> torch.Tensor:
    noise = torch.rand(cases.images().shape, generator=torch.Generator().manual_seed(1))
    return (cases.images() + 0.06 * (noise - 0.5)).clamp(0, 1)


def score(detector: Any, images: torch.Tensor) -> torch.Tensor:
    return detector(images, seeds=cases.seeds(), reference=cases.images())


def test_every_registered_detector_has_a_case() -> None:
    assert {type(case) for case in cases.DETECTOR_CASES} == set(DETECTORS.values())
    assert all(name == kind.__name__ for name, kind in DETECTORS.items())


@detectors
def test_declares_what_it_is(detector: Any) -> None:
    assert isinstance(detector, Detector)
    assert detector.version >= 1
    assert detector.paper
    assert detector.knowledge in ("blind", "pipeline", "model", "reference")
    assert "tensor" not in repr(detector)
    assert "\n" not in repr(detector)


@detectors
def test_gives_one_finite_score_an_image(detector: Any) -> None:
    scores = score(detector, suspicious())
    assert scores.shape == (8,)
    assert torch.isfinite(scores).all()
    assert not scores.requires_grad


@detectors
def test_map_says_where(detector: Any) -> None:
    where = detector.map(suspicious(), seeds=cases.seeds(), reference=cases.images())
    if where is not None:
        assert where.dtype == torch.bool
        assert where.shape == suspicious().shape


@detectors
def test_leaves_images_and_model_as_they_were(detector: Any) -> None:
    images = suspicious()
    score(detector, images)
    assert torch.equal(images, suspicious())
    assert all(parameter.grad is None for parameter in cases.MODEL.parameters())


@detectors
def test_same_seeds_same_scores_also_in_inference_mode(detector: Any) -> None:
    expected = score(detector, suspicious())
    assert torch.equal(score(detector, suspicious()), expected)
    with torch.inference_mode():
        assert torch.equal(score(detector, suspicious()), expected)


@detectors
def test_any_split_at_the_compute_batch_gives_the_same(detector: Any) -> None:
    images, clean, seeds = suspicious(), cases.images(), cases.seeds()

    def run(index: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = detector(images[index], seeds=seeds[index], reference=clean[index])
        return scores

    assert torch.equal(cases.in_splits(run, 8, [3, 1, 4]), cases.in_splits(run, 8, [4, 4]))


@detectors
def test_asks_for_the_reference_only_if_it_says_so(detector: Any) -> None:
    if detector.knowledge == "reference":
        with pytest.raises(ValueError, match="reference: expected"):
            detector(suspicious(), seeds=cases.seeds())
    else:
        alone = detector(suspicious(), seeds=cases.seeds())
        assert torch.equal(alone, score(detector, suspicious()))
