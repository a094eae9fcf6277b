"""Networks by name: our own small ones, any of torchvision.models, or a user's `module:function`."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from study.errors import UserError

Shape = tuple[int, int, int]
"""(channels, height, width)"""

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
_THEIRS = "torchvision:"
# These two return a second output while they train unless told not to, and warn unless told how to initialise.
_TORCHVISION_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


class GreyToColour(nn.Module):
    """Repeats one channel three times, for networks that take colour images only."""

    def forward(self, images: Tensor) -> Tensor:
        """(n, 1, height, width) → (n, 3, height, width), without a copy."""
        return images.expand(-1, 3, -1, -1)


def build(name: str, input_shape: Shape, classes: int, **options: Any) -> nn.Module:
    """Build a network with fresh weights, and check with one batch of zeros that it fits its input and output.

    The weights depend on `torch.manual_seed` alone, which the caller sets.

    Args:
        name: one of `NAMES`; a name of `torchvision.models` (`torchvision:vgg13` where the name is also ours); or
            `module:function`, called as `function(input_shape=…, classes=…, **options)`.
        input_shape: (channels, height, width) of one image.
        classes: number of classes, the length of the output.
        **options: `width` (a factor on every channel count) for the VGG kinds; else passed on.
    Returns: a module from (n, channels, height, width) float32 to logits (n, classes), in training mode.
    Raises:
        UserError: an unknown name or option, an input too small, or a network that does not fit.
    """
    if name in _OURS:
        model = _build_ours(name, input_shape, classes, options)
    elif _is_theirs(name):
        model = _build_torchvision(name.removeprefix(_THEIRS), input_shape, classes, options)
    elif ":" in name:
        model = _build_custom(name, input_shape, classes, options)
    else:
        raise _unknown(name)
    _check_fits(model, name, input_shape, classes)
    return model.train()


def minimum_size(name: str) -> int:
    """Smallest image side, in pixels, that the network takes; 1 where there is no limit or none is known.

    Raises:
        UserError: an unknown name.
    """
    if name in _OURS:
        return _MINIMUM.get(name, 1)
    if _is_theirs(name):
        from torchvision.models import get_model_weights

        sizes = [side for weights in get_model_weights(name.removeprefix(_THEIRS)) for side in weights.meta["min_size"]]
        return max(sizes, default=1)
    if ":" not in name:
        raise _unknown(name)
    return 1


def parameter_count(model: nn.Module) -> int:
    """Number of learned scalars; batch-norm's running statistics are not among them."""
    return sum(p.numel() for p in model.parameters())


def identity(name: str, model: nn.Module) -> str:
    """Hash of what a user's network is: its layers, the shapes of its state, and the files that its code lies in, with
    those beside them that they use.

    torch's own files are left out: its version says what they are. Returns: 16 hexadecimal digits, or "" where some of
    the code lies in no file, so that nobody can say.
    """
    named = name.partition(":")[0]
    hashed = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", repr(model)).encode())
    hashed.update(repr([(k, tuple(v.shape)) for k, v in model.state_dict().items()]).encode())
    for module in sorted({named, *_used_by(named), *(type(m).__module__ for m in model.modules())}):
        file = _file_of(module)
        if file is None:
            return ""
        if module.partition(".")[0] != "torch":
            hashed.update(file.read_bytes())
    return hashed.hexdigest()[:16]


_INSTALLED = "site-packages"


def _used_by(module: str) -> set[str]:
    """Modules of the same folder, or package, of which something stands in this one, or in one of those."""
    files = [_file_of(name) for name in (module.partition(".")[0], module)]  # a package need not have a file
    folder = next((file.parent for file in files if file), None)
    if folder is None or folder.name == _INSTALLED:  # a file by itself, among all that is installed
        return set()
    found, left = set(), [module]
    while left:
        for value in vars(sys.modules[left.pop()]).copy().values():
            name = str(value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None))
            file = _file_of(name)
            beside = file and file.is_relative_to(folder) and _INSTALLED not in file.relative_to(folder).parts
            if beside and name not in found:
                found.add(name)
                left.append(name)
    return found


