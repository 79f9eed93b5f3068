"""Linearity: image quality without a reference, from two levels of a convolutional backbone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from defender.models.details import Details

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FAMILIES = ("resnet", "resnext", "wide_resnet", "mobilenet")
"""What the names of usable torchvision architectures begin with."""
KONIQ_RANGE = (25.78, 83.23)
"""Scores of the published checkpoint in practice, on the scale of KonIQ-10k, 0 to 100."""
SMALL_RANGE = (0.0, 100.0)
PROBE_SIDE = 64


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, named as torchvision names them.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: of the first convolution and, where the shape changes, of the shortcut.

    Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", 2016,
    arXiv 1512.03385. Differs: none.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n, in_channels, h, w) to (n, out_channels, ceil(h / stride), ...)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu_(self.bn1(self.conv1(x)))
        return torch.relu_(self.bn2(self.conv2(x)) + shortcut)


def small_features(widths: tuple[int, int, int, int] = (32, 64, 128, 256)) -> nn.Sequential:
    """A residual backbone of one block a stage: strides 2 and 2 in the stem, then 1, 2, 2, 2.

    It looks at pictures through :class:`defender.models.details.Details`.

    Args:
        widths: channels of the four stages; the stem has those of the first.
    """
    children: list[nn.Module] = [
        nn.Conv2d(Details.channels, widths[0], 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    ]
    channels = (widths[0], *widths)
    for stage in range(4):
        block = BasicBlock(channels[stage], channels[stage + 1], stride=1 if stage == 0 else 2)
        children.append(nn.Sequential(block))
    features = nn.Sequential(*children)
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return features


def torchvision_architectures() -> list[str]:
    """The names of the torchvision architectures that make a backbone."""
    from torchvision import models

    return [name for name in models.list_models(module=models) if name.startswith(FAMILIES)]


def torchvision_classifier(arch: str) -> nn.Module:
    """A torchvision classifier of a usable architecture, with random weights.

    Raises:
        ValueError: for an architecture of another family.
    """
    from torchvision import models

    known = torchvision_architectures()
    if arch not in known:
        raise ValueError(f"arch: expected small or one of {', '.join(known)}, got {arch!r}")
    network: nn.Module = models.get_model(arch, weights=None)
    return network


def convolutional(network: nn.Module) -> nn.Sequential:
    """The convolutional children of a torchvision classifier, in a row.

    Those of a ResNet are its children without the last two (pooling and classifier); a MobileNet
    keeps them in ``features``.
    """
    features = getattr(network, "features", None)
    whole = network.children() if features is None else features.children()
    return nn.Sequential(*list(whole)[: -2 if features is None else None])


def find_taps(
    features: nn.Sequential, channels: int = 3
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where a backbone is tapped: after its last child at stride 16 and after its last child.

    In a ResNet these are children 6 and 7, stages 3 and 4.

    Args:
        features: children in a row, of which the last is at stride 32.
        channels: of what it looks at.

    Returns:
        The indices of the two children, and the numbers of channels that they put out.
    """
    training = features.training
    features.eval()
    x = torch.zeros(1, channels, PROBE_SIDE, PROBE_SIDE)
    shapes = []
    with torch.no_grad():
        for child in features:
            x = child(x)
            shapes.append((x.shape[1], PROBE_SIDE // x.shape[2]))
    features.train(training)
    first = max(index for index, (_, stride) in enumerate(shapes) if stride == 16)
    last = len(shapes) - 1
    return (first, last), (shapes[first][0], shapes[last][0])


def pool(features: Tensor) -> Tensor:
    """Average features (n, c, h, w) over space to (n, c)."""
    return features.mean(dim=(2, 3))


def reduction(channels: int, widths: tuple[int, int, int]) -> nn.Sequential:
    """Three linear layers, each with batch normalisation, and one ReLU at the end."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(channels, width), nn.BatchNorm1d(width)]
        channels = width
    return nn.Sequential(*layers, nn.ReLU())


class Linearity(nn.Module):
    """Quality as a linear function of what two levels of a backbone see; larger is better.

    ``score = k * head([level 6, level 7]) + b``, where each level is the spatial average of the
    features after stage 3 or 4, reduced to a vector of 64. The names and shapes of the state dict
    are those of the public checkpoints; k, b and the normalisation of images are not in it.

    Args:
        arch: ``small`` (1.4 M parameters, without torchvision), or the torchvision name of a
            ResNet, ResNeXt, Wide ResNet or MobileNet.
        k: slope of the line from the raw output to scores.
        b: score where the raw output is 0.
        score_range: scores of the worst and the best images in practice, the smaller first; none:
            that of the published checkpoint, or 0 to 100 for ``small``.

    Raises:
        ValueError: for an unknown architecture, a k or b that is not finite, a range that does
            not ascend; when called, for images that are neither grey nor RGB.

    Source: D. Li, T. Jiang, M. Jiang, "Norm-in-Norm Loss with Faster Convergence and Better
    Performance for Image Quality Assessment", ACM MM 2020, arXiv 2008.03889.
    Differs: pooling is the average over the whole image (the published setting) and nothing else;
    the backbone ``small`` and the MobileNets are not in the paper.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        arch: str = "resnext101_32x8d",
        k: float = 1.0,
        b: float = 0.0,
        score_range: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        small = arch == "small"
        if score_range is None:
            score_range = SMALL_RANGE if small else KONIQ_RANGE
        low, high = (float(score) for score in score_range)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"score_range: expected two ascending numbers, got {score_range}")
        for name, value in (("k", k), ("b", b)):
            if not math.isfinite(value):
                raise ValueError(f"{name}: expected a finite number, got {value}")
        self.arch, self.k, self.b, self._score_range = arch, float(k), float(b), (low, high)
        self.details = Details() if small else nn.Identity()
        self.features = small_features() if small else convolutional(torchvision_classifier(arch))
        seen = Details.channels if small else 3
        self.taps, (channels6, channels7) = find_taps(self.features, seen)
        widths = (256, 128, 64) if small else (1024, 256, 64)
        self.dr6 = reduction(channels6, widths)
        self.dr7 = reduction(channels7, widths)
        self.regr6 = nn.Linear(widths[-1], 1)
        self.regr7 = nn.Linear(widths[-1], 1)
        self.regression = nn.Linear(2 * widths[-1], 1)
        for name, values in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    @property
    def lower_is_better(self) -> bool:
        """False: a larger score means a better image."""
        return False

    @property
    def needs_reference(self) -> bool:
        """False: images are judged by themselves."""
        return False

    @property
    def score_range(self) -> tuple[float, float]:
        """Scores of the worst and the best images in practice."""
        return self._score_range

    def heads(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs (n,) of level 6, of level 7 and of both together, before k and b.

        Args:
            images: (n, 3, h, w) in [0, 1], or (n, 1, h, w), which count as grey RGB images; of
                any size from 1 x 1.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"expected images (n, 1 or 3, h, w), got {tuple(images.shape)}")
        # a single channel is broadcast over the three means
        x = self.details((images - self.mean) / self.std)
        pooled = []
        for index, child in enumerate(self.features):
            x = child(x)
            if index in self.taps:
                pooled.append(pool(x))
        level6, level7 = self.dr6(pooled[0]), self.dr7(pooled[1])
        both = self.regression(torch.cat([level6, level7], dim=1))
        return self.regr6(level6)[:, 0], self.regr7(level7)[:, 0], both[:, 0]

    def raw(self, images: Tensor) -> Tensor:
        """Output (n,) of the final head for images (n, 1 or 3, h, w), before k and b."""
        return self.heads(images)[2]

    def forward(self, images: Tensor, reference: Tensor | None = None) -> Tensor:
        """Scores (n,) of images (n, 1 or 3, h, w) in [0, 1]; a reference is not looked at."""
        return self.k * self.raw(images) + self.b

    def extra_repr(self) -> str:
        """What the state dict does not say."""
        return f"arch={self.arch!r}, k={self.k}, b={self.b}, score_range={self.score_range}"
