"""The iterative window mean filter: its windows, its waves, its gradient and its properties."""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from defender import iwmf_means, iwmf_waves
from defender.noise import derive_seeds
from defender.objectives import Defended, Misclassify
from defender.purifiers import IWMF
from tests import cases


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def looped(images: Tensor, corners: Tensor, window: int) -> Tensor:
    """Out of place, so that autograd can follow."""
    filtered = []
    for image, sequence in zip(images, corners.tolist(), strict=True):
        for corner in sequence:
            top, left = divmod(corner, images.shape[-1])
            inside = torch.zeros(images.shape[-2:], dtype=torch.bool)
            inside[top : top + window, left : left + window] = True
            image = torch.where(inside, image[:, inside].mean(dim=1)[:, None, None], image)
        filtered.append(image)
    return torch.stack(filtered)


@pytest.mark.parametrize(("window", "last"), [(1, (4, 6)), (2, (2, 4)), (3, (2, 4)), (4, (0, 2))])
def test_centres_are_uniform_on_what_the_definition_allows(
    window: int, last: tuple[int, int]
) -> None:
    # r is one of floor(s / 2), ..., H - floor(s / 2) - 1, so blocks begin at 0, ..., last
    corners = iwmf_means.draw(cases.seeds(4), 5000, (5, 7), window)
    assert corners.dtype == torch.int32
    tops, lefts = corners // 7, corners % 7
    counts = torch.zeros(last[0] + 1, last[1] + 1)
    counts.index_put_((tops.flatten(), lefts.flatten()), torch.ones(20_000), accumulate=True)
    expected = 20_000 / counts.numel()
    assert ((counts - expected).abs() < 5 * math.sqrt(expected)).all()


def test_windows_of_one_key_are_independent_of_their_number_and_of_other_keys() -> None:
    many = iwmf_means.draw(cases.seeds(5), 300, (40, 30), 3)
    assert torch.equal(iwmf_means.draw(cases.seeds(5)[3:4], 100, (40, 30), 3), many[3:4, :100])
    assert len({tuple(sequence) for sequence in many.tolist()}) == 5


@pytest.mark.parametrize("window", [1, 2, 3, 6])
def test_compiled_code_draws_the_words_of_the_project_s_generator(window: int) -> None:
    kernels = pytest.importorskip("defender.iwmf_kernels")
    keys = torch.tensor([0, -1, 2**63 - 1, -(2**63), 12345])
    made = kernels.draw(keys.numpy(), 400, (31, 57), window)
    expected = iwmf_means.drawn_by_torch(keys, 400, (31, 57), window)
    assert np.array_equal(made, expected.numpy())


@pytest.mark.parametrize("window", [2, 3, 4])
def test_waves_are_disjoint_and_keep_the_order_of_what_overlaps(window: int) -> None:
    size, count = (23, 31), 400
    corners = iwmf_means.draw(cases.seeds(2), count, size, window)
    number: dict[int, list[int]] = {}
    for index, wave in enumerate(iwmf_waves.waves(corners, size, window)):
        for corner in wave.tolist():
            number.setdefault(corner, []).append(index)
    for image, sequence in enumerate(corners.tolist()):
        latest = np.full(size, -1)
        for corner in sequence:
            top, left = divmod(corner, 31)
            block = latest[top : top + window, left : left + window]
            wave = number[corner + 713 * image].pop(0)
            # as early as what it overlaps allows, and never together with it
            assert wave == block.max() + 1
            block[:] = wave
    assert not any(number.values())


def test_there_are_few_waves() -> None:
    corners = iwmf_means.draw(cases.seeds(1), int(0.25 * 112 * 112), (112, 112), 3)
    assert 10 <= len(list(iwmf_waves.waves(corners, (112, 112), 3))) <= 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shared", [True, False])
def test_compiled_code_and_waves_agree_to_the_bit(dtype: torch.dtype, shared: bool) -> None:
    pytest.importorskip("numba")
    images = noise(3, 3, 20, 26).to(dtype, memory_format=torch.channels_last)
    corners = iwmf_means.draw(cases.seeds(1 if shared else 3), 300, (20, 26), 3)
    made = iwmf_means.replaced(images, corners, 3)
    assert made.dtype == dtype
    assert torch.equal(made, iwmf_waves.replaced(images, corners, 3))


