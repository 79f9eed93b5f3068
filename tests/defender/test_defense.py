"""Every purifier as the class ``Defense`` of a file."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import save_file

from defender.defense import SHIPPED, PurifierDefense, content_seeds, trained
from defender.models.denoiser import denoiser
from defender.models.fcn import residual_fcn
from defender.purifiers import PURIFIERS, GaussianNoise, Median, Sequence, Unsharp
from tests import cases

BLIND = [one for one in cases.PURIFIER_CASES if one.knowledge == "blind"]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def defense(chosen: Any, number: int = 0) -> PurifierDefense:
    class Defense(PurifierDefense):
        purifier: ClassVar[Any] = chosen
        seed: ClassVar[int] = number

    return Defense()


def test_the_cases_hold_every_blind_purifier() -> None:
    others = {type(one) for one in cases.PURIFIER_CASES if one.knowledge != "blind"}
    assert {type(one) for one in BLIND} | others == set(PURIFIERS.values())
    assert len({type(one) for one in BLIND}) >= 25


@pytest.mark.parametrize("purifier", BLIND, ids=repr)
def test_a_purifier_is_a_defence_that_batches_do_not_matter_to(purifier: Any) -> None:
    images = cases.images()
    made = defense(purifier)
    whole = made.apply_defense(images)
    assert torch.equal(images, cases.images())
    assert (whole.dtype, whole.shape[:2]) == (torch.float32, images.shape[:2])
    assert not whole.requires_grad
    assert 0 <= whole.min() <= whole.max() <= 1
    alone = torch.cat([made.apply_defense(image[None]) for image in images])
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(made.apply_defense(images.flip(0)).flip(0), whole, rtol=0, atol=1e-5)


def test_it_does_what_the_purifier_does() -> None:
    purifier = Sequence((Median(3), Unsharp()))
    expected = purifier(cases.images(), seeds=cases.seeds())
    assert torch.equal(defense(purifier).apply_defense(cases.images()), expected)


def test_draws_follow_from_the_image_and_the_seed() -> None:
    flat = torch.full((2, 3, 12, 12), 0.5)
    same = defense(GaussianNoise(0.1)).apply_defense(flat)
    assert torch.equal(same[0], same[1])
    assert not torch.equal(defense(GaussianNoise(0.1), 1).apply_defense(flat), same)
    flat[1, 0, 0, 0] = 0.25
    other = defense(GaussianNoise(0.1)).apply_defense(flat)
    assert torch.equal(other[0], same[0])
    assert float((other[1] - same[1]).abs().mean()) > 0.01
    assert len(set(content_seeds(cases.images()).tolist())) == 8


def test_what_is_no_purifier_or_needs_the_original_is_refused() -> None:
    for wrong in (None, Median, "median(3)"):
        with pytest.raises(TypeError, match="purifier: expected a purifier, got"):
            defense(wrong)
    told = next(one for one in cases.PURIFIER_CASES if one.knowledge == "reference")
    with pytest.raises(ValueError, match="purifier: expected one that works without the clean"):
        defense(told)


def test_weights_are_of_a_file_or_ship(tmp_path: Path) -> None:
    network = trained(denoiser(), "denoiser-linearity")
    assert repr(network).startswith("denoiser-linearity@")
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    save_file(
        {k: v + 1 for k, v in residual_fcn().state_dict().items()}, tmp_path / "w.safetensors"
    )
    mine = trained(residual_fcn(), tmp_path / "w.safetensors")
    assert all(float(p.min()) > -1 for p in mine.parameters())
    assert repr(mine).startswith("w@")
    with pytest.raises(FileNotFoundError, match=f"got nothing at {SHIPPED}"):
        trained(denoiser(), "absent")
    with pytest.raises(ValueError, match=r"weights: denoiser-linearity\.safetensors does not fit"):
        trained(residual_fcn(), "denoiser-linearity")


def test_the_example_is_the_noise_gate_of_the_specification(tmp_path: Path) -> None:
    from tasks.spec_files import load_spec
    from tasks.workbench import Workbench

    spec = load_spec(EXAMPLES / "iqa.yaml", ["dataset={kind: 'builtin:shapes', count: 1}"], None)
    (stated,) = (one for one in spec.purifiers if one.name == "NoiseGate")
    bench = Workbench(spec.model_copy(update={"purifiers": (stated,)}), EXAMPLES, str(tmp_path))
    images = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    made = runpy.run_path(str(EXAMPLES / "noise_gate.py"))["Defense"]().apply_defense(images)
    expected = bench.purifiers[0](images, seeds=cases.seeds(2))
    assert not torch.equal(made, images)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)
