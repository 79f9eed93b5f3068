from __future__ import annotations

import torch

from defender.models import XrayNet, xray_cnn


def test_exposure_does_not_matter() -> None:
    torch.manual_seed(0)
    network = xray_cnn().eval()
    images = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    images[1] = torch.linspace(0, 1, 64)
    with torch.inference_mode():
        logits = network(images)
        exposed = network(0.6 * images + 0.2)
    assert logits.shape == (3, 2)
    torch.testing.assert_close(exposed, logits, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(logits[0], logits[1], atol=1e-2)


def test_what_lies_in_the_margin_is_not_seen() -> None:
    torch.manual_seed(0)
    network = xray_cnn().eval()
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    bordered = images.clone()
    bordered[:, :, :8] = 1
    bordered[:, :, :, -8:] = 0
    with torch.inference_mode():
        assert torch.equal(network(bordered), network(images))
        bordered[:, :, 8] = 1
        assert not torch.equal(network(bordered), network(images))
    assert "margin=0.125" in repr(network)


def test_an_even_image_is_finite() -> None:
    network = XrayNet(widths=(4, 8)).eval()
    with torch.inference_mode():
        assert network(torch.full((1, 1, 8, 8), 0.3)).isfinite().all()


def test_an_image_is_standardised_by_itself() -> None:
    torch.manual_seed(0)
    network = XrayNet(widths=(4, 8)).eval()
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        together = network(images)
        alone = torch.cat([network(image) for image in images.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
