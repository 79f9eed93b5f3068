"""MobileFaceNet, a small face encoder, in the layout of a public checkpoint."""

from __future__ import annotations

from torch import Tensor, nn

# (expansion, width, repeats, stride of the first) of the inverted residuals
_STAGES = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
_REDUCTION = 16


class _ConvNorm(nn.Sequential):
    """Convolution that keeps the size where its stride is 1, batch normalisation, ReLU6."""

    def __init__(self, given: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = (kernel - 1) // 2
        super().__init__(
            nn.Conv2d(given, out, kernel, stride, padding, groups=groups, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU6(),
        )


class _DepthwiseSeparable(nn.Module):
    """Depthwise 3x3 and pointwise convolution, each with batch normalisation and ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.pointwise = nn.Conv2d(width, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n, width, h, w) to features of the same shape."""
        x = self.bn1(self.depthwise(x)).relu()
        return self.bn2(self.pointwise(x)).relu()  # type: ignore[no-any-return]


class _GlobalDepthwise(nn.Module):
    """A depthwise convolution over the whole of the features: a weighted mean, learned."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, side, groups=width, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n, width, side, side) to (n, width, 1, 1)."""
        return self.bn(self.depthwise(x))  # type: ignore[no-any-return]


class _InvertedResidual(nn.Module):
    """Widen, filter channel by channel, narrow; plus the input where the shape is kept."""

    def __init__(self, given: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = given * expansion
        self.conv = nn.Sequential(
            _ConvNorm(given, wide, 1),
            _ConvNorm(wide, wide, 3, stride, groups=wide),
            nn.Conv2d(wide, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.skip = stride == 1 and given == out

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n, given, h, w) to (n, out, h / stride, w / stride)."""
        changed: Tensor = self.conv(x)
        return x + changed if self.skip else changed


class MobileFaceNet(nn.Module):
    """Face encoder of 1.0 M parameters: (n, 3, side, side), normalised, to embeddings (n, 128).

    Embeddings are as the last batch normalisation leaves them, not of unit length. Its input is
    normalised with the mean and standard deviation of ImageNet.

    Args:
        side: height and width of the images, a multiple of 16; public weights are for 112.

    Raises:
        ValueError: for another side.

    Source: S. Chen, Y. Liu, X. Gao, Z. Han, "MobileFaceNets: Efficient CNNs for Accurate
    Real-Time Face Verification on Mobile Devices", 2018, arXiv 1804.07573.
    Differs: ReLU and ReLU6 in place of PReLU, and a last projection with shift and batch
    normalisation, as the public checkpoint of foamliu/MobileFaceNet has them.
    """

    def __init__(self, side: int = 112) -> None:
        super().__init__()
        if side < _REDUCTION or side % _REDUCTION:
            raise ValueError(f"side: expected a multiple of {_REDUCTION}, got {side}")
        self.conv1 = _ConvNorm(3, 64, 3, stride=2)
        self.dw_conv = _DepthwiseSeparable(64)
        self.conv2 = _ConvNorm(128, 512, 1)
        self.gdconv = _GlobalDepthwise(512, side // _REDUCTION)
        self.conv3 = nn.Conv2d(512, 128, 1)
        self.bn = nn.BatchNorm1d(128)
        blocks, width = [], 64
        for expansion, out, repeats, first in _STAGES:
            for index in range(repeats):
                stride = first if index == 0 else 1
                blocks.append(_InvertedResidual(width, out, stride, expansion))
                width = out
        self.features = nn.Sequential(*blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (n, 3, side, side) to embeddings (n, 128)."""
        x = self.conv2(self.features(self.dw_conv(self.conv1(x))))
        return self.bn(self.conv3(self.gdconv(x)).flatten(1))  # type: ignore[no-any-return]
