"""The networks that this project defines, by name; the VGG kinds, MiniVGG and the LeNets are built here."""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from study.errors import UserError
from study.models.cifar_mobile_networks import MobileNetV2, ShuffleNet, ShuffleNetV2
from study.models.cifar_resnets import CifarResNet, WiderCifarResNet, WideResNet, initialise_convolutions

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

Blocks = tuple[tuple[int, ...], ...]
_THREE_POOLS: dict[str, Blocks] = {
    "vgg8": ((64,), (128,), (256,), (512,), (512,)),
    "vgg13_3pools": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
}
_POOLS = 3


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
    initialise_convolutions(model)
    return model


def _three_pool_vgg(blocks: Blocks, input_shape: Shape, classes: int, width: float = 1.0) -> nn.Sequential:
    """RepDistiller's VGG: max pools behind the first three of five blocks alone, then the mean over the image.

    So a CIFAR image still has 4×4 pixels in the last two blocks, where `vgg13` has 2×2 and 1. The number of
    parameters is the same. Names of layers are those of github.com/HobbitLong/RepDistiller; it pools 64×64 images a
    fourth time, which this does not.
    """
    channels, parts = input_shape[0], dict[str, nn.Module]()
    for at, block in enumerate(blocks):
        layers: list[nn.Module] = []
        for step in block:
            filters = max(_NARROWEST, round(step * width))
            layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]
            channels = filters
        parts[f"block{at}"] = nn.Sequential(*layers)
        if at < _POOLS:
            parts[f"pool{at}"] = nn.MaxPool2d(2)
    classifier = nn.Linear(channels, classes)
    parts |= {"pool4": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "classifier": classifier}
    model = nn.Sequential(OrderedDict(parts))
    initialise_convolutions(model)
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
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


def _on_images(network: Callable[..., nn.Module], *sizes: int) -> Callable[..., nn.Module]:
    """The builder of a network that asks for its own sizes, the images' channels and the classes, in this order."""

    def build(input_shape: Shape, classes: int) -> nn.Module:
        return network(*sizes, input_shape[0], classes)

    return build


BUILDERS: dict[str, Callable[..., nn.Module]] = {
    **{name: functools.partial(_vgg, plan) for name, plan in _VGG.items()},
    "lenet_300_100": _lenet_300_100,
    "lenet5": _lenet5,
    **{f"resnet{6 * blocks + 2}": _on_images(CifarResNet, blocks) for blocks in (3, 5, 9, 18)},
    **{f"resnet{6 * blocks + 2}x4": _on_images(WiderCifarResNet, blocks) for blocks in (1, 5)},
    **{f"wrn_{depth}_{k}": _on_images(WideResNet, depth, k) for depth, k in ((16, 2), (40, 1), (40, 2))},
    **{name: functools.partial(_three_pool_vgg, blocks) for name, blocks in _THREE_POOLS.items()},
    "shufflenetv1": _on_images(ShuffleNet),
    "shufflenetv2": _on_images(ShuffleNetV2),
    "mobilenetv2": _on_images(MobileNetV2),
}
MINIMUM_SIZES = {**dict.fromkeys(_VGG, 32), **dict.fromkeys(_THREE_POOLS, 2**_POOLS), "lenet5": 16}


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