@pytest.mark.parametrize("shared", [True, False])
def test_nothing_changes_where_numba_is_missing(
    monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    purifier, images = IWMF(shared=shared), noise(3, 3, 20, 26)
    expected = purifier(images, seeds=cases.seeds(3))
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "defender.iwmf_kernels", raising=False)
    monkeypatch.setattr(iwmf_means, "kernels", iwmf_means.kernels.__wrapped__)
    assert iwmf_means.kernels() is None
    assert torch.equal(purifier(images, seeds=cases.seeds(3)), expected)


def test_code_is_compiled_where_there_is_no_folder_to_keep_it_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernels = pytest.importorskip("defender.iwmf_kernels")
    monkeypatch.setattr("numba.core.caching.CompileResultCacheImpl._locator_classes", [])
    add = kernels._compiled(lambda x, y: x + y)
    assert add(1, 2) == 3
    assert add.nopython_signatures


def test_threads_do_not_disturb_each_other() -> None:
    images = noise(8, 3, 40, 40)
    expected = IWMF()(images, seeds=cases.seeds())
    with ThreadPoolExecutor(4) as threads:
        parts = threads.map(
            lambda i: IWMF()(images[i : i + 1], seeds=cases.seeds()[i : i + 1]), range(8)
        )
        assert torch.equal(torch.cat(list(parts)), expected)


def test_a_later_window_sees_what_an_earlier_one_left() -> None:
    row = torch.tensor([0.0, 0.0, 0.5]).expand(1, 1, 2, 3)
    right, left = [1], [0]
    made = iwmf_means.replaced(row, torch.tensor([right + left], dtype=torch.int32), 2)
    assert made[0, 0].tolist() == [[0.125, 0.125, 0.25]] * 2
    made = iwmf_means.replaced(row, torch.tensor([left + right], dtype=torch.int32), 2)
    assert made[0, 0].tolist() == [[0.0, 0.25, 0.25]] * 2


def test_the_number_of_windows_is_rounded_down() -> None:
    # one place for a window of 3 in an image of 3 x 3
    image = noise(1, 1, 3, 3)
    assert torch.equal(IWMF(0.11)(image, seeds=cases.seeds(1)), image)
    made = IWMF(0.12)(image, seeds=cases.seeds(1))
    assert torch.allclose(made, image.mean().expand_as(image), atol=1e-7)


@pytest.mark.parametrize("lambda_0", [0.25, 0.4])
def test_few_pixels_stay_untouched(lambda_0: float) -> None:
    images = noise(8, 1, 224, 224)
    same = IWMF(lambda_0)(images, seeds=cases.seeds()) == images
    share = float(same[:, :, 2:-2, 2:-2].float().mean())
    assert share == pytest.approx(math.exp(-9 * lambda_0), abs=0.005)


@pytest.mark.parametrize("window", [2, 3, 5, 7])
def test_range_is_kept_exactly_and_constant_images_stay(window: int) -> None:
    purifier = IWMF(1.0, window)
    for level in (0.0, 1.0):
        image = torch.full((1, 3, 30, 30), level)
        assert torch.equal(purifier(image, seeds=cases.seeds(1)), image)
    image = torch.full((1, 3, 30, 30), 0.3)
    assert (purifier(image, seeds=cases.seeds(1)) - image).abs().max() <= 1e-6
    binary = (noise(4, 1, 30, 30) > 0.1).float()
    made = purifier(binary, seeds=cases.seeds(4))
    assert 0 <= made.min() <= made.max() <= 1


@pytest.mark.parametrize("shared", [True, False])
def test_an_image_s_result_is_its_own(shared: bool) -> None:
    purifier, images = IWMF(shared=shared), noise(6, 3, 21, 34)
    together = purifier(images, seeds=cases.seeds(6))
    for index in range(6):
        alone = purifier(images[index : index + 1], seeds=cases.seeds(6)[index : index + 1])
        assert torch.equal(alone[0], together[index])


def test_shared_windows_depend_on_the_size_alone() -> None:
    same = noise(1, 1, 24, 24).expand(3, 1, 24, 24)
    own = IWMF()(same, seeds=cases.seeds(3))
    assert not torch.equal(own[0], own[1])
    shared = IWMF(shared=True)(same, seeds=cases.seeds(3))
    assert torch.equal(shared[0], shared[1])
    assert torch.equal(shared, IWMF(shared=True)(same, seeds=cases.seeds(3) + 1))


