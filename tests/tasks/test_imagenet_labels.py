from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tasks.strips import class_name
from tasks.summary import Summary
from tests.storage.pictures import png, write_tree
from tests.toy import bench, run

INDICES = {
    "n01440764": 0,
    "n02102040": 217,
    "n02979186": 482,
    "n03000684": 491,
    "n03028079": 497,
    "n03394916": 566,
    "n03417042": 569,
    "n03425413": 571,
    "n03445777": 574,
    "n03888257": 701,
}
"""Imagenette's folders and the classes they are among the thousand."""


class RightAnswers(nn.Module):
    """A model with 1000 outputs that reads the class off the colour of a picture."""

    def forward(self, images: Tensor) -> Tensor:
        red, green = (images[:, :2].mean(dim=(2, 3)) * 255).unbind(dim=1)
        classes = torch.arange(1000, device=images.device)
        return -(red[:, None] + 256 * green.round()[:, None] - classes).abs()


def right_answers() -> nn.Module:
    return RightAnswers()


@pytest.mark.parametrize(("options", "accuracy"), [({"labels": "imagenet"}, 1.0), ({}, 0.1)])
def test_clean_accuracy_of_a_model_that_is_always_right(
    tmp_path: Path, options: dict[str, str], accuracy: float
) -> None:
    pictures = {
        f"{wnid}/{number}.png": png(index) for wnid, index in INDICES.items() for number in range(2)
    }
    folder = write_tree(tmp_path / "imagenette", pictures)
    state, _ = run(
        bench(
            tmp_path,
            dataset={"kind": "folder", "path": str(folder), **options},
            model={"name": "python:tests.tasks.test_imagenet_labels:right_answers"},
            attacks=[],
            detectors=[],
            purifiers=["Median"],
        )
    )
    found = [row["value"] for row in Summary(state).rows() if row["metric"] == "accuracy"]
    assert found == [accuracy] * 2  # of clean images, and of clean ones purified
    parachutes = "parachute" if options else "class 701"
    assert class_name(state, 701) == parachutes
