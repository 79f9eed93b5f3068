"""Seeds and numbers that belong to an image and to nothing else."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from defender import noise

WORD = 1 << 64


def reference_mix(word: int) -> int:
    """SplitMix64 on Python integers."""
    word = (word + 0x9E3779B97F4A7C15) % WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % WORD
    return word ^ (word >> 31)


@given(st.integers(-(2**63), 2**63 - 1))
def test_mix_is_splitmix64(word: int) -> None:
    mixed = noise.mix(torch.tensor([word], dtype=torch.int64)).item()
    assert mixed % WORD == reference_mix(word % WORD)


def test_first_outputs_of_splitmix64_from_zero() -> None:
    # the first values of the published C implementation (S. Vigna, splitmix64.c) seeded with 0
    assert noise.mix(torch.tensor([0])).item() % WORD == 0xE220A8397B1DCDAF
    gamma = noise.mix(torch.tensor([0x9E3779B97F4A7C15 - WORD])).item() % WORD
    assert gamma == 0x6E789E6AA1B965F4


def test_streams_differ_and_are_stable() -> None:
    seeds = torch.tensor([0, 1, -5, 2**62])
    streams = ["attack", "purifier", "1", 1, 2]
    derived = [noise.derive_seeds(seeds, stream) for stream in streams]
    assert len({value for row in derived for value in row.tolist()}) == len(streams) * 4
    assert torch.equal(noise.derive_seeds(seeds, "attack"), derived[0])
    assert torch.equal(noise.derive_seeds(seeds[2:3], "attack"), derived[0][2:3])
    key = int.from_bytes(hashlib.blake2b(b"str:attack", digest_size=8).digest(), "little")
    expected = [reference_mix(reference_mix(seed % WORD) ^ key) for seed in seeds.tolist()]
    assert [value % WORD for value in derived[0].tolist()] == expected


@pytest.mark.parametrize("draw", [noise.uniform, noise.normal])
def test_numbers_depend_on_the_seed_of_their_image_alone(draw: object) -> None:
    seeds = torch.tensor([3, -4, 5, 3])
    together = draw(seeds, (2, 3))
    assert together.shape == (4, 2, 3)
    assert torch.equal(together[0], together[3])
    for index in range(4):
        assert torch.equal(draw(seeds[index : index + 1], (2, 3))[0], together[index])


@pytest.mark.parametrize("draw", [noise.uniform, noise.normal])
def test_the_global_generator_is_neither_used_nor_moved(draw: object) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = draw(torch.tensor([1, 2]), (4,))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(draw(torch.tensor([1, 2]), (4,)), first)


@given(low=st.floats(-2, 0), width=st.floats(0.1, 3))
@settings(max_examples=20, deadline=None)
def test_uniform_numbers_keep_their_interval(low: float, width: float) -> None:
    numbers = noise.uniform(torch.arange(8), (64,), low, low + width)
    assert low - 1e-6 <= numbers.min()
    assert numbers.max() <= low + width + 1e-6
    assert abs(numbers.mean().item() - (low + width / 2)) < 0.1 * width


def test_normal_numbers_have_zero_mean_and_unit_variance() -> None:
    numbers = noise.normal(torch.arange(16), (1000,))
    assert abs(numbers.mean()) < 0.03
    assert abs(numbers.std() - 1) < 0.03


def test_integers_are_uniform() -> None:
    seeds = noise.derive_seeds(torch.arange(8000), "count")
    counts = torch.bincount(noise.integers(seeds, 8), minlength=8)
    assert counts.sum() == 8000
    assert (counts - 1000).abs().max() < 130
    assert noise.integers(seeds, 1).unique().tolist() == [0]


def test_signs_are_fair_and_independent() -> None:
    values = noise.signs(torch.arange(4000), 6)
    assert values.unique().tolist() == [-1, 1]
    assert (values.mean(0).abs() < 0.06).all()
    correlation = values.T @ values / 4000 - torch.eye(6)
    assert correlation.abs().max() < 0.08


@pytest.mark.parametrize("seeds", [torch.zeros(3), torch.zeros(3, 1, dtype=torch.int64)])
def test_seeds_are_int64_of_one_dimension(seeds: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="seeds: expected int64"):
        noise.derive_seeds(seeds, "x")
    with pytest.raises(ValueError, match="seeds: expected int64"):
        noise.uniform(seeds, (2,))


@pytest.mark.parametrize("high", [0, -1, 2**31 + 1])
def test_integers_refuse_a_range_they_do_not_cover(high: int) -> None:
    with pytest.raises(ValueError, match="high: expected"):
        noise.integers(torch.arange(3), high)
