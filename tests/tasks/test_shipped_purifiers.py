"""What the shipped purifiers and the diffusion prior are worth, on images they never saw."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
import torch

from tasks.prior_evaluation import FILTERS, behind, denoising_psnr, psnr_of
from tasks.prior_task import Unlabelled
from tasks.priors import load_prior
from tasks.purifier_networks import load_network
from tasks.specs import DatasetSpec
from tasks.train_specs import PriorTrainSpec, PurifyTrainSpec, load_train_spec

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CPU = torch.device("cpu")
COUNT = 128


def card(name: str) -> str:
    return resources.files("tasks").joinpath("weights", f"{name}.md").read_text()


@pytest.mark.parametrize(
    ("name", "example", "kind"),
    [
        ("prior-cifar10", "train-prior-cifar10.yaml", PriorTrainSpec),
        ("denoiser-linearity", "train-denoiser.yaml", PurifyTrainSpec),
        ("fcn-linearity", "train-fcn.yaml", PurifyTrainSpec),
    ],
)
def test_the_card_is_that_of_the_file_and_of_the_example(
    name: str, example: str, kind: type[PriorTrainSpec | PurifyTrainSpec]
) -> None:
    data = resources.files("tasks").joinpath("weights", f"{name}.safetensors").read_bytes()
    assert len(data) < 5_000_000
    assert f"float16, {len(data):,} bytes" in card(name)
    spec = load_train_spec(EXAMPLES / example)
    assert isinstance(spec, kind)
    assert f"| epochs | {spec.training.epochs} |" in card(name)
    assert f"| peak lr | {spec.training.peak_lr} |" in card(name)
    assert f"| batch | {spec.batch} |" in card(name)
    loaded = (
        load_prior(name, None, Path(), CPU, "prior")
        if kind is PriorTrainSpec
        else load_network(name, None, Path(), CPU, "network")
    )
    [parameters] = re.findall(r"\| parameters \| ([\d,]+) \|", card(name))
    assert sum(p.numel() for p in loaded.parameters()) == int(parameters.replace(",", ""))


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("sigma", [0.1, 0.25])
def test_the_prior_takes_out_more_noise_than_any_filter(
    data: Path, tmp_path: Path, sigma: float
) -> None:
    spec = DatasetSpec(
        kind="cifar10", path=str(data / "cifar10"), split="test", limit=COUNT, chunk_size=COUNT
    )
    images = Unlabelled(spec, tmp_path, str(tmp_path / "store"), "held_out")
    images.ingest()
    prior = load_prior("prior-cifar10", None, Path(), CPU, "prior")
    ours = float(denoising_psnr(prior, images, sigma).mean())
    [stated] = re.findall(rf"^\| {sigma:g} \| \d+ \| [\d.]+ \| ([\d.]+)", card(prior.name), re.M)
    assert ours == pytest.approx(float(stated), abs=0.5)
    for strengths in FILTERS.values():
        for filter_ in strengths(sigma):
            assert float(psnr_of(behind(filter_), images, sigma, COUNT).mean()) < ours - 1
