"""Diffusion models as specifications name them."""

from __future__ import annotations

import json
import pickle
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from defender.diffusion.prior import Prior
from defender.diffusion.schedule import NoiseSchedule
from defender.models.guided_unet import GuidedUNet
from defender.models.unet import UNet
from defender.purifiers import DDRM, DiffPure, IWMFDiff, OneStepDenoise, Sequence
from storage.images import read_images
from tasks import named_networks, priors
from tasks.building import parameter_fields
from tasks.errors import ModelError, SpecError
from tasks.named_networks import ShippedNetwork
from tasks.plan import Plan
from tasks.priors import Architecture, load_prior
from tests import toy
from tests.defender.priors import tiny_network

FACTORY = "python:tests.defender.priors:tiny_network"
CPU = torch.device("cpu")


def weights(folder: Path, name: str = "own.safetensors", seed: int = 1) -> str:
    save_file(tiny_network(seed).state_dict(), folder / name)
    return name


def built(folder: Path, *written: Any) -> list[Any]:
    return toy.bench(folder, purifiers=list(written), detectors=[], attacks=[]).purifiers


def diffusers_folder(folder: Path, scheduler: dict[str, Any], **options: Any) -> Path:
    """A model as diffusers saves it, with random weights."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(5)
    network = diffusers.UNet2DModel(
        **{
            "sample_size": 16,
            "freq_shift": 1,
            "flip_sin_to_cos": False,
            "block_out_channels": (8, 16),
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
            "downsample_padding": 0,
            "norm_num_groups": 4,
            "attention_head_dim": 8,
            **options,
        }
    )
    network.save_pretrained(folder)
    diffusers.DDPMScheduler(**scheduler).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "kind"),
    [("DDRM", DDRM), ("DiffPure", DiffPure), ("OneStepDenoise", OneStepDenoise)],
)
def test_a_file_of_weights_becomes_the_prior(tmp_path: Path, name: str, kind: type) -> None:
    written = {"name": name, "prior": FACTORY, "weights": weights(tmp_path), "prior_side": 16}
    (purifier,) = built(tmp_path, written)
    assert isinstance(purifier, kind)
    assert isinstance(purifier.prior, Prior)
    assert (purifier.prior.size, purifier.prior.channels, purifier.prior.side_unit) == (
        (16, 16),
        3,
        4,
    )
    assert not any(parameter.requires_grad for parameter in purifier.prior.parameters())
    x, steps = torch.rand(2, 3, 16, 16), torch.tensor([3, 3])
    with torch.no_grad():
        wanted = tiny_network(1).eval()(x, steps)
    torch.testing.assert_close(purifier.prior(x, 3), wanted, atol=1e-5, rtol=1e-5)


def test_one_line_may_hold_the_prior(tmp_path: Path) -> None:
    file = weights(tmp_path)
    line = f"iwmfdiff(prior={FACTORY}, weights={file}, prior_side=16, sigma=0.1) > median(3)"
    (purifier,) = built(tmp_path, line)
    assert isinstance(purifier, Sequence)
    first = purifier.steps[0]
    assert isinstance(first, IWMFDiff)
    assert first.sigma == 0.1


def test_the_prior_comes_first_by_position(tmp_path: Path) -> None:
    (purifier,) = built(tmp_path, "iwmf-diff(prior-cifar10, 0.5, 5)")
    assert isinstance(purifier, IWMFDiff)
    assert repr(purifier.prior).startswith("prior-cifar10@")
    assert (purifier.lambda_0, purifier.window) == (0.5, 5)


def test_names_of_results_follow_weights_and_noise(tmp_path: Path) -> None:
    digests = set()
    for seed, side, schedule in ((1, 16, None), (2, 16, None), (1, 12, None), (1, 16, 500)):
        file = weights(tmp_path, f"{seed}.safetensors", seed)
        levels = None if schedule is None else NoiseSchedule(schedule)
        prior = load_prior(FACTORY, file, tmp_path, CPU, "prior", (side, side), levels)
        digests.add(prior.digest)
        again = load_prior(FACTORY, file, tmp_path, CPU, "prior", (side, side), levels)
        assert again.digest == prior.digest
        assert repr(prior) == f"{FACTORY}@{prior.digest[:12]}"
    assert len(digests) == 4


def test_a_prior_that_ships_needs_no_more_than_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tiny_network(1).state_dict()
    save_file({name: value.half() for name, value in state.items()}, tmp_path / "tiny.safetensors")
    architectures = {"tiny": Architecture(tiny_network, (16, 16), "for tests")}
    monkeypatch.setattr(priors, "ARCHITECTURES", architectures)
    shipped = {"tiny-shapes": ShippedNetwork("tiny", "tiny.safetensors", "for tests")}
    monkeypatch.setattr(priors, "PRIORS", shipped)
    monkeypatch.setattr(
        named_networks, "packaged_weights", lambda name, where: (tmp_path / name).read_bytes()
    )
    (purifier,) = built(tmp_path, {"name": "DDRM", "prior": "tiny-shapes"})
    assert purifier.prior.size == (16, 16)
    assert purifier.prior.name == "tiny-shapes"
    kept = purifier.prior.network.state_dict()["conv_in.weight"]
    assert torch.equal(kept, state["conv_in.weight"].half().float())


def test_a_folder_of_diffusers(tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "theirs", {"num_train_timesteps": 500, "beta_end": 0.03})
    (purifier,) = built(tmp_path, {"name": "DDRM", "prior": "diffusers:theirs"})
    prior = purifier.prior
    assert prior.size == (16, 16)
    assert prior.schedule == NoiseSchedule(500, 1e-4, 0.03)
    assert (prior.channels, prior.side_unit) == (3, 2)
    assert repr(prior) == f"diffusers:theirs@{prior.digest[:12]}"
    from diffusers import UNet2DModel

    theirs = UNet2DModel.from_pretrained(folder, low_cpu_mem_usage=False)
    x, steps = torch.rand(2, 3, 16, 16), torch.tensor([7, 7])
    with torch.no_grad():
        wanted = theirs(x, steps).sample
    torch.testing.assert_close(prior(x, 7), wanted, atol=1e-5, rtol=1e-5)
    config = folder / "config.json"
    stated = config.read_text()
    config.write_text(stated.replace('"freq_shift": 1', '"freq_shift": 0'))
    other = load_prior("diffusers:theirs", None, tmp_path, CPU, "prior")
    assert other.digest != prior.digest
    config.write_text(stated)
    moved = folder.rename(tmp_path / "elsewhere")
    again = load_prior("diffusers:elsewhere", None, tmp_path, CPU, "prior")
    assert again.digest == prior.digest
    made = purifier(torch.rand(2, 3, 20, 20), seeds=torch.arange(2))
    assert made.shape == (2, 3, 20, 20)
    (moved / "unet").mkdir()
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        (moved / name).rename(moved / "unet" / name)
    (moved / "scheduler").mkdir()
    (moved / "scheduler_config.json").rename(moved / "scheduler" / "scheduler_config.json")
    pipeline = load_prior("diffusers:elsewhere", None, tmp_path, CPU, "prior")
    assert pipeline.digest == prior.digest


def test_pickled_weights_of_a_folder_are_not_read(tmp_path: Path) -> None:
    folder = diffusers_folder(tmp_path / "theirs", {})
    safe = folder / "diffusion_pytorch_model.safetensors"
    ran = tmp_path / "ran"

    class Hostile:
        def __reduce__(self) -> Any:
            return (ran.touch, ())

    (folder / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Hostile()))
    load_prior("diffusers:theirs", None, tmp_path, CPU, "prior")
    safe.unlink()
    words = r"prior: diffusers:theirs: expected diffusion_pytorch_model\.safetensors in .*, got dif"
    with pytest.raises(ModelError, match=words):
        load_prior("diffusers:theirs", None, tmp_path, CPU, "prior")
    safe.write_bytes(b"damaged")
    with pytest.raises(ModelError, match="diffusers:theirs cannot be read"):
        load_prior("diffusers:theirs", None, tmp_path, CPU, "prior")
    assert not ran.exists()


def test_a_folder_is_read_without_asking_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diffusers_folder(tmp_path / "theirs", {})

    def refuse(*_: Any) -> None:
        raise AssertionError("asked for a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load_prior("diffusers:theirs", None, tmp_path, CPU, "prior")
    (tmp_path / "theirs/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError, match="diffusers:theirs cannot be read"):
        load_prior("diffusers:theirs", None, tmp_path, CPU, "prior")


def test_networks_that_predict_a_variance_too_are_asked_for_the_noise_only(tmp_path: Path) -> None:
    diffusers_folder(tmp_path / "six", {}, out_channels=6)
    prior = load_prior("diffusers:six", None, tmp_path, CPU, "prior")
    assert prior(torch.rand(2, 3, 16, 16), 5).shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    ("scheduler", "options", "words"),
    [
        (
            {"beta_schedule": "scaled_linear"},
            {},
            r"purifiers\[0\]\.prior: diffusers:theirs: .*beta_schedule linear, got 'scaled",
        ),
        ({"prediction_type": "v_prediction"}, {}, "prediction_type epsilon, got 'v_prediction'"),
        ({}, {"num_class_embeds": 4}, "expected a model without classes, got num_class_embeds"),
    ],
)
def test_models_of_another_kind_are_refused(
    tmp_path: Path, scheduler: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    diffusers_folder(tmp_path / "theirs", scheduler, **options)
    with pytest.raises(ModelError, match=words):
        built(tmp_path, {"name": "DDRM", "prior": "diffusers:theirs"})


def test_without_a_connection_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diffusers = pytest.importorskip("diffusers")
    asked = []

    def offline(source: str, **options: Any) -> None:
        asked.append((source, options.get("subfolder")))
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(diffusers.UNet2DModel, "from_pretrained", offline)
    words = r"prior: diffusers:someone/model cannot be read: We couldn't connect to the hub; expec"
    with pytest.raises(ModelError, match=words):
        load_prior("diffusers:someone/model", None, tmp_path, CPU, "prior")
    assert asked == [("someone/model", None), ("someone/model", "unet")]


def test_a_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers_folder(tmp_path / "cache", {"num_train_timesteps": 400})
    network = diffusers.UNet2DModel.from_pretrained(theirs, low_cpu_mem_usage=False)
    noise = json.loads((theirs / "scheduler_config.json").read_text())
    monkeypatch.setattr(diffusers.UNet2DModel, "from_pretrained", lambda source, **_: network)
    monkeypatch.setattr(diffusers.DDPMScheduler, "load_config", lambda source, **_: noise)
    prior = load_prior("diffusers:someone/model", None, tmp_path, CPU, "prior")
    assert prior.schedule.steps == 400
    assert prior.name == "diffusers:model"


@pytest.mark.parametrize(
    ("written", "error", "words"),
    [
        ({}, SpecError, r"purifiers\[0\]\.prior: expected a value for DDRM, .*prior-cifar10"),
        (
            {"prior": "smal-prior"},
            ModelError,
            r"purifiers\[0\]\.prior: expected one of .*small-prior.*\(did you mean small-prior\?\)",
        ),
        (
            {"prior": "ddpm-cifar10"},
            ModelError,
            r"purifiers\[0\]\.weights: expected the weights of ddpm-cifar10, got nothing",
        ),
        (
            {"prior": FACTORY, "weights": "own.safetensors"},
            ModelError,
            r"purifiers\[0\]\.prior: expected the size of the images python:.* is for, got none",
        ),
        (
            {"prior": FACTORY, "weights": "absent.pt", "prior_side": 16},
            ModelError,
            r"purifiers\[0\]\.weights: expected a file, got .*absent\.pt",
        ),
        (
            {"prior": "small-prior", "weights": "own.safetensors"},
            ModelError,
            r"purifiers\[0\]\.weights: own\.safetensors: \S+: expected (shape|a tensor)",
        ),
        (
            {"prior": "diffusers:absent", "weights": "own.safetensors"},
            ModelError,
            r"purifiers\[0\]\.weights: diffusers:absent brings its own, got own\.safetensors",
        ),
        (
            {"prior": FACTORY, "weights": "own.safetensors", "prior_side": 16, "steps": 2000},
            SpecError,
            r"purifiers\[0\]\.steps: expected \[1, 1000\], got 2000",
        ),
    ],
)
def test_mistakes_name_field_and_file(
    tmp_path: Path, written: dict[str, Any], error: type[Exception], words: str
) -> None:
    weights(tmp_path)
    with pytest.raises(error, match=words):
        built(tmp_path, {"name": "DDRM", **written})


# with an eighth of the channels: names of tensors do not depend on their number
NARROW = {
    "ddpm-cifar10": (
        lambda: UNet(16, (1, 2, 2, 2), (1,), groups=8),
        "down.0.block.0.temb_proj.weight",
        "mid.attn_1.q.bias",
    ),
    "ddpm-celeba-hq": (
        lambda: UNet(16, (1, 1, 2, 2, 4, 4), (4,), groups=8),
        "down.0.block.0.temb_proj.weight",
        "mid.attn_1.q.bias",
    ),
    "guided-imagenet256": (
        lambda: GuidedUNet(32, (1, 1, 2, 2, 4, 4), (8, 16, 32), head=8),
        "input_blocks.1.0.emb_layers.1.weight",
        "middle_block.1.qkv.bias",
    ),
}


@pytest.mark.parametrize("name", NARROW)
def test_the_original_layouts_are_loaded_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    narrow, there, gone = NARROW[name]
    size = priors.ARCHITECTURES[name].size
    monkeypatch.setattr(priors, "ARCHITECTURES", {name: Architecture(narrow, size, "narrow")})
    torch.manual_seed(0)
    state = narrow().state_dict()
    assert there in state
    torch.save(state, tmp_path / "theirs.ckpt")
    prior = load_prior(name, "theirs.ckpt", tmp_path, CPU, "prior")
    assert prior.size == size
    assert prior(torch.zeros(1, 3, 32, 32), 3).shape == (1, 3, 32, 32)
    del state[gone]
    torch.save(state, tmp_path / "theirs.ckpt")
    with pytest.raises(ModelError, match=rf"theirs\.ckpt: expected a tensor {re.escape(gone)}"):
        load_prior(name, "theirs.ckpt", tmp_path, CPU, "prior")


def test_listings_show_what_a_specification_may_say() -> None:
    for kind in (DDRM, DiffPure, IWMFDiff, OneStepDenoise):
        fields = list(parameter_fields(kind))
        assert (fields[0], fields[-2:]) == ("prior", ["weights", "prior_side"])


def test_a_run_purifies_with_a_prior(tmp_path: Path) -> None:
    written = {"name": "IWMFDiff", "prior": FACTORY, "prior_side": 16, "label": "both"}
    bench = toy.bench(
        tmp_path,
        dataset={"kind": "builtin:shapes", "count": 6, "chunk_size": 3},
        purifiers=[written],
        detectors=[],
        attacks=[],
    )
    state, made = toy.run(bench)
    assert any(work.node.name.startswith("purify") for work in made)
    (node,) = (node for node in Plan(bench) if node.kind == "purify")
    images = read_images(bench.store.images(state.done[(node.name, 0)].ref))
    assert images[0].shape == (3, 32, 32)
