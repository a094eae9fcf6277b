"""ResNets for images of CIFAR's size: He et al.'s own, the wider ones of RepDistiller, and wide ResNets.

Their layers have the names of the published files, so that such a file loads as it is. RepDistiller is
github.com/HobbitLong/RepDistiller (Tian et al. 2020, https://arxiv.org/abs/1910.10699); mdistiller has the same ones.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def initialise_convolutions(model: nn.Module) -> None:
    """Draw the weights of every convolution with variance 2 / fan-out, and set its bias to zero.

    Reference: He et al. 2015, https://arxiv.org/abs/1502.01852, eq. 14.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def convolution3x3(channels: int, filters: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 3×3 convolution without bias that keeps the sides of its image, or halves them where the stride is 2."""
    return nn.Conv2d(channels, filters, 3, stride=stride, padding=1, groups=groups, bias=False)


def convolution1x1(channels: int, filters: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 1×1 convolution without bias."""
    return nn.Conv2d(channels, filters, 1, stride=stride, groups=groups, bias=False)


def average_over_image(features: Tensor) -> Tensor:
    """The mean of each channel, (n, channels, height, width) → (n, channels)."""
    return F.adaptive_avg_pool2d(features, 1).flatten(1)


class _BasicBlock(nn.Module):
    """Two convolutions and a shortcut without parameters (He et al. 2015, sec. 4.2, option A)."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution3x3(channels, filters, stride)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = convolution3x3(filters, filters)
        self.bn2 = nn.BatchNorm2d(filters)
        self.stride, self.added = stride, filters - channels

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → (n, filters, height / stride, width / stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(images)))))
        if self.added or self.stride > 1:  # every other pixel, with channels of zeros on both sides
            pixels = images[:, :, :: self.stride, :: self.stride]
            images = F.pad(pixels, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        return F.relu(out + images)


class ThreeStages(nn.Module):
    """What the networks for CIFAR begin with: a convolution, and three stages of blocks."""

    conv1: nn.Conv2d
    bn1: nn.BatchNorm2d
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def features(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → (n, filters, height, width) of the last stage."""
        out = F.relu(self.bn1(self.conv1(images)))
        features: Tensor = self.layer3(self.layer2(self.layer1(out)))
        return features


class CifarResNet(ThreeStages):
    """He et al. 2015, https://arxiv.org/abs/1512.03385, sec. 4.2: 6n + 2 layers, of 16, 32 and 64 channels.

    Names of layers are those of the published files of github.com/akamaster/pytorch_resnet_cifar10.
    """

    def __init__(self, blocks: int, channels: int, classes: int) -> None:
        """
        Args:
            blocks: n, in each of the three stages.
            channels: of the images.
        """
        super().__init__()
        self.conv1 = convolution3x3(channels, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(_BasicBlock(16, 16, 1) for _ in range(blocks)))
        self.layer2 = nn.Sequential(*(_BasicBlock(32 if n else 16, 32, 1 if n else 2) for n in range(blocks)))
        self.layer3 = nn.Sequential(*(_BasicBlock(64 if n else 32, 64, 1 if n else 2) for n in range(blocks)))
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → logits, (n, classes)."""
        logits: Tensor = self.linear(average_over_image(self.features(images)))
        return logits


class _ProjectionBlock(nn.Module):
    """Two convolutions and a shortcut, a 1×1 convolution with batch-norm where shapes differ (option B)."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution3x3(channels, filters, stride)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = convolution3x3(filters, filters)
        self.bn2 = nn.BatchNorm2d(filters)
        differs = stride > 1 or channels != filters
        shortcut = (convolution1x1(channels, filters, stride), nn.BatchNorm2d(filters)) if differs else ()
        self.downsample = nn.Sequential(*shortcut)

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → (n, filters, height / stride, width / stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(images)))))
        return F.relu(out + self.downsample(images))


class WiderCifarResNet(ThreeStages):
    """RepDistiller's `resnet8x4` and `resnet32x4`: 6n + 2 layers, of 64, 128 and 256 channels behind a stem of 32.

    Unlike `CifarResNet`, its shortcuts are 1×1 convolutions, and the first stage widens, too.
    """

    def __init__(self, blocks: int, channels: int, classes: int) -> None:
        """
        Args:
            blocks: n, in each of the three stages.
            channels: of the images.
        """
        super().__init__()
        self.conv1 = convolution3x3(channels, 32)
        self.bn1 = nn.BatchNorm2d(32)
        self.layer1 = nn.Sequential(*(_ProjectionBlock(64 if n else 32, 64, 1) for n in range(blocks)))
        self.layer2 = nn.Sequential(*(_ProjectionBlock(128 if n else 64, 128, 1 if n else 2) for n in range(blocks)))
        self.layer3 = nn.Sequential(*(_ProjectionBlock(256 if n else 128, 256, 1 if n else 2) for n in range(blocks)))
        self.fc = nn.Linear(256, classes)
        initialise_convolutions(self)

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → logits, (n, classes)."""
        logits: Tensor = self.fc(average_over_image(self.features(images)))
        return logits


class _WideBlock(nn.Module):
    """Batch-norm, ReLU and convolution, twice, and a shortcut; where widths differ it reads the first ReLU's output."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = convolution3x3(channels, filters, stride)
        self.bn2 = nn.BatchNorm2d(filters)
        self.conv2 = convolution3x3(filters, filters)
        self.convShortcut = convolution1x1(channels, filters, stride) if channels != filters else None

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → (n, filters, height / stride, width / stride)."""
        active = F.relu(self.bn1(images))
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (images if self.convShortcut is None else self.convShortcut(active))


class _WideStage(nn.Module):
    """Blocks in a row, under the name that they have in the published files."""

    def __init__(self, blocks: int, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        row = [_WideBlock(filters if n else channels, filters, 1 if n else stride) for n in range(blocks)]
        self.layer = nn.Sequential(*row)

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → (n, filters, height / stride, width / stride)."""
        out: Tensor = self.layer(images)
        return out


class WideResNet(nn.Module):
    """Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1605.07146, table 1, without dropout: 6n + 4 layers.

    Stages have 16k, 32k and 64k channels. WRN-40-2 has n = 6 and k = 2. Names of layers are those of RepDistiller.
    """

    def __init__(self, depth: int, widening: int, channels: int, classes: int) -> None:
        """
        Args:
            depth: 6n + 4.
            widening: k.
            channels: of the images.
        """
        super().__init__()
        blocks, widths = (depth - 4) // 6, [16 * widening, 32 * widening, 64 * widening]
        self.conv1 = convolution3x3(channels, 16)
        self.block1 = _WideStage(blocks, 16, widths[0], 1)
        self.block2 = _WideStage(blocks, widths[0], widths[1], 2)
        self.block3 = _WideStage(blocks, widths[1], widths[2], 2)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → logits, (n, classes)."""
        out = self.block3(self.block2(self.block1(self.conv1(images))))
        logits: Tensor = self.fc(average_over_image(F.relu(self.bn1(out))))
        return logits
