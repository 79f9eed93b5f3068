"""Steps, projections, random starts, and rounding that stays inside the budget."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from defender import norms
from defender.norms import from_uint8, quantise_within, to_uint8
from tests import cases

EPSILONS = st.one_of(
    st.floats(0, 1), st.integers(0, 255).map(lambda k: k / 255), st.sampled_from([0.03, 1e-9])
)


def pixels(seed: int, n: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 256, (n, 2, 5, 4), generator=generator, dtype=torch.uint8)
    values[:, 0, 0] = 0
    values[:, 0, 1] = 255
    return values


def noise_like(images: torch.Tensor, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images.shape, generator=generator)


def test_all_8_bit_values_survive_the_way_through_floats() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_uint8(from_uint8(values)), values)


def test_to_uint8_rounds_and_clamps() -> None:
    values = torch.tensor([-0.1, 0.0, 0.4 / 255, 0.6 / 255, 1.5, 254.4 / 255])
    assert to_uint8(values).tolist() == [0, 0, 0, 1, 255, 254]


@pytest.mark.parametrize(
    ("epsilon", "levels"),
    [(0.03, 7), (8 / 255, 8), (1 / 255, 1), (2 / 255, 2), (0.0, 0), (0.0039, 0), (0.05, 12)],
)
def test_linf_budgets_in_levels(epsilon: float, levels: int) -> None:
    clean = from_uint8(torch.full((1, 1, 2, 2), 100, dtype=torch.uint8))
    up = quantise_within(clean + epsilon, clean, norm="linf", epsilon=epsilon)
    down = quantise_within(clean - epsilon, clean, norm="linf", epsilon=epsilon)
    assert up.unique().tolist() == [100 + levels]
    assert down.unique().tolist() == [100 - levels]


def test_every_whole_number_of_levels_is_kept() -> None:
    clean = from_uint8(torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16))
    for levels in range(256):
        epsilon = levels / 255
        stored = quantise_within(clean + epsilon, clean, norm="linf", epsilon=epsilon)
        assert torch.equal(stored, to_uint8(clean + epsilon))


@given(seed=st.integers(0, 2**31), epsilon=EPSILONS, spread=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_rounding_never_leaves_the_linf_ball(seed: int, epsilon: float, spread: float) -> None:
    original = pixels(seed)
    clean = from_uint8(original)
    attacked = clean + spread * noise_like(clean, seed)
    stored = quantise_within(attacked, clean, norm="linf", epsilon=epsilon)
    assert stored.dtype == torch.uint8
    change = (stored.int() - original.int()).abs().max().item()
    assert change <= epsilon * 255 + 1e-6


@given(seed=st.integers(0, 2**31), epsilon=st.floats(0, 8), spread=st.floats(0, 0.3))
@settings(max_examples=60, deadline=None)
def test_rounding_never_leaves_the_l2_ball(seed: int, epsilon: float, spread: float) -> None:
    original = pixels(seed)
    clean = from_uint8(original)
    attacked = (clean + spread * noise_like(clean, seed)).clamp(0, 1)
    stored = quantise_within(attacked, clean, norm="l2", epsilon=epsilon)
    change = (stored.double() - original.double()).flatten(1) / 255
    assert torch.linalg.vector_norm(change, dim=1).max().item() <= epsilon + 1e-6


def test_l2_rounding_is_plain_where_plain_rounding_stays_inside() -> None:
    clean = from_uint8(pixels(1))
    attacked = (clean + 0.01 * noise_like(clean, 1)).clamp(0, 1)
    stored = quantise_within(attacked, clean, norm="l2", epsilon=5.0)
    assert torch.equal(stored, to_uint8(attacked))


def test_l2_rounding_gives_up_only_the_values_nearest_to_a_half() -> None:
    clean = from_uint8(torch.full((1, 1, 1, 4), 100, dtype=torch.uint8))
    change = torch.tensor([0.95, 0.9, -0.6, 0.55]).view(1, 1, 1, 4) / 255
    radius = float(change.norm())
    stored = quantise_within(clean + change, clean, norm="l2", epsilon=radius)
    assert stored.flatten().tolist() == [101, 101, 100, 100]


def test_without_a_norm_rounding_is_plain() -> None:
    clean = from_uint8(pixels(2))
    attacked = (clean + 0.2 * noise_like(clean, 2)).clamp(0, 1)
    stored = quantise_within(attacked, clean, norm=None, epsilon=None)
    assert torch.equal(stored, to_uint8(attacked))


def test_rounding_names_what_it_cannot_use() -> None:
    clean = from_uint8(pixels(3))
    with pytest.raises(ValueError, match=r"norm: expected linf \| l2, got 'l1'"):
        quantise_within(clean, clean, norm="l1", epsilon=0.1)
    with pytest.raises(ValueError, match="epsilon: expected >= 0 for norm 'linf', got None"):
        quantise_within(clean, clean, norm="linf", epsilon=None)
    with pytest.raises(ValueError, match="attacked: expected"):
        quantise_within(clean[:1], clean, norm="linf", epsilon=0.1)
    with pytest.raises(ValueError, match="multiples of 1/255"):
        quantise_within(clean, clean * 0.9, norm="linf", epsilon=0.1)


@given(seed=st.integers(0, 2**31), epsilon=st.floats(0, 1), norm=st.sampled_from(norms.NORMS))
@settings(max_examples=40, deadline=None)
def test_projection_ends_inside_and_leaves_the_inside_alone(
    seed: int, epsilon: float, norm: str
) -> None:
    clean = from_uint8(pixels(seed))
    projected = norms.project_(clean + noise_like(clean, seed), clean, epsilon, norm)
    order = torch.inf if norm == "linf" else 2
    change = torch.linalg.vector_norm((projected - clean).flatten(1), order, dim=1)
    assert change.max().item() <= epsilon * (1 + 1e-5) + 1e-6
    assert 0 <= projected.min() <= projected.max() <= 1
    again = norms.project_(projected.clone(), clean, epsilon, norm)
    assert torch.allclose(again, projected, atol=1e-6)


@pytest.mark.parametrize("norm", norms.NORMS)
def test_a_step_has_its_length_and_rises(norm: str) -> None:
    images = from_uint8(pixels(4))
    slopes = noise_like(images, 5) * torch.tensor([1e-30, 1.0, 1e30]).view(3, 1, 1, 1)
    moved = norms.ascend_(images.clone(), slopes.clone(), 0.1, norm) - images
    order = torch.inf if norm == "linf" else 2
    length = torch.linalg.vector_norm(moved.flatten(1), order, dim=1)
    assert torch.allclose(length, torch.full((3,), 0.1), atol=1e-5)
    assert ((moved * slopes.sign()).flatten(1).sum(1) > 0).all()


def test_an_l2_step_without_a_gradient_stays() -> None:
    images = from_uint8(pixels(4))
    assert torch.equal(norms.ascend_(images.clone(), torch.zeros_like(images), 0.1, "l2"), images)


@pytest.mark.parametrize("norm", norms.NORMS)
def test_random_starts_fill_the_ball(norm: str) -> None:
    clean = torch.full((64, 1, 2, 2), 0.5)
    start = norms.random_start(clean, 0.2, norm, cases.seeds(64))
    order = torch.inf if norm == "linf" else 2
    length = torch.linalg.vector_norm((start - clean).flatten(1), order, dim=1)
    assert length.max() <= 0.2 + 1e-6
    assert length.std() > 0.01
    # in a ball of 4 dimensions the mean radius is 4/5 of the full one, in both norms
    assert abs(length.mean() - 0.16) < 0.02
    assert torch.equal(start[7:9], norms.random_start(clean[:2], 0.2, norm, cases.seeds(64)[7:9]))


def test_unknown_norms_are_named() -> None:
    images = from_uint8(pixels(1))
    for call in (
        lambda: norms.ascend_(images, images, 0.1, "l0"),
        lambda: norms.project_(images, images, 0.1, "l0"),
        lambda: norms.random_start(images, 0.1, "l0", cases.seeds(3)),
    ):
        with pytest.raises(ValueError, match="norm: expected linf"):
            call()
