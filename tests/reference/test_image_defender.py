"""The Image-Defender chain against a plain second writing of it, and metrics against skimage.

The chain is written out again here, one image at a time, with numpy and torch.optim, from the
equations of the repository XuanZhao777/Image-Defender. All of it runs in float64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from defender.attacks import IFGSM
from defender.detectors import GradientMask
from defender.metrics import psnr, psnr_legacy, ssim
from defender.objectives import Classify, Misclassify
from defender.purifiers import SeparateCorrectCombine
from defender.purifiers.separate_correct_combine import total_variation
from defender.smoothing import median_filter
from tests import cases

MODEL = cases.classifier(dtype=torch.float64)
N = 3


def clean() -> Tensor:
    return cases.images(N).double()


def slope(image: Tensor, label: int) -> np.ndarray:
    leaf = image.clone().requires_grad_(True)
    torch.nn.CrossEntropyLoss()(MODEL(leaf[None]), torch.tensor([label])).backward()
    assert leaf.grad is not None
    return leaf.grad.numpy()


def plain_ifgsm(
    image: Tensor, label: int, epsilon: float, alpha: float, steps: int, sign: int
) -> np.ndarray:
    start = image.numpy()
    attacked = start.copy()
    for _ in range(steps):
        gradient = slope(torch.from_numpy(attacked), label)
        stepped = np.clip(attacked + sign * alpha * np.sign(gradient), 0, 1)
        attacked = np.clip(stepped, start - epsilon, start + epsilon)
    return np.clip(attacked, 0, 1)


def plain_mask(attacked: Tensor, label: int, k: float) -> np.ndarray:
    magnitude = np.abs(slope(attacked, label))
    return magnitude > magnitude.mean() + k * magnitude.std(ddof=1)


def plain_chain(
    attacked: Tensor, image: Tensor, variant: str, correction: str, steps: int, weight: float
) -> dict[str, np.ndarray]:
    with torch.no_grad():
        wanted = MODEL(image[None])
    mask = plain_mask(attacked, int(wanted.argmax()), 1.0).astype(float)
    x, dirty = image.numpy(), attacked.numpy()
    code = mask * x + (1 - mask) * dirty
    first = code if variant == "code" else mask * dirty + (1 - mask) * x
    second = code
    corrected = torch.from_numpy(first.copy()).requires_grad_(True)
    adam = torch.optim.Adam([corrected], lr=0.01)
    mse = torch.nn.MSELoss()
    for _ in range(steps):
        adam.zero_grad()
        logits, pixels = mse(MODEL(corrected[None]), wanted), mse(corrected, image)
        losses = {"logits": logits, "pixels": pixels, "both": logits + weight * pixels}
        losses[correction].backward()
        adam.step()
        if variant == "reference":
            with torch.no_grad():
                corrected.clamp_(0, 1)
    z = corrected.detach().numpy()
    combined = np.clip(second + z - x, 0, 1)
    return {"mask": mask.astype(bool), "corrected": z, "purified": combined}


def attacked_images() -> Tensor:
    objective = Misclassify(MODEL, cases.labels(N))
    return IFGSM()(clean(), objective, seeds=cases.seeds(N))


def test_ifgsm_with_the_repository_defaults() -> None:
    result = attacked_images()
    for index in range(N):
        label = int(cases.labels(N)[index])
        expected = plain_ifgsm(clean()[index], label, 0.03, 0.0015, 80, sign=1)
        assert np.allclose(result[index].numpy(), expected, rtol=0, atol=1e-12)
    assert (result - clean()).abs().max().item() <= 0.03 + 1e-12


def test_targeted_ifgsm_subtracts_the_step_of_the_target() -> None:
    targets = (cases.labels(N) + 1) % cases.CLASSES
    result = IFGSM(steps=30)(clean(), Classify(MODEL, targets), seeds=cases.seeds(N))
    for index in range(N):
        expected = plain_ifgsm(clean()[index], int(targets[index]), 0.03, 0.0015, 30, sign=-1)
        assert np.allclose(result[index].numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [0.0, 1.0, 2.0])
def test_mask_and_its_share_of_the_gradient_energy(k: float) -> None:
    detector, images = GradientMask(MODEL, k=k, labelled_by="reference"), attacked_images()
    where = detector.map(images, seeds=cases.seeds(N), reference=clean())
    scores = detector(images, seeds=cases.seeds(N), reference=clean())
    assert where is not None
    for index in range(N):
        label = int(MODEL(clean()[index : index + 1]).argmax())
        mask = plain_mask(images[index], label, k)
        assert np.array_equal(where[index].numpy(), mask)
        energy = slope(images[index], label) ** 2
        assert scores[index].item() == pytest.approx(energy[mask].sum() / energy.sum())


@pytest.mark.parametrize(
    ("variant", "correction"),
    [("code", "logits"), ("reference", "logits"), ("reference", "pixels"), ("reference", "both")],
)
def test_separate_correct_combine(variant: str, correction: str) -> None:
    images = attacked_images()
    chain = SeparateCorrectCombine(
        MODEL, variant=variant, correction=correction, steps=40, pixel_weight=3.0
    )
    parts = chain.parts(images, seeds=cases.seeds(N), reference=clean())
    for index in range(N):
        expected = plain_chain(images[index], clean()[index], variant, correction, 40, 3.0)
        assert np.array_equal(parts["mask"][index].numpy(), expected["mask"])
        for name in ("corrected", "purified"):
            wanted = np.clip(expected[name], 0, 1)
            assert np.allclose(parts[name][index].numpy(), wanted, rtol=0, atol=1e-9)


def test_the_code_doubles_the_perturbation_outside_the_mask() -> None:
    images = clean() * 0.5 + 0.25
    attacked = images + 0.02 * torch.randn(
        images.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )
    chain = SeparateCorrectCombine(MODEL, variant="code", steps=0)
    parts = chain.parts(attacked, seeds=cases.seeds(N), reference=images)
    mask = parts["mask"]
    assert torch.equal(parts["attacked_layer"], parts["unattacked_layer"])
    assert torch.allclose(parts["purified"][~mask], (2 * attacked - images)[~mask])
    assert torch.allclose(parts["purified"][mask], images[mask])


@pytest.mark.parametrize("variant", ["reference", "blind"])
def test_sensible_layers_add_up_to_the_attacked_image(variant: str) -> None:
    attacked = attacked_images().float()
    chain = SeparateCorrectCombine(cases.MODEL, variant=variant, steps=0)
    clean_images = cases.images(N)
    parts = chain.parts(attacked, seeds=cases.seeds(N), reference=clean_images)
    base = median_filter(attacked, 3) if variant == "blind" else clean_images
    total = parts["attacked_layer"] + parts["unattacked_layer"] - base
    assert torch.allclose(total, attacked, rtol=0, atol=2**-23)
    if variant == "reference":
        assert torch.allclose(parts["purified"], attacked, rtol=0, atol=2**-23)


def test_perfect_pixels_restore_what_the_mask_covers() -> None:
    attacked = attacked_images()
    chain = SeparateCorrectCombine(
        MODEL, variant="reference", correction="pixels", steps=600, learning_rate=0.001
    )
    parts = chain.parts(attacked, seeds=cases.seeds(N), reference=clean())
    wanted = torch.where(parts["mask"], clean(), attacked)
    assert torch.allclose(parts["purified"], wanted, atol=1e-3)


@pytest.mark.parametrize("bound", [0.0, 0.01, 0.05])
def test_blind_purification_stays_within_its_bound(bound: float) -> None:
    attacked = attacked_images()
    chain = SeparateCorrectCombine(MODEL, epsilon_hat=bound, steps=15, learning_rate=0.02)
    result = chain(attacked, seeds=cases.seeds(N))
    assert (result - attacked).abs().max().item() == pytest.approx(bound, abs=1e-12)


def test_blind_purification_nears_the_logits_of_the_smoothed_image() -> None:
    attacked = attacked_images()
    chain = SeparateCorrectCombine(MODEL, tv_weight=0.0, epsilon_hat=0.1, steps=60)
    smoothed = MODEL(median_filter(attacked, 3))
    before = (MODEL(attacked) - smoothed).square().mean()
    after = (MODEL(chain(attacked, seeds=cases.seeds(N))) - smoothed).square().mean()
    assert after < 0.01 * before


def test_total_variation_counts_neighbours_in_both_directions() -> None:
    images = torch.zeros(2, 1, 2, 3)
    images[1, 0, 0] = torch.tensor([0.0, 0.5, 1.0])
    # down: 0 + 0.5 + 1; across: 0.5 + 0.5; of 6 values
    assert torch.allclose(total_variation(images), torch.tensor([0.0, 2.5 / 6]))


@pytest.mark.parametrize("wrong", [{"window": 2}, {"steps": -1}, {"variant": "oracle"}], ids=str)
def test_parameters_out_of_range_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SeparateCorrectCombine(MODEL, **wrong)


def test_the_code_variant_has_one_loss() -> None:
    with pytest.raises(ValueError, match="correction: expected 'logits' for variant 'code'"):
        SeparateCorrectCombine(MODEL, variant="code", correction="pixels")


def noisy_pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(8)
    first = torch.nn.functional.interpolate(
        torch.rand(N, 3, 8, 8, generator=generator), size=(32, 40), mode="bilinear"
    )
    noise = torch.randn(first.shape, generator=generator)
    return first, (first + 0.05 * noise).clamp(0, 1)


def test_ssim_agrees_with_skimage() -> None:
    """Agreement to 1e-6.

    skimage cuts its Gaussian at 3.5 sigma, which is the same 11 x 11 window, pads the border and
    then averages over the interior only, which is what a window without padding covers.
    """
    first, second = noisy_pair()
    ours = ssim(first, second)
    for index in range(N):
        expected = structural_similarity(
            first[index].double().numpy(),
            second[index].double().numpy(),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert ours[index].item() == pytest.approx(expected, abs=1e-6)


def test_psnr_agrees_with_skimage_and_its_legacy_scale_with_the_repository() -> None:
    first, second = noisy_pair()
    for index in range(N):
        a, b = first[index].double().numpy(), second[index].double().numpy()
        ours = psnr(first, second)[index].item()
        assert ours == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1.0), abs=1e-9)
        legacy = 20 * math.log10(255 / math.sqrt(np.mean((a - b) ** 2)))
        assert psnr_legacy(first, second)[index].item() == pytest.approx(legacy, abs=1e-9)
