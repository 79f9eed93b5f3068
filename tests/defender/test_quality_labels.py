from __future__ import annotations

import numpy as np
import pytest
import torch

from defender.distortions import DISTORTIONS
from defender.metrics.fidelity import multi_scale_similarity, vif
from defender.quality_labels import RankScale, least_squares_line, likeness


def test_labels_are_mean_ranks_worked_out_by_hand() -> None:
    scale = RankScale.of(torch.tensor([0.9, 0.5, 1.0, 0.9]), torch.tensor([0.8, 0.1, 1.0, 0.3]))
    found = scale.labels(torch.tensor([0.9, 0.5, 1.0, 0.9]), torch.tensor([0.8, 0.1, 1.0, 0.3]))
    # of MS-SSIM 3/4, 1/4, 4/4, 3/4 are no larger, of VIF 3/4, 1/4, 4/4, 2/4
    assert found.tolist() == [75.0, 25.0, 100.0, 62.5]
    other = scale.labels(torch.tensor([0.95, 0.1, 1.2]), torch.tensor([0.2, 0.0, 1.1]))
    assert other.tolist() == [50.0, 0.0, 100.0]


def test_a_scale_needs_numbers() -> None:
    row = torch.tensor([0.5, 1.0])
    with pytest.raises(ValueError, match="expected finite similarities"):
        RankScale.of(torch.tensor([0.5, torch.nan]), row)
    for empty in (torch.tensor([]), torch.tensor([1.0])):
        with pytest.raises(ValueError, match="expected two rows of numbers"):
            RankScale.of(empty, row)


def test_likeness_of_many_versions_is_that_of_each() -> None:
    rows, columns = torch.arange(176.0)[:, None], torch.arange(180.0)
    image = (0.5 + 0.4 * torch.sin(rows / 5) * torch.cos(columns / 8)).expand(1, 3, -1, -1)
    seeds = torch.tensor([4])
    versions = torch.cat([DISTORTIONS["noise"](image, i, seeds=seeds) for i in (1, 2, 3, 4, 5, 5)])
    ms_ssim, information = likeness(image, versions)
    assert ms_ssim.dtype == information.dtype == torch.float64
    for i, version in enumerate(versions):
        exact = multi_scale_similarity(image.double(), version[None].double())
        assert float(ms_ssim[i]) == pytest.approx(float(exact), abs=2e-6)
        assert float(information[i]) == pytest.approx(
            float(vif(image.double(), version[None].double())), abs=1e-12
        )


def test_the_line_is_that_of_least_squares() -> None:
    generator = torch.Generator().manual_seed(1)
    raw = torch.randn(50, generator=generator)
    target = 7 * raw - 3 + torch.randn(50, generator=generator)
    slope, offset = np.polyfit(raw.double().numpy(), target.double().numpy(), 1)
    assert least_squares_line(raw, target) == pytest.approx((slope, offset), rel=1e-6)
    assert least_squares_line(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 5.0])) == (2.0, 1.0)
    with pytest.raises(ValueError, match="raw: expected"):
        least_squares_line(torch.ones(3), torch.arange(3.0))
