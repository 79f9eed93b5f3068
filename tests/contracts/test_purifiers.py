"""What every purifier must fulfil."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from defender.purifiers import PURIFIERS
from defender.types import Purifier
from tests import cases

purifiers = pytest.mark.parametrize("purifier", cases.PURIFIER_CASES, ids=repr)


def dirty(channels: int = 3) -> torch.Tensor:
    images = cases.images(channels=channels)
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
    return (images + 0.06 * (noise - 0.5)).clamp(0, 1)


def purified(purifier: Any, images: torch.Tensor) -> torch.Tensor:
    return purifier(images, seeds=cases.seeds(), reference=cases.images())


def test_every_registered_purifier_has_a_case() -> None:
    assert {type(case) for case in cases.PURIFIER_CASES} == set(PURIFIERS.values())
    assert all(name == kind.__name__ for name, kind in PURIFIERS.items())
    assert len({repr(case) for case in cases.PURIFIER_CASES}) == len(cases.PURIFIER_CASES)


@purifiers
def test_declares_what_it_is(purifier: Any) -> None:
    assert isinstance(purifier, Purifier)
    assert purifier.version >= 1
    assert purifier.paper
    assert purifier.knowledge in ("blind", "pipeline", "model", "reference")
    assert "tensor" not in repr(purifier)
    assert "\n" not in repr(purifier)


@purifiers
def test_keeps_shape_type_and_range(purifier: Any) -> None:
    result = purified(purifier, dirty())
    if purifier.keeps_size:
        assert result.shape == dirty().shape
    assert result.dtype == torch.float32
    assert 0 <= result.min() <= result.max() <= 1
    assert not result.requires_grad


@purifiers
def test_changes_something(purifier: Any) -> None:
    assert not torch.equal(purified(purifier, dirty()), dirty())


@purifiers
def test_parts_end_in_the_purified_images(purifier: Any) -> None:
    parts = purifier.parts(dirty(), seeds=cases.seeds(), reference=cases.images())
    assert torch.equal(parts["purified"], purified(purifier, dirty()))
    for part in parts.values():
        assert part.shape[0] == 8
        if part.dtype != torch.bool:
            assert 0 <= part.min() <= part.max() <= 1


@purifiers
def test_leaves_images_reference_and_model_as_they_were(purifier: Any) -> None:
    images, clean = dirty(), cases.images()
    purifier(images, seeds=cases.seeds(), reference=clean)
    assert torch.equal(images, dirty())
    assert torch.equal(clean, cases.images())
    assert all(parameter.grad is None for parameter in cases.MODEL.parameters())
    assert not any(module._forward_hooks for module in cases.MODEL.modules())


@purifiers
def test_same_seeds_same_output_also_in_inference_mode(purifier: Any) -> None:
    expected = purified(purifier, dirty())
    assert torch.equal(purified(purifier, dirty()), expected)
    with torch.inference_mode():
        assert torch.equal(purified(purifier, dirty()), expected)


@purifiers
@pytest.mark.parametrize("sizes", [[3, 3, 2], [1, 4, 2, 1]], ids=str)
def test_any_split_at_the_compute_batch_gives_the_same(purifier: Any, sizes: list[int]) -> None:
    images, clean, seeds = dirty(), cases.images(), cases.seeds()

    def run(index: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = purifier(images[index], seeds=seeds[index], reference=clean[index])
        return result

    assert torch.equal(cases.in_splits(run, 8, sizes), cases.in_splits(run, 8, [4, 4]))


@purifiers
def test_asks_for_the_reference_only_if_it_says_so(purifier: Any) -> None:
    if purifier.knowledge == "reference":
        with pytest.raises(ValueError, match="reference: expected"):
            purifier(dirty(), seeds=cases.seeds())
    else:
        alone = purifier(dirty(), seeds=cases.seeds())
        assert torch.equal(alone, purified(purifier, dirty()))


@purifiers
def test_blind_purifiers_take_grey_images(purifier: Any) -> None:
    if purifier.knowledge == "blind":
        result = purifier(dirty(channels=1), seeds=cases.seeds())
        assert result.shape[:2] == dirty(channels=1).shape[:2]
        if purifier.keeps_size:
            assert result.shape == dirty(channels=1).shape
