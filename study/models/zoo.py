"""The networks that this project defines: the VGG kinds, MiniVGG, the LeNets, and the ResNets for CIFAR."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from study.errors import UserError

Shape = tuple[int, ...]
"""(channels, height, width) of an image; of other data, the shape of one example."""

Options = dict[str, object]
"""What else a network is built with, by name, such as `width`."""

# Simonyan & Zisserman 2015, https://arxiv.org/abs/1409.1556, table 1, columns A, B, D, E; "M" is a max pool.
_M = "M"
_VGG: dict[str, tuple[int | str, ...]] = {
    "vgg11": (64, _M, 128, _M, 256, 256, _M, 512, 512, _M, 512, 512, _M),
    "vgg13": (64, 64, _M, 128, 128, _M, 256, 256, _M, 512, 512, _M, 512, 512, _M),
    "vgg16": (64, 64, _M, 128, 128, _M, 256, 256, 256, _M, 512, 512, 512, _M, 512, 512, 512, _M),
    "vgg19": (64, 64, _M, 128, 128, _M, *[256] * 4, _M, *[512] * 4, _M, *[512] * 4, _M),
    "minivgg": (32, _M, 64, _M, 128, _M, 256, _M, 512, _M),
}
_NARROWEST = 4


def _vgg(plan: tuple[int | str, ...], input_shape: Shape, classes: int, width: float = 1.0) -> nn.Sequential:
    channels, height, image_width = input_shape
    layers: list[nn.Module] = []
    for step in plan:
        if isinstance(step, str):
            layers.append(nn.MaxPool2d(2))
            continue
        filters = max(_NARROWEST, round(step * width))
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
        channels = filters
    pools = plan.count(_M)
    if max(height, image_width) >> pools > 1:  # at 32×32 a single pixel remains, and pooling it would do nothing
        layers.append(nn.AdaptiveAvgPool2d(1))
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, classes))
    for layer in layers:
        if isinstance(layer, nn.Conv2d):  # He et al. 2015, https://arxiv.org/abs/1502.01852, eq. 14
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return model


def _lenet_300_100(input_shape: Shape, classes: int) -> nn.Module:
    """LeCun et al. 1998, "Gradient-based learning applied to document recognition", sec. III.C.5, with ReLU."""
    pixels = input_shape[0] * input_shape[1] * input_shape[2]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, classes)
    )


def _lenet5(input_shape: Shape, classes: int) -> nn.Module:
    """Caffe's variant (examples/mnist/lenet.prototxt): no ReLU between the convolutions, as there."""
    channels, height, width = input_shape
    last_height, last_width = (((side - 4) // 2 - 4) // 2 for side in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * last_height * last_width, 500),
        nn.ReLU(),
        nn.Linear(500, classes),
    )


class _BasicBlock(nn.Module):
    """Two convolutions and a shortcut without parameters (He et al. 2015, sec. 4.2, option A)."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.stride, self.added = stride, filters - channels

    def forward(self, images: Tensor) -> Tensor:
        """(n, channels, height, width) → (n, filters, height / stride, width / stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(images)))))
        if self.added or self.stride > 1:  # every other pixel, with channels of zeros on both sides
            kept = images[:, :, :: self.stride, :: self.stride]
            images = F.pad(kept, (0, 0, 0, 0, self.added // 2, self.added - self.added // 2))
        return F.relu(out + images)


class _CifarResNet(nn.Module):
    """He et al. 2015, https://arxiv.org/abs/1512.03385, sec. 4.2: 6n + 2 layers, of 16, 32 and 64 channels.

    Names of layers are those of the published files of github.com/akamaster/pytorch_resnet_cifar10.
    """

    def __init__(self, blocks: int, input_shape: Shape, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(input_shape[0], 16, 3, padding=1, bias=False)
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
        out = F.relu(self.bn1(self.conv1(images)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(F.adaptive_avg_pool2d(out, 1).flatten(1))
        return logits


def _cifar_resnet(blocks: int, input_shape: Shape, classes: int) -> nn.Module:
    return _CifarResNet(blocks, input_shape, classes)


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{name: functools.partial(_vgg, plan) for name, plan in _VGG.items()},
    "lenet_300_100": _lenet_300_100,
    "lenet5": _lenet5,
    "resnet20": functools.partial(_cifar_resnet, 3),
    "resnet56": functools.partial(_cifar_resnet, 9),
}
MINIMUM_SIZES = {**dict.fromkeys(_VGG, 32), "lenet5": 16}


def build_ours(name: str, input_shape: Shape, classes: int, options: Options) -> nn.Module:
    known = [p for p in inspect.signature(BUILDERS[name]).parameters if p not in ("input_shape", "classes")]
    for option in options:
        if option not in known:
            raise UserError(f"network {name}: unknown option {option!r}; it has {', '.join(known) or 'none'}")
    width = options.get("width", 1.0)
    if not (isinstance(width, int | float) and 0 < width < float("inf")):
        raise UserError(f"network {name}: width {width!r} is not a positive number")
    _, height, image_width = input_shape
    least = MINIMUM_SIZES.get(name, 1)
    if min(height, image_width) < least:
        raise UserError(f"network {name} needs images of at least {least}×{least}, not {height}×{image_width}")
    return BUILDERS[name](input_shape, classes, **options)
