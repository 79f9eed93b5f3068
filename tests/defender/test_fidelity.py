from __future__ import annotations

import pytest
import torch
from torch import Tensor

from defender.distortions import DISTORTIONS
from defender.metrics.fidelity import MS_SSIM_SIDE, VIF_SIDE, multi_scale_similarity, vif
from defender.metrics.image import ms_ssim

SEEDS = torch.tensor([1, 2])
CHANGES = [("blur", 2), ("noise", 4), ("contrast", 3), ("banding", 5), ("jpeg", 2)]


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Two smooth pictures with texture, one of odd sides, float64 (2, 3, 181, 176)."""
    rows = torch.arange(181.0, dtype=torch.float64)[:, None]
    columns = torch.arange(176.0, dtype=torch.float64)
    waves = [
        0.5 + 0.3 * torch.sin(rows / (4 + c)) * torch.cos(columns / 9) + 0.2 * torch.sin(rows * 2)
        for c in range(6)
    ]
    return torch.stack(waves).view(2, 3, 181, 176).clamp(0, 1)


@pytest.mark.parametrize(("name", "level"), CHANGES)
def test_ms_ssim_is_that_of_the_reference_implementation(
    name: str, level: int, images: Tensor
) -> None:
    distorted = DISTORTIONS[name](images, level, seeds=SEEDS)
    ours = multi_scale_similarity(images, distorted)
    # its window has float32 precision
    torch.testing.assert_close(ours, ms_ssim(images, distorted), rtol=0, atol=2e-5)


@pytest.mark.parametrize(("name", "level"), CHANGES)
def test_vif_is_that_of_the_reference_implementation(name: str, level: int, images: Tensor) -> None:
    piq = pytest.importorskip("piq", reason="piq is not installed")
    distorted = DISTORTIONS[name](images, level, seeds=SEEDS)
    for x, y in ((images, distorted), (images[:, :1], distorted[:, :1])):
        expected = piq.vif_p(y, x, data_range=1.0, reduction="none")
        torch.testing.assert_close(vif(x, y), expected, rtol=0, atol=1e-6)


def test_equal_images_have_all_the_information_and_flat_ones_none(images: Tensor) -> None:
    torch.testing.assert_close(vif(images, images), torch.ones(2).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        multi_scale_similarity(images, images), torch.ones(2).double(), rtol=0, atol=1e-12
    )
    flat = images.mean((2, 3), keepdim=True).expand_as(images)
    assert float(vif(images, flat).max()) < 1e-9


def test_more_contrast_tells_more(images: Tensor) -> None:
    soft = (images - 0.5) * 0.4 + 0.5
    more = (images - 0.5) * 0.6 + 0.5
    assert bool((vif(soft, more) > 1).all())


def test_one_reference_for_many_versions(images: Tensor) -> None:
    reference = images[:1]
    versions = torch.cat([DISTORTIONS["noise"](reference, i, seeds=SEEDS[:1]) for i in (1, 3, 5)])
    for metric in (multi_scale_similarity, vif):
        together = metric(reference, versions)
        alone = torch.cat([metric(reference, version[None]) for version in versions])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
        with pytest.raises(ValueError, match="one reference or as many"):
            metric(images, versions)


def test_sizes_for_which_they_are_defined() -> None:
    generator = torch.Generator().manual_seed(0)
    for metric, side in ((multi_scale_similarity, MS_SSIM_SIDE + 1), (vif, VIF_SIDE)):
        for size, defined in ((side, True), (side - 1, False)):
            image = torch.rand(1, 1, size, 200, generator=generator)
            assert bool(torch.isfinite(metric(image, image))) == defined
