"""Networks of depthwise convolutions for images of CIFAR's size: ShuffleNet, ShuffleNet V2 and MobileNetV2.

They are those of github.com/HobbitLong/RepDistiller (Tian et al. 2020, https://arxiv.org/abs/1910.10699), which differ
from the papers in their stems and strides. Their layers have the names of its files.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.models.cifar_resnets import (
    ThreeStages,
    average_over_image,
    convolution1x1,
    convolution3x3,
    initialise_convolutions,
)

_STEM = 24
"""Channels behind the first layer of both ShuffleNets."""


def shuffle_channels(features: Tensor, groups: int) -> Tensor:
    """Channels of all groups in turn: of groups (a, b) and (c, d) this gives a, c, b, d.

    Args:
        features: (n, channels, height, width).
        groups: divides the number of channels.
    Returns: a tensor of the same shape.
    Reference: Zhang et al. 2018, https://arxiv.org/abs/1707.01083, sec. 3.1.
    """
    return features.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


class _ShuffleBlock(nn.Module):
    """Zhang et al. 2018, fig. 2 b and c: grouped 1×1, shuffle, depthwise 3×3, grouped 1×1, and a shortcut.

    Where the stride is 2, the shortcut is an average pool that is concatenated.
    """

    def __init__(self, channels: int, filters: int, stride: int, groups: int) -> None:
        super().__init__()
        self.stride, self.groups = stride, 1 if channels == _STEM else groups
        added = filters - channels if stride == 2 else filters
        inner = added // 4
        self.conv1 = convolution1x1(channels, inner, groups=self.groups)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = convolution3x3(inner, inner, stride, groups=inner)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = convolution1x1(inner, added, groups=groups)
        self.bn3 = nn.BatchNorm2d(added)

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → (n, filters, height / stride, width / stride)."""
        out = shuffle_channels(F.relu(self.bn1(self.conv1(images))), self.groups)
        out = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(out)))))  # the paper has no ReLU behind the depthwise one
        if self.stride == 1:
            return F.relu(out + images)
        return F.relu(torch.cat([out, F.avg_pool2d(images, 3, stride=2, padding=1)], 1))


class ShuffleNet(ThreeStages):
    """ShuffleNet with three groups and a stem of 1×1 that keeps the image's sides; stages of 240, 480, 960 channels.

    Reference: Zhang et al. 2018, https://arxiv.org/abs/1707.01083, table 1, column g = 3.
    """

    def __init__(self, channels: int, classes: int) -> None:
        """
        Args:
            channels: of the images.
        """
        super().__init__()
        self.conv1 = convolution1x1(channels, _STEM)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.layer1 = self._stage(_STEM, 240, 4)
        self.layer2 = self._stage(240, 480, 8)
        self.layer3 = self._stage(480, 960, 4)
        self.linear = nn.Linear(960, classes)

    @staticmethod
    def _stage(channels: int, filters: int, blocks: int) -> nn.Sequential:
        row = [_ShuffleBlock(filters if n else channels, filters, 1 if n else 2, groups=3) for n in range(blocks)]
        return nn.Sequential(*row)

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → logits, (n, classes)."""
        logits: Tensor = self.linear(average_over_image(self.features(images)))
        return logits


class _SplitBlock(nn.Module):
    """Ma et al. 2018, fig. 3 c: half of the channels pass, the others go through three convolutions; then a shuffle."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = convolution1x1(half, half)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = convolution3x3(half, half, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = convolution1x1(half, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.passing = half

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → the same shape."""
        passing, out = images[:, : self.passing], images[:, self.passing :]
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(out)))))
        out = F.relu(self.bn3(self.conv3(out)))
        return shuffle_channels(torch.cat([passing, out], 1), 2)


class _DownBlock(nn.Module):
    """Ma et al. 2018, fig. 3 d: two branches read all channels and halve the image; then a shuffle."""

    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        half = filters // 2
        self.conv1 = convolution3x3(channels, channels, 2, groups=channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution1x1(channels, half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = convolution1x1(channels, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = convolution3x3(half, half, 2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = convolution1x1(half, half)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → (n, filters, height / 2, width / 2)."""
        short = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(images)))))
        long = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(images)))))
        long = F.relu(self.bn5(self.conv5(long)))
        return shuffle_channels(torch.cat([short, long], 1), 2)


