"""IResNet, the face encoders of InsightFace, with the names of its public checkpoints."""

from __future__ import annotations

from torch import Tensor, nn

_REDUCTION = 16
_WIDTHS = (64, 128, 256, 512)
_SLOPE = 0.25
"""Of every activation, before any training."""


class IBasicBlock(nn.Module):
    """Batch normalisation, two 3x3 convolutions and a shortcut, without activation after the sum.

    Args:
        given: channels of the input.
        out: channels of the output.
        stride: of the second convolution and, where the shape changes, of the shortcut.
        eps: of batch normalisation.
    """

    def __init__(self, given: int, out: int, stride: int, eps: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(given, eps)
        self.conv1 = nn.Conv2d(given, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out, eps)
        self.prelu = nn.PReLU(out)
        self.conv2 = nn.Conv2d(out, out, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out, eps)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or given != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(given, out, 1, stride, bias=False), nn.BatchNorm2d(out, eps)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n, given, h, w) to (n, out, h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut  # type: ignore[no-any-return]


class IResNet(nn.Module):
    """Face encoder: (n, 3, side, side), normalised, to embeddings (n, 512).

    Embeddings are as the last batch normalisation leaves them, not of unit length. Public weights
    take values normalised by mean 0.5 and standard deviation 0.5.

    Fresh weights keep the size of activations from convolution to convolution, and the blocks
    together add as much to the shortcuts as those bring: also without statistics of a training,
    embeddings are finite at any depth.

    Args:
        blocks: blocks of each of the four stages.
        side: height and width of the images, a multiple of 16; public weights are for 112.
        eps: of batch normalisation; newer releases have 1e-5.

    Raises:
        ValueError: for another side.

    Source: J. Deng, J. Guo, N. Xue, S. Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep
    Face Recognition", 2019, arXiv 1801.07698; I. C. Duta et al., "Improved Residual Networks for
    Image and Video Recognition", 2020, arXiv 2004.04989; fresh weights: K. He et al., "Delving Deep
    into Rectifiers", 2015, arXiv 1502.01852.
    Differs: InsightFace draws fresh weights with a standard deviation of 0.1 throughout, which
    overflows in 50 layers and more until the first batches of a training have been seen.
    """

    def __init__(
        self, blocks: tuple[int, int, int, int], side: int = 112, *, eps: float = 2e-5
    ) -> None:
        super().__init__()
        if side < _REDUCTION or side % _REDUCTION:
            raise ValueError(f"side: expected a multiple of {_REDUCTION}, got {side}")
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64, eps)
        self.prelu = nn.PReLU(64)
        stages, given = [], 64
        for count, width in zip(blocks, _WIDTHS, strict=True):
            first = IBasicBlock(given, width, 2, eps)
            more = (IBasicBlock(width, width, 1, eps) for _ in range(count - 1))
            stages.append(nn.Sequential(first, *more))
            given = width
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.bn2 = nn.BatchNorm2d(512, eps)
        self.dropout = nn.Dropout(0.4)
        self.fc = nn.Linear(512 * (side // _REDUCTION) ** 2, 512)
        self.features = nn.BatchNorm1d(512, eps)
        self.features.weight.requires_grad_(False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, _SLOPE, "fan_out", "leaky_relu")
            elif isinstance(module, IBasicBlock):
                nn.init.constant_(module.bn3.weight, sum(blocks) ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (n, 3, side, side) to embeddings (n, 512)."""
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.features(self.fc(self.dropout(self.bn2(x)).flatten(1)))  # type: ignore[no-any-return]


def iresnet18(side: int = 112) -> IResNet:
    """IResNet-18: 24 M parameters."""
    return IResNet((2, 2, 2, 2), side)


def iresnet34(side: int = 112) -> IResNet:
    """IResNet-34: 34 M parameters."""
    return IResNet((3, 4, 6, 3), side)


def iresnet50(side: int = 112) -> IResNet:
    """IResNet-50: 44 M parameters."""
    return IResNet((3, 4, 14, 3), side)


def iresnet100(side: int = 112) -> IResNet:
    """IResNet-100: 65 M parameters."""
    return IResNet((3, 13, 30, 3), side)
