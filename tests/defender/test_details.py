from __future__ import annotations

import torch

from defender.models.details import FLAT, Details, local_mean


def test_a_mean_of_a_neighbourhood_repeats_the_border() -> None:
    image = torch.arange(4.0).view(1, 1, 1, 4)
    expected = torch.tensor([1 / 3, 1.0, 2.0, 8 / 3])
    torch.testing.assert_close(local_mean(image, 3)[0, 0, 0], expected)
    assert torch.equal(local_mean(torch.full((1, 2, 1, 1), 0.5), 7), torch.full((1, 2, 1, 1), 0.5))


def test_details_are_the_picture_its_normalised_luma_and_what_a_blur_leaves_out() -> None:
    images = torch.randn(2, 3, 20, 24, generator=torch.Generator().manual_seed(0))
    seen = Details()(images)
    assert seen.shape == (2, 7, 20, 24)
    assert torch.equal(seen[:, :3], images)
    patch = images[0, :, 5:12, 8:15].mean(0)
    wanted = (patch[3, 3] - patch.mean()) / (patch.std(correction=0) + FLAT)
    torch.testing.assert_close(seen[0, 3, 8, 11], wanted, rtol=1e-4, atol=1e-4)
    fine = 4 * (images[1, 2, 8, 11] - images[1, 2, 7:10, 10:13].mean())
    torch.testing.assert_close(seen[1, 6, 8, 11], fine, rtol=1e-4, atol=1e-4)


def test_a_flat_picture_has_no_details_and_finite_gradients() -> None:
    images = torch.full((1, 3, 9, 9), 0.3, requires_grad=True)
    seen = Details()(images)
    assert seen[:, 3:].abs().max() < 1e-4
    seen.sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