class ShuffleNetV2(ThreeStages):
    """ShuffleNet V2 of width 1 with a stem of 1×1 that keeps the image's sides; stages of 116, 232, 464 channels.

    Reference: Ma et al. 2018, https://arxiv.org/abs/1807.11164, table 5, column 1×.
    """

    def __init__(self, channels: int, classes: int) -> None:
        """
        Args:
            channels: of the images.
        """
        super().__init__()
        self.conv1 = convolution1x1(channels, _STEM)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.layer1 = self._stage(_STEM, 116, 3)
        self.layer2 = self._stage(116, 232, 7)
        self.layer3 = self._stage(232, 464, 3)
        self.conv2 = convolution1x1(464, 1024)
        self.bn2 = nn.BatchNorm2d(1024)
        self.linear = nn.Linear(1024, classes)

    @staticmethod
    def _stage(channels: int, filters: int, blocks: int) -> nn.Sequential:
        return nn.Sequential(_DownBlock(channels, filters), *(_SplitBlock(filters) for _ in range(blocks)))

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → logits, (n, classes)."""
        out = F.relu(self.bn2(self.conv2(self.features(images))))
        logits: Tensor = self.linear(average_over_image(out))
        return logits


def _with_norm(convolution: nn.Conv2d, relu: bool = True) -> list[nn.Module]:
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(convolution.out_channels)]
    return [*layers, nn.ReLU(inplace=True)] if relu else layers


class _InvertedBlock(nn.Module):
    """Sandler et al. 2018, fig. 4 d: 1×1 that widens, depthwise 3×3, 1×1 that narrows, and a shortcut where it fits."""

    def __init__(self, channels: int, filters: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.conv = nn.Sequential(
            *_with_norm(convolution1x1(channels, inner)),
            *_with_norm(convolution3x3(inner, inner, stride, groups=inner)),
            *_with_norm(convolution1x1(inner, filters), relu=False),
        )
        self.adds = stride == 1 and channels == filters

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → (n, filters, height / stride, width / stride)."""
        out: Tensor = self.conv(images)
        return images + out if self.adds else out


class MobileNetV2(nn.Module):
    """MobileNetV2 of half the width for CIFAR: ReLU for ReLU6, and the first block of 24 channels keeps the sides.

    Unlike the paper it has two 1×1 convolutions in the block of expansion 1, too, and rounds no width to eights.

    Reference: Sandler et al. 2018, https://arxiv.org/abs/1801.04381, table 2, with width multiplier 0.5.
    """

    _STAGES = (
        (1, 16, 1, 1),
        (6, 24, 2, 1),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    """(expansion, channels at width 1, blocks, stride of the first), as in the paper but for the second's stride."""

    def __init__(self, channels: int, classes: int) -> None:
        """
        Args:
            channels: of the images.
        """
        super().__init__()
        before = 32 // 2
        self.conv1 = nn.Sequential(*_with_norm(convolution3x3(channels, before, 2)))
        stages: list[nn.Module] = []
        for expansion, full, blocks, stride in self._STAGES:
            row = []
            for n in range(blocks):
                row.append(_InvertedBlock(before, full // 2, 1 if n else stride, expansion))
                before = full // 2
            stages.append(nn.Sequential(*row))
        self.blocks = nn.Sequential(*stages)
        self.conv2 = nn.Sequential(*_with_norm(convolution1x1(before, 1280)))
        head = nn.Linear(1280, classes)
        self.classifier = nn.Sequential(head)
        initialise_convolutions(self)
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → logits, (n, classes)."""
        out = self.conv2(self.blocks(self.conv1(images)))
        logits: Tensor = self.classifier(average_over_image(out))
        return logits
