from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from defender.losses import norm_in_norm
from defender.models.linearity import Linearity
from defender.types import QualityMetric

LAYOUTS = Path(__file__).resolve().parents[2] / "../shared/layouts"


def on_paper(arch: str) -> Linearity:
    """The network with shapes and without values."""
    with torch.device("meta"):
        return Linearity(arch)


def scrambled(metric: Linearity, seed: int = 5) -> Linearity:
    """The metric in evaluation mode with random batch statistics and affine terms."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in metric.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for tensor in (module.weight, module.running_var):
                    assert tensor is not None
                    tensor.uniform_(0.7, 1.3, generator=generator)
                for tensor in (module.bias, module.running_mean):
                    assert tensor is not None
                    tensor.normal_(0.0, 0.2, generator=generator)
    return metric.eval().requires_grad_(False)


def pictures(n: int, side: int = 48, channels: int = 3, seed: int = 6) -> Tensor:
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def small() -> Linearity:
    torch.manual_seed(7)
    return scrambled(Linearity("small", k=3.0, b=50.0))


def layout_of(metric: nn.Module) -> list[str]:
    """One line a tensor, ``name shape``."""
    return [
        f"{name} {'x'.join(map(str, value.shape)) or 'scalar'}"
        for name, value in metric.state_dict().items()
    ]


@pytest.mark.parametrize("arch", ["resnet18", "resnext101_32x8d"])
def test_names_and_shapes_are_those_of_the_public_checkpoints(arch: str) -> None:
    path = LAYOUTS / f"linearity_{arch}.txt"
    if not path.is_file():
        pytest.skip(f"no {path.name}: the layouts belong at ../shared/layouts")
    lines = path.read_text().splitlines()
    assert layout_of(on_paper(arch)) == [line for line in lines if not line.startswith("#")]


GOLDEN = {
    "resnet18": (168, "bc5b846223568f2f2041d6144823b59831ab3c7d73e10f5120f7b45769a081b2"),
    "resnext101_32x8d": (672, "4ac5a615d21ed4f39c5079d6ea548b1ba0f97f58e700fe8f15ae546c5a38482f"),
    "small": (120, "9d0ca535a6a07eb01bdce2c1d687e5208a750d508df3f2ebc61b0997e470e61a"),
}
"""Number of tensors, and SHA-256 of the sorted lines of the layout."""

SOME_LINES = {
    "resnet18": ["features.7.1.bn2.running_var 512", "dr6.0.weight 1024x256"],
    "resnext101_32x8d": [
        "features.0.weight 64x3x7x7",
        "features.1.num_batches_tracked scalar",
        "features.4.0.downsample.0.weight 256x64x1x1",
        "features.6.22.conv2.weight 1024x32x3x3",
        "features.7.2.bn3.running_mean 2048",
        "dr6.0.weight 1024x1024",
        "dr6.5.running_var 64",
        "dr7.0.weight 1024x2048",
        "dr7.2.weight 256x1024",
        "dr7.4.weight 64x256",
        "regr6.weight 1x64",
        "regr7.bias 1",
        "regression.weight 1x128",
    ],
    "small": [
        "features.0.weight 32x7x7x7",
        "features.4.0.conv1.weight 32x32x3x3",
        "features.5.0.downsample.1.bias 64",
        "features.7.0.conv2.weight 256x256x3x3",
        "dr6.0.weight 256x128",
        "dr7.2.weight 128x256",
        "regression.weight 1x128",
    ],
}


@pytest.mark.parametrize("arch", sorted(GOLDEN))
def test_names_and_shapes_stay(arch: str) -> None:
    lines = layout_of(on_paper(arch))
    assert set(SOME_LINES[arch]) <= set(lines)
    assert not [line for line in lines if line.split(" ", 1)[0] in ("k", "b", "mean", "std")]
    digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
    assert (len(lines), digest) == GOLDEN[arch]


@pytest.mark.parametrize(
    ("arch", "taps", "channels"),
    [
        ("resnet34", (6, 7), (256, 512)),
        ("resnet50", (6, 7), (1024, 2048)),
        ("resnext50_32x4d", (6, 7), (1024, 2048)),
        ("wide_resnet50_2", (6, 7), (1024, 2048)),
        ("mobilenet_v2", (13, 18), (96, 1280)),
        ("mobilenet_v3_small", (8, 12), (48, 576)),
        ("mobilenet_v3_large", (12, 16), (112, 960)),
        ("small", (6, 7), (128, 256)),
    ],
)
def test_levels_are_the_last_at_stride_16_and_at_stride_32(
    arch: str, taps: tuple[int, int], channels: tuple[int, int]
) -> None:
    metric = on_paper(arch)
    assert metric.taps == taps
    assert (metric.dr6[0].in_features, metric.dr7[0].in_features) == channels
    assert metric.training
    with torch.device("meta"):
        assert metric.eval()(torch.rand(2, 3, 40, 40)).shape == (2,)


def test_small_has_few_parameters(small: Linearity) -> None:
    assert sum(parameter.numel() for parameter in small.parameters()) == 1_419_683


def test_small_does_without_torchvision() -> None:
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "import torch; from defender.models.linearity import Linearity\n"
        "metric = Linearity('small').eval()\n"
        "print(tuple(metric(torch.rand(2, 3, 20, 20)).shape))\n"
        "try:\n    Linearity('resnet18')\n"
        "except ImportError:\n    print('refused')\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["(2,)", "refused"]


def test_small_is_a_residual_network_as_torchvision_builds_them(small: Linearity) -> None:
    from torchvision.models.resnet import BasicBlock

    def shrinking(inside: int, outside: int) -> BasicBlock:
        shortcut = nn.Conv2d(inside, outside, 1, stride=2, bias=False)
        return BasicBlock(inside, outside, 2, nn.Sequential(shortcut, nn.BatchNorm2d(outside)))

    features = nn.Sequential(
        nn.Conv2d(7, 32, 7, 2, 3, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Sequential(BasicBlock(32, 32)),
        nn.Sequential(shrinking(32, 64)),
        nn.Sequential(shrinking(64, 128)),
        nn.Sequential(shrinking(128, 256)),
    )
    features.load_state_dict(small.features.state_dict())
    x = small.details(pictures(2) - 0.5)
    with torch.no_grad():
        torch.testing.assert_close(small.features(x), features.eval()(x), rtol=1e-5, atol=1e-5)


def test_it_is_a_quality_metric(small: Linearity) -> None:
    assert isinstance(small, QualityMetric)
    assert (small.lower_is_better, small.needs_reference) == (False, False)
    assert small.score_range == (0.0, 100.0)
    assert on_paper("resnet18").score_range == (25.78, 83.23)
    assert Linearity("small", score_range=(1, 5)).score_range == (1.0, 5.0)


def test_the_score_is_a_line_of_the_final_head(small: Linearity) -> None:
    images = pictures(3)
    level6, level7, both = small.heads(images)
    assert torch.equal(small.raw(images), both)
    assert torch.equal(small(images), 3.0 * both + 50.0)
    assert torch.equal(small(images, images.flip(3)), small(images))
    assert len({tuple(head.tolist()) for head in (level6, level7, both)}) == 3
    assert both.std() > 1e-3


def test_an_image_is_scored_without_a_look_at_its_neighbours(small: Linearity) -> None:
    images, others = pictures(4), pictures(4, seed=99)
    others[2] = images[2]
    assert torch.equal(small(others)[2], small(images)[2])
    alone = torch.cat([small(image[None]) for image in images])
    torch.testing.assert_close(alone, small(images), rtol=1e-5, atol=1e-5)


def test_grey_images_are_rgb_images_with_equal_channels(small: Linearity) -> None:
    grey = pictures(2, channels=1)
    assert torch.equal(small(grey), small(grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize("size", [(1, 1), (12, 12), (31, 17), (33, 97)])
def test_images_of_any_size_have_a_score_and_a_gradient(
    small: Linearity, size: tuple[int, int]
) -> None:
    images = pictures(2, side=97)[:, :, : size[0], : size[1]].clone().requires_grad_(True)
    scores = small(images)
    assert scores.shape == (2,)
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().amax(dim=(1, 2, 3)).min() > 0


def test_every_parameter_learns_from_the_three_heads() -> None:
    torch.manual_seed(8)
    metric = Linearity("small")
    target = torch.tensor([10.0, 60.0, 30.0, 80.0])
    losses = [norm_in_norm(head, target) for head in metric.heads(pictures(4))]
    (0.1 * losses[0] + 0.1 * losses[1] + losses[2]).backward()  # type: ignore[no-untyped-call]
    untouched = [
        name
        for name, parameter in metric.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    # what shifts all outputs, or goes into a batch normalisation, has no say except by rounding
    silent = {"regr6.bias", "regr7.bias", "regression.bias"}
    silent |= {f"dr{level}.{layer}.bias" for level in (6, 7) for layer in (0, 2, 4)}
    assert set(untouched) <= silent


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"arch": "vgg16"}, "arch: expected small or one of mobilenet_v2, .*, got 'vgg16'"),
        ({"arch": "resnet19"}, "got 'resnet19'"),
        ({"k": float("nan")}, "k: expected a finite number, got nan"),
        ({"b": float("inf")}, "b: expected a finite number, got inf"),
        ({"score_range": (5, 5)}, r"score_range: expected two ascending numbers, got \(5, 5\)"),
    ],
)
def test_wrong_arguments(arguments: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Linearity(**{"arch": "small", **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(2, 4, 20, 20), (3, 20, 20)])
def test_other_than_grey_or_rgb_images_are_refused(
    small: Linearity, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="expected images"):
        small(torch.zeros(shape))