def test_channels_share_their_windows() -> None:
    images = noise(2, 3, 24, 24)
    colour = IWMF()(images, seeds=cases.seeds(2))
    for channel in range(3):
        grey = IWMF()(images[:, channel : channel + 1], seeds=cases.seeds(2))
        assert torch.equal(grey, colour[:, channel : channel + 1])


@pytest.mark.parametrize(("size", "window"), [((2, 9), 3), ((9, 2), 3), ((1, 1), 2), ((2, 2), 2)])
def test_images_with_no_place_for_a_window_stay(size: tuple[int, int], window: int) -> None:
    images = noise(2, 3, *size)
    assert torch.equal(IWMF(1.0, window)(images, seeds=cases.seeds(2)), images)


def test_empty_batches_and_no_windows() -> None:
    for shared in (True, False):
        assert IWMF(shared=shared)(noise(0, 3, 9, 9), seeds=cases.seeds(0)).shape == (0, 3, 9, 9)
        corners = torch.zeros(int(shared), 4, dtype=torch.int32)
        assert iwmf_waves.replaced(noise(0, 3, 9, 9), corners, 3).shape == (0, 3, 9, 9)
    assert torch.equal(IWMF(0.0)(noise(2, 3, 9, 9), seeds=cases.seeds(2)), noise(2, 3, 9, 9))


@pytest.mark.parametrize(
    ("name", "value"), [("lambda_0", -0.1), ("window", 0), ("lambda_0", math.inf)]
)
def test_parameters_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected >= "):
        IWMF(**{name: value})


@pytest.mark.parametrize("window", [2, 3])
def test_the_gradient_is_exact(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    images = noise(2, 2, 5, 6).double().requires_grad_(True)
    corners = iwmf_means.draw(cases.seeds(2), 25, (5, 6), window)

    def run(x: Tensor) -> Tensor:
        return iwmf_means.replaced(x, corners, window)

    assert torch.autograd.gradcheck(run, (images,))
    assert torch.autograd.gradgradcheck(run, (images,))
    weights = noise(2, 2, 5, 6, seed=1).double()
    (ours,) = torch.autograd.grad((run(images) * weights).sum(), images)
    (theirs,) = torch.autograd.grad((looped(images, corners, window) * weights).sum(), images)
    assert torch.allclose(run(images), looped(images, corners, window), atol=1e-12)
    assert torch.allclose(ours, theirs, atol=1e-12)
    monkeypatch.setattr(iwmf_means, "kernels", lambda: None)
    (waves,) = torch.autograd.grad((run(images) * weights).sum(), images)
    assert torch.equal(waves, ours)


def test_attacks_can_differentiate_a_model_behind_the_filter() -> None:
    images, seeds = cases.images(2).requires_grad_(True), cases.seeds(2)
    goal = Misclassify(cases.MODEL, cases.labels(2))
    defended = Defended(goal, IWMF(), seeds=seeds, backward="exact")
    (ours,) = torch.autograd.grad(defended(images).sum(), images)
    corners = iwmf_means.draw(
        derive_seeds(derive_seeds(seeds, "draw 0"), "iwmf windows"), 57, (12, 12), 3
    )
    (theirs,) = torch.autograd.grad(goal(looped(images, corners, 3)).sum(), images)
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("window", [2, 3, 4, 5])
def test_given_windows_are_applied_in_their_order(window: int) -> None:
    images = noise(2, 3, 9, 11, seed=window)
    rows = torch.randint(window // 2, 9 - math.ceil(window / 2) + 1, (40,))
    columns = torch.randint(window // 2, 11 - math.ceil(window / 2) + 1, (40,))
    expected = images.clone()
    before, after = window // 2, math.ceil(window / 2)
    for r, c in zip(rows.tolist(), columns.tolist(), strict=True):
        block = expected[:, :, r - before : r + after, c - before : c + after]
        block[:] = block.mean(dim=(2, 3), keepdim=True)
    made = IWMF(window=window).apply(images, torch.stack([rows, columns], dim=1))
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "windows", [torch.zeros(3), torch.zeros(3, 2), torch.tensor([[0, 4]]), torch.tensor([[4, 8]])]
)
def test_windows_that_are_not_within_the_images_are_refused(windows: Tensor) -> None:
    with pytest.raises(ValueError, match="windows: expected"):
        IWMF().apply(noise(1, 3, 9, 9), windows)
