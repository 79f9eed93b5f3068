"""The UNet of guided diffusion: the layout of its checkpoints, and what it computes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from defender.models.guided_unet import GuidedUNet, guided_imagenet256

FACTORS = (1, 2)


def small() -> GuidedUNet:
    torch.manual_seed(0)
    return GuidedUNet(32, FACTORS, (2,), blocks=1, head=16).eval()


def test_the_public_network_has_the_size_of_its_checkpoint() -> None:
    with torch.device("meta"):
        network = guided_imagenet256()
    assert sum(one.numel() for one in network.parameters()) == 552_814_086
    shapes = {name: tuple(one.shape) for name, one in network.state_dict().items()}
    assert shapes["time_embed.0.weight"] == (1024, 256)
    assert shapes["input_blocks.0.0.weight"] == (256, 3, 3, 3)
    assert shapes["input_blocks.3.0.in_layers.2.weight"] == (256, 256, 3, 3)  # halves the side
    assert shapes["input_blocks.10.1.qkv.weight"] == (1536, 512, 1)
    assert shapes["middle_block.1.proj_out.weight"] == (1024, 1024, 1)
    assert shapes["output_blocks.0.0.skip_connection.weight"] == (1024, 2048, 1, 1)
    assert shapes["output_blocks.2.2.emb_layers.1.weight"] == (2048, 1024)  # doubles the side
    assert shapes["out.2.weight"] == (6, 256, 3, 3)
    assert not any(name.startswith("label_emb") for name in shapes)


def test_shapes_and_gradients() -> None:
    network = small()
    images = torch.rand(2, 3, 8, 12, requires_grad=True)
    made = network(images, torch.tensor([3, 900]))
    assert made.shape == (2, 6, 8, 12)
    (gradient,) = torch.autograd.grad(made.sum(), images)
    assert gradient.abs().sum() > 0
    alone = network(images[1:], torch.tensor([900]))
    torch.testing.assert_close(alone[0], made[1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(made[1], network(images[1:], torch.tensor([3]))[0], atol=1e-3)


def blocks(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for there, here in (
        *(("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1")),
        *(("norm2", "out_layers.0"), ("conv2", "out_layers.3")),
        ("conv_shortcut", "skip_connection"),
    ):
        for kind in ("weight", "bias"):
            yield f"{theirs}.{there}.{kind}", f"{ours}.{here}.{kind}"


def attention(state: dict[str, Tensor], theirs: str, ours: str, head: int) -> dict[str, Tensor]:
    made = {}
    for kind in ("weight", "bias"):
        made[f"{theirs}.group_norm.{kind}"] = state[f"{ours}.norm.{kind}"]
        made[f"{theirs}.to_out.0.{kind}"] = state[f"{ours}.proj_out.{kind}"].squeeze(-1)
        mixed = state[f"{ours}.qkv.{kind}"]
        channels = len(mixed) // 3
        split = mixed.view(channels // head, 3, head, *mixed.shape[1:]).unbind(1)
        for name, part in zip("qkv", split, strict=True):
            made[f"{theirs}.to_{name}.{kind}"] = part.reshape(channels, *mixed.shape[1:2])
    return made


def test_equals_the_network_of_diffusers_with_the_same_weights() -> None:
    diffusers: Any = pytest.importorskip("diffusers")
    reference = diffusers.UNet2DModel(
        in_channels=3,
        out_channels=6,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        resnet_time_scale_shift="scale_shift",
        downsample_type="resnet",
        upsample_type="resnet",
        attention_head_dim=16,
        norm_num_groups=32,
        attn_norm_num_groups=32,
        norm_eps=1e-5,
        flip_sin_to_cos=True,
        freq_shift=0,
    ).eval()
    network = small()
    state = network.state_dict()
    pairs = [
        *blocks("down_blocks.0.resnets.0", "input_blocks.1.0"),
        *blocks("down_blocks.0.downsamplers.0", "input_blocks.2.0"),
        *blocks("down_blocks.1.resnets.0", "input_blocks.3.0"),
        *blocks("mid_block.resnets.0", "middle_block.0"),
        *blocks("mid_block.resnets.1", "middle_block.2"),
        *blocks("up_blocks.0.resnets.0", "output_blocks.0.0"),
        *blocks("up_blocks.0.resnets.1", "output_blocks.1.0"),
        *blocks("up_blocks.0.upsamplers.0", "output_blocks.1.2"),
        *blocks("up_blocks.1.resnets.0", "output_blocks.2.0"),
        *blocks("up_blocks.1.resnets.1", "output_blocks.3.0"),
    ]
    given = {theirs: state[ours] for theirs, ours in pairs if ours in state}
    for theirs, ours in (
        ("down_blocks.1.attentions.0", "input_blocks.3.1"),
        ("mid_block.attentions.0", "middle_block.1"),
        ("up_blocks.0.attentions.0", "output_blocks.0.1"),
        ("up_blocks.0.attentions.1", "output_blocks.1.1"),
    ):
        given |= attention(state, theirs, ours, 16)
    for kind in ("weight", "bias"):
        given[f"conv_in.{kind}"] = state[f"input_blocks.0.0.{kind}"]
        given[f"time_embedding.linear_1.{kind}"] = state[f"time_embed.0.{kind}"]
        given[f"time_embedding.linear_2.{kind}"] = state[f"time_embed.2.{kind}"]
        given[f"conv_norm_out.{kind}"] = state[f"out.0.{kind}"]
        given[f"conv_out.{kind}"] = state[f"out.2.{kind}"]
    reference.load_state_dict(given)
    images, steps = torch.rand(2, 3, 8, 8) * 2 - 1, torch.tensor([7, 640])
    with torch.no_grad():
        wanted = reference(images, steps).sample
        torch.testing.assert_close(network(images, steps), wanted, atol=1e-5, rtol=1e-4)
