"""The UNet beside that of diffusers, built as google/ddpm-cifar10-32 is, with fewer channels."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from defender.models.unet import UNet

diffusers = pytest.importorskip("diffusers")

RENAMED = [
    (r"^temb\.dense\.0", "time_embedding.linear_1"),
    (r"^temb\.dense\.1", "time_embedding.linear_2"),
    (r"^norm_out", "conv_norm_out"),
    (r"^mid\.block_1", "mid_block.resnets.0"),
    (r"^mid\.block_2", "mid_block.resnets.1"),
    (r"^mid\.attn_1", "mid_block.attentions.0"),
    (r"^down\.(\d)", r"down_blocks.\1"),
    (r"^up\.(\d)", lambda found: f"up_blocks.{3 - int(found[1])}"),
    (r"\.block\.(\d)", r".resnets.\1"),
    (r"\.attn\.(\d)", r".attentions.\1"),
    (r"(down|up)sample\.conv", r"\1samplers.0.conv"),
    (r"temb_proj", "time_emb_proj"),
    (r"nin_shortcut", "conv_shortcut"),
    (r"(attentions\.\d)\.norm", r"\1.group_norm"),
    (r"(attentions\.\d)\.([qkv])\.", r"\1.to_\2."),
    (r"proj_out", "to_out.0"),
]


def converted(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names of diffusers; its attention has matrices for 1 x 1 convolutions."""
    result = {}
    for name, value in state.items():
        for pattern, other in RENAMED:
            name = re.sub(pattern, other, name)  # type: ignore[call-overload]
        matrix = "attentions" in name and value.ndim == 4
        result[name] = value[:, :, 0, 0] if matrix else value
    return result


def test_equals_diffusers_on_the_same_weights() -> None:
    torch.manual_seed(0)
    ours = UNet(16, (1, 2, 2, 2), (1,), groups=8).eval()
    with torch.no_grad():
        # norms that do nothing would hide one in the wrong place
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs = diffusers.UNet2DModel(
        sample_size=32,
        act_fn="silu",
        attention_head_dim=None,
        block_out_channels=(16, 32, 32, 32),
        center_input_sample=False,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        in_channels=3,
        layers_per_block=2,
        mid_block_scale_factor=1,
        norm_eps=1e-06,
        norm_num_groups=8,
        out_channels=3,
        time_embedding_type="positional",
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    ).eval()
    theirs.load_state_dict(converted(ours.state_dict()))
    images = torch.randn(3, 3, 32, 32)
    steps = torch.tensor([0, 50, 999])
    with torch.no_grad():
        expected = theirs(images, steps).sample
        made = ours(images, steps)
    assert expected.std() > 0.1
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)