def _file_of(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if file and Path(file).is_file() else None


def _vgg(plan: tuple[int | str, ...], input_shape: Shape, classes: int, width: float = 1.0) -> nn.Sequential:
    channels, height, sideways = input_shape
    layers: list[nn.Module] = []
    for step in plan:
        if isinstance(step, str):
            layers.append(nn.MaxPool2d(2))
            continue
        wide = max(_NARROWEST, round(step * width))
        layers += [nn.Conv2d(channels, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]
        channels = wide
    pools = plan.count(_M)
    if max(height, sideways) >> pools > 1:  # at 32×32 one pixel is left, and pooling it would be a layer for nothing
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
    left_height, left_width = (((side - 4) // 2 - 4) // 2 for side in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * left_height * left_width, 500),
        nn.ReLU(),
        nn.Linear(500, classes),
    )


_OURS: dict[str, Callable[..., nn.Module]] = {
    **{name: functools.partial(_vgg, plan) for name, plan in _VGG.items()},
    "lenet_300_100": _lenet_300_100,
    "lenet5": _lenet5,
}
_MINIMUM = {**dict.fromkeys(_VGG, 32), "lenet5": 16}
NAMES = tuple(_OURS)


def _build_ours(name: str, input_shape: Shape, classes: int, options: dict[str, Any]) -> nn.Module:
    known = [p for p in inspect.signature(_OURS[name]).parameters if p not in ("input_shape", "classes")]
    for option in options:
        if option not in known:
            raise UserError(f"network {name}: unknown option {option!r}; it has {', '.join(known) or 'none'}")
    width = options.get("width", 1.0)
    if not (isinstance(width, int | float) and 0 < width < float("inf")):
        raise UserError(f"network {name}: width {width!r} is not a positive number")
    _, height, sideways = input_shape
    least = minimum_size(name)
    if min(height, sideways) < least:
        raise UserError(f"network {name}: needs images of at least {least}×{least}, not {height}×{sideways}")
    return _OURS[name](input_shape, classes, **options)


def _build_torchvision(name: str, input_shape: Shape, classes: int, options: dict[str, Any]) -> nn.Module:
    from torchvision.models import get_model

    if input_shape[0] not in (1, 3):
        raise UserError(f"network {name}: takes images of 1 or 3 channels, not {input_shape[0]}")
    options = {**_TORCHVISION_OPTIONS.get(name, {}), **options}
    try:
        model: nn.Module = get_model(name, weights=None, num_classes=classes, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"network {name}: torchvision does not build it with {options} ({_line(error)})") from error
    return nn.Sequential(GreyToColour(), model) if input_shape[0] == 1 else model


def _build_custom(name: str, input_shape: Shape, classes: int, options: dict[str, Any]) -> nn.Module:
    module_name, _, function_name = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())
    try:
        importlib.invalidate_caches()  # the file may have been written after the interpreter looked at its folder
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        hint = "run from the folder that holds it, or set PYTHONPATH"
        raise UserError(f"network {name}: {_line(error)}; {hint}") from error
    except Exception as error:  # a user's module can raise anything
        raise UserError(f"network {name}: importing {module_name} failed ({_line(error)})") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(f"network {name}: {module.__name__} has no function {function_name!r}; give module:function")
    try:
        model = function(input_shape=input_shape, classes=classes, **options)
    except Exception as error:  # a user's function, too
        raise UserError(f"network {name}: calling {function_name} failed ({_line(error)})") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"network {name}: {function_name} returned {type(model).__name__}, not a torch.nn.Module")
    return model


def _check_fits(model: nn.Module, name: str, input_shape: Shape, classes: int) -> None:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    try:
        # Forked, so that a network that draws numbers in its forward pass leaves the caller's sequence as it was.
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            logits = model(torch.zeros(2, *input_shape, device=device))
    except Exception as error:  # whatever a layer raises on a shape that it cannot take
        raise UserError(f"network {name}: does not take images of shape {input_shape} ({_line(error)})") from error
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (2, classes):
        raise UserError(f"network {name}: gives {shape} for 2 images, but logits of shape (2, {classes}) are needed")


def _is_theirs(name: str) -> bool:
    if name.startswith(_THEIRS):
        if name.removeprefix(_THEIRS) not in _torchvision_names():
            raise _unknown(name)
        return True
    return ":" not in name and name in _torchvision_names()


def _torchvision_names() -> list[str]:
    import torchvision.models

    # The listing without a module also holds detection, segmentation, video and quantised networks.
    return list(torchvision.models.list_models(module=torchvision.models))


def _unknown(name: str) -> UserError:
    close = difflib.get_close_matches(name.removeprefix(_THEIRS), [*NAMES, *_torchvision_names()], n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return UserError(
        f"network {name}: unknown; {hint}give one of {', '.join(NAMES)}, a torchvision.models name, or module:function"
    )


def _line(error: Exception) -> str:
    """The error as one line, cut where it would fill the screen."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else text[:199] + "…"
