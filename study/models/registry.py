"""Networks by name: our own small ones, any of torchvision.models, or a user's `module:function`."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from study.errors import UserError, one_line
from study.models.custom import build_custom, is_custom
from study.models.zoo import BUILDERS, MINIMUM_SIZES, Options, Shape, build_ours

_THEIRS = "torchvision:"
# Without these options the two return a second output while they train, and warn about how they are initialised.
_TORCHVISION_OPTIONS: dict[str, Options] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def main_logits(model: nn.Module, inputs: object, output: object, *, classes: int) -> Tensor | None:
    """Forward hook of a network that gives more than its logits, such as those of auxiliary classifiers.

    Returns: what the output calls `logits` or `out`, else its first tensor of shape (n, classes); None, which leaves
        the output as it is, if it is a tensor or has none of these.
    """
    if isinstance(output, Tensor):
        return None
    named = output if isinstance(output, Mapping) else vars_of(output)
    parts = output if isinstance(output, tuple | list) else named.values()
    candidates = [named.get("logits"), named.get("out"), *parts]
    return next((t for t in candidates if isinstance(t, Tensor) and t.dim() == 2 and t.shape[1] == classes), None)


def vars_of(output: object) -> dict[str, object]:
    """What an object has by name: fields of a named tuple, or attributes."""
    fields = getattr(output, "_fields", None)
    return {name: getattr(output, name) for name in fields} if fields else dict(getattr(output, "__dict__", {}))


class GreyToColour(nn.Module):
    """Repeats one channel three times, for networks that take colour images only."""

    def forward(self, images: Tensor) -> Tensor:
        """(n, 1, height, width) → (n, 3, height, width), without a copy."""
        return images.expand(-1, 3, -1, -1)


def build(name: str, input_shape: Shape, classes: int, **options: object) -> nn.Module:
    """Build a network with fresh weights, and check with one batch of zeros that it fits its input and output.

    The weights depend on `torch.manual_seed` alone, which the caller sets.

    Args:
        name: one of `NAMES`; a name of `torchvision.models` (`torchvision:vgg13` where the name is also ours); or
            `module:function`, called as `function(input_shape=…, classes=…, **options)`.
        input_shape: (channels, height, width) of one image; of data that are no images, the shape of one example.
        classes: number of classes, the length of the output.
        **options: `width` (a factor on every channel count) for the VGG kinds; for other networks passed on.
    Returns: a module from (n, *input_shape) float32 to logits (n, classes), in training mode. Of a network
        that gives several outputs, these are the main ones.
    Raises:
        UserError: an unknown name or option, an input too small, or a network that does not fit.
    """
    model = construct(name, input_shape, classes, options)
    _check_fits(model, name, input_shape, classes)
    return model.train()


def construct(name: str, input_shape: Shape, classes: int, options: Options) -> nn.Module:
    """The network as `build` gives it, but not tried."""
    if len(input_shape) != 3 and not is_custom(name) and (name in BUILDERS or _is_theirs(name)):
        raise UserError(
            f"network {name} takes images (channels, height, width), and the data have the shape {input_shape}. To fix "
            "it: give a network of your own, module:function"
        )
    if name in BUILDERS:
        return build_ours(name, input_shape, classes, options)
    if _is_theirs(name):
        model = _build_torchvision(name.removeprefix(_THEIRS), input_shape, classes, options)
    elif ":" in name:
        model = build_custom(name, input_shape, classes, options)
    else:
        raise _unknown(name)
    if not isinstance(model, torch.jit.ScriptModule):
        model.register_forward_hook(partial(main_logits, classes=classes))
    return model


def minimum_size(name: str) -> int:
    """Smallest image side, in pixels, that the network takes; 1 where there is no limit or none is known.

    A vision transformer is built for the images that there are, if its patches divide them. Every data set with a name
    has images of at most 32 pixels, so they come to this size.

    Raises:
        UserError: an unknown name.
    """
    if name in BUILDERS:
        return MINIMUM_SIZES.get(name, 1)
    if _is_theirs(name):
        from torchvision.models import get_model_weights

        name = name.removeprefix(_THEIRS)
        if patch := _patch(name):
            return patch * math.ceil(_LARGEST_BY_NAME / patch)
        sizes = [side for weights in get_model_weights(name) for side in weights.meta["min_size"]]
        return max(sizes, default=1)
    if ":" not in name:
        raise _unknown(name)
    return 1


def parameter_count(model: nn.Module) -> int:
    """Number of learned scalars; batch-norm's running statistics are not among them."""
    return sum(p.numel() for p in model.parameters())


NAMES = tuple(BUILDERS)
_LARGEST_BY_NAME = 32  # pixels of an image of CIFAR-10


def takes_one_size(name: str) -> bool:
    """Whether a network takes images of the size alone that it was built for."""
    return bool(_patch(name.removeprefix(_THEIRS)))


def _patch(name: str) -> int:
    """Side of the patches of one of torchvision's vision transformers, whose names end with it; 0 of other networks."""
    return int(name.rpartition("_")[2]) if name.startswith("vit_") and name in _torchvision_names() else 0


def _check_patches(name: str, input_shape: Shape) -> None:
    patch, (height, width) = _patch(name), input_shape[1:]
    if patch and (height != width or height % patch):
        fits = max(1, round(min(height, width) / patch)) * patch
        raise UserError(
            f"network {name}: its patches of {patch}×{patch} pixels do not divide images of {height}×{width}; give "
            f"square images with a multiple of {patch}, those of a folder by --image-size {fits}"
        )


def _build_torchvision(name: str, input_shape: Shape, classes: int, options: Options) -> nn.Module:
    from torchvision.models import get_model

    if input_shape[0] not in (1, 3):
        raise UserError(f"network {name} takes images of 1 or 3 channels, not {input_shape[0]}")
    side = {"image_size": input_shape[1]} if takes_one_size(name) else {}
    _check_patches(name, input_shape)
    options = {**_TORCHVISION_OPTIONS.get(name, {}), **side, **options}
    try:
        model: nn.Module = get_model(name, weights=None, num_classes=classes, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"network {name}: torchvision cannot build it with {options} ({one_line(error)})") from error
    return nn.Sequential(GreyToColour(), model) if input_shape[0] == 1 else model


def _check_fits(model: nn.Module, name: str, input_shape: Shape, classes: int) -> None:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    model.eval()
    try:
        # Forked: a network may draw random numbers in its forward pass, and the caller's sequence must not change.
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            logits = model(torch.zeros(2, *input_shape, device=device))
    except Exception as error:  # whatever a layer raises on a shape that it cannot take
        raise UserError(f"network {name} does not take images of shape {input_shape} ({one_line(error)})") from error
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (2, classes):
        raise UserError(f"network {name} gives {shape} for 2 images, but logits of shape (2, {classes}) are needed")


def torchvision_name(name: str) -> str:
    """What a network is called in `torchvision.models`; "" for one that is not from there."""
    return "" if name in BUILDERS or not _is_theirs(name) else name.removeprefix(_THEIRS)


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
        f"network {name} is unknown: {hint}give one of {', '.join(NAMES)}, a torchvision.models name, or "
        "module:function"
    )
