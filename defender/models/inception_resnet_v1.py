"""InceptionResnetV1, the face encoder of FaceNet, with the names of public checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_BRANCHES = ("branch0", "branch1", "branch2", "branch3")


class BasicConv2d(nn.Module):
    """Convolution without shift, batch normalisation (eps 1e-3), ReLU."""

    def __init__(
        self,
        given: int,
        out: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n, given, h, w) to features (n, out, ...)."""
        return self.bn(self.conv(x)).relu()  # type: ignore[no-any-return]


class _Branches(nn.Module):
    """Several ways from the same features, joined along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for name, branch in zip(_BRANCHES, branches, strict=False):
            self.add_module(name, branch)

    def joined(self, x: Tensor) -> Tensor:
        """The outputs of the branches side by side, (n, sum of channels, ...)."""
        ways = (self._modules[name] for name in _BRANCHES if name in self._modules)
        return torch.cat([way(x) for way in ways if way is not None], dim=1)


class Residual(_Branches):
    """Branches, a pointwise projection, and the input plus a share of it.

    Args:
        branches: modules that keep height and width.
        given: channels of all branches together.
        width: channels of the block.
        scale: share of the projection that is added.
        activated: whether a ReLU follows.
    """

    def __init__(
        self,
        *branches: nn.Module,
        given: int,
        width: int,
        scale: float,
        activated: bool = True,
    ) -> None:
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(given, width, 1)
        self.scale = scale
        self.activated = activated

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n, width, h, w) to features of the same shape."""
        x = x + self.scale * self.conv2d(self.joined(x))
        return x.relu() if self.activated else x


class Reduction(_Branches):
    """Branches of stride 2 side by side."""

    def forward(self, x: Tensor) -> Tensor:
        """Map features (n, c, h, w) to (n, sum of channels, about h / 2, about w / 2)."""
        return self.joined(x)


def _block35() -> Residual:
    return Residual(
        BasicConv2d(256, 32, 1),
        nn.Sequential(BasicConv2d(256, 32, 1), BasicConv2d(32, 32, 3, padding=1)),
        nn.Sequential(
            BasicConv2d(256, 32, 1),
            BasicConv2d(32, 32, 3, padding=1),
            BasicConv2d(32, 32, 3, padding=1),
        ),
        given=96,
        width=256,
        scale=0.17,
    )


def _block17() -> Residual:
    return Residual(
        BasicConv2d(896, 128, 1),
        nn.Sequential(
            BasicConv2d(896, 128, 1),
            BasicConv2d(128, 128, (1, 7), padding=(0, 3)),
            BasicConv2d(128, 128, (7, 1), padding=(3, 0)),
        ),
        given=256,
        width=896,
        scale=0.10,
    )


def _block8(scale: float = 0.20, activated: bool = True) -> Residual:
    return Residual(
        BasicConv2d(1792, 192, 1),
        nn.Sequential(
            BasicConv2d(1792, 192, 1),
            BasicConv2d(192, 192, (1, 3), padding=(0, 1)),
            BasicConv2d(192, 192, (3, 1), padding=(1, 0)),
        ),
        given=384,
        width=1792,
        scale=scale,
        activated=activated,
    )


class InceptionResnetV1(nn.Module):
    """Face encoder of 23 M parameters: (n, 3, 160, 160), normalised, to embeddings (n, 512).

    Embeddings have length one. Public weights take ``(255 x - 127.5) / 128``. Images of other
    sizes from 75 on are taken too.

    Source: F. Schroff, D. Kalenichenko, J. Philbin, "FaceNet: A Unified Embedding for Face
    Recognition and Clustering", 2015, arXiv 1503.03832; C. Szegedy et al., "Inception-v4,
    Inception-ResNet and the Impact of Residual Connections on Learning", 2017, arXiv 1602.07261.
    Differs: none from the layout of facenet-pytorch, without the head that classifies people.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = BasicConv2d(3, 32, 3, stride=2)
        self.conv2d_2a = BasicConv2d(32, 32, 3)
        self.conv2d_2b = BasicConv2d(32, 64, 3, padding=1)
        self.maxpool_3a = nn.MaxPool2d(3, stride=2)
        self.conv2d_3b = BasicConv2d(64, 80, 1)
        self.conv2d_4a = BasicConv2d(80, 192, 3)
        self.conv2d_4b = BasicConv2d(192, 256, 3, stride=2)
        self.repeat_1 = nn.Sequential(*(_block35() for _ in range(5)))
        self.mixed_6a = Reduction(
            BasicConv2d(256, 384, 3, stride=2),
            nn.Sequential(
                BasicConv2d(256, 192, 1),
                BasicConv2d(192, 192, 3, padding=1),
                BasicConv2d(192, 256, 3, stride=2),
            ),
            nn.MaxPool2d(3, stride=2),
        )
        self.repeat_2 = nn.Sequential(*(_block17() for _ in range(10)))
        self.mixed_7a = Reduction(
            nn.Sequential(BasicConv2d(896, 256, 1), BasicConv2d(256, 384, 3, stride=2)),
            nn.Sequential(BasicConv2d(896, 256, 1), BasicConv2d(256, 256, 3, stride=2)),
            nn.Sequential(
                BasicConv2d(896, 256, 1),
                BasicConv2d(256, 256, 3, padding=1),
                BasicConv2d(256, 256, 3, stride=2),
            ),
            nn.MaxPool2d(3, stride=2),
        )
        self.repeat_3 = nn.Sequential(*(_block8() for _ in range(5)))
        self.block8 = _block8(1.0, activated=False)
        self.dropout = nn.Dropout(0.6)
        self.last_linear = nn.Linear(1792, 512, bias=False)
        self.last_bn = nn.BatchNorm1d(512, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (n, 3, h, w) to embeddings (n, 512) of length one."""
        x = self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x)))
        x = self.conv2d_4b(self.conv2d_4a(self.conv2d_3b(self.maxpool_3a(x))))
        x = self.mixed_7a(self.repeat_2(self.mixed_6a(self.repeat_1(x))))
        x = self.dropout(self.block8(self.repeat_3(x)).mean(dim=(2, 3)))
        return functional.normalize(self.last_bn(self.last_linear(x)))
