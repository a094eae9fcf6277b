"""Weights of a network that somebody else trained, from the files that people have. Nothing in a file is executed.

Every function raises ValueError with what is wrong and what to do, as the end of a line that names flag and file.
"""

from __future__ import annotations

import argparse
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from study.models.registry import GreyToColour
from study.models.state import tensors_of

State = dict[str, Tensor]

CONTAINERS = ("state_dict", "model", "model_state_dict", "net", "ema", "params")
"""Names under which training programs store a state dict, the first that is there."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""Begin every name of a network that was wrapped, as by DataParallel, `torch.compile` or Lightning."""
DEEPEST = 3
"""Dictionaries around a state dict."""
SHOWN = 3
"""Names that a message has of each kind."""

# Data without behaviour that training programs store beside the weights: their arguments, and a best accuracy.
_SAFE: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")),
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
]
_HOW_TO_SAVE = "save the state dict alone: torch.save(model.state_dict(), FILE)"


def read_state(path: Path) -> State:
    """The tensors of a .safetensors file or of a file of `torch.save`, by name.

    Of what `torch.save` wrote, a state dict alone, or one under any of `CONTAINERS`.

    Raises:
        ValueError: no such file, or none that holds tensors by name.
    """
    try:
        if not path.exists():
            raise ValueError("no such file; give a .safetensors file or a .pt state dict")
        if not path.is_file():  # reading a FIFO would wait for ever
            raise ValueError("is no regular file; give a .safetensors file or a .pt state dict")
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or error}); give a file that can be") from error
    if not start:
        raise ValueError("is empty; give a .safetensors file or a .pt state dict")
    safe = path.suffix == ".safetensors" or _begins_as_safetensors(start, path.stat().st_size)
    state = _state_in(_read_safetensors(path) if safe else _read_pickled(path))
    if not state:
        raise ValueError(
            f"holds no state dict of tensors, neither alone nor under {', '.join(CONTAINERS)}; {_HOW_TO_SAVE}"
        )
    return state


def fit_state(
    state: Mapping[str, Tensor], model: nn.Module, named: str, reinit: Sequence[str] = (), *, hint: bool = True
) -> State:
    """The tensors as a network has them: its names, types and shapes. The network is not changed.

    Prefixes that all names carry are removed, tied weights are found under any of their names, a
    `num_batches_tracked` that is missing is zero.

    Args:
        state: as `read_state` gives it.
        named: the network, as a message names it: "--network resnet20".
        reinit: names of tensors, or of modules, that are left out, and start fresh.
        hint: whether a message may tell of `--reinit`.
    Returns: tensors by the network's own names, without those of `reinit`.
    Raises:
        ValueError: what is missing, unexpected, or of another shape or type, by its names.
    """
    own = tensors_of(model)
    state = _with_own_names(state, model)
    _share_tied(state, model)
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            state.setdefault(name, torch.zeros_like(tensor))
    used = {name: tensor for name, tensor in state.items() if not _is_named(name, reinit, model)}
    wanted = {name: tensor for name, tensor in own.items() if not _is_named(name, reinit, model)}
    _check_names(used, wanted, named, hint)
    if not wanted:
        raise ValueError(f"--reinit {','.join(reinit)} leaves nothing of it; name less")
    return {name: _converted(name, used[name], tensor) for name, tensor in wanted.items()}


def unknown_name(names: Iterable[str], state: Mapping[str, Tensor], model: nn.Module) -> str:
    """The first of some names of tensors or modules that neither the network nor the file has; "" for none."""
    known = [*tensors_of(model), *_with_own_names(state, model)]
    return next((name for name in names if not any(_is_named(k, [name], model) for k in known)), "")


def _begins_as_safetensors(start: bytes, size: int) -> bool:
    return start[8:] == b"{" and int.from_bytes(start[:8], "little") < size


def _read_safetensors(path: Path) -> State:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError, ValueError, TypeError, RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ValueError(f"is no .safetensors file, or damaged ({reason}); give another copy") from error


def _read_pickled(path: Path) -> object:
    try:
        with torch.serialization.safe_globals(_SAFE), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of how the file was written, which the reader cannot change
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are none of its own
        raise ValueError(_not_read(str(error))) from error


def _not_read(message: str) -> str:
    """What torch says of a file, without its advice, which is to run whatever the file says."""
    if "TorchScript" in message:
        return f"is a TorchScript archive; {_HOW_TO_SAVE}"
    if match := re.search(r"GLOBAL ([\w.]{1,100})", message):
        return f"holds Python objects ({match[1]}), which are not loaded since that can run code; {_HOW_TO_SAVE}"
    return "it is no .safetensors file, and no file of torch.save with tensors alone, or it is damaged; " + _HOW_TO_SAVE


def _state_in(value: object, depth: int = DEEPEST) -> State:
    """The state dict in what was read; {} for none."""
    if not isinstance(value, Mapping):
        return {}
    if depth:
        for name in CONTAINERS:
            if found := _state_in(value.get(name), depth - 1):
                return found
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _inside(model: nn.Module) -> str:
    """What the names of a torchvision network begin with, where it is inside of one that takes grey images."""
    return "1." if isinstance(model, nn.Sequential) and len(model) and isinstance(model[0], GreyToColour) else ""


def own_name(name: str, model: nn.Module) -> str:
    """A name of a torchvision network's tensor as the network that was built of it has it."""
    return _inside(model) + name


def _with_own_names(state: Mapping[str, Tensor], model: nn.Module) -> State:
    """The tensors under those names, of all that removing prefixes gives, of which the network has the most."""
    own = tensors_of(model).keys()
    state = {name: tensor for name, tensor in state.items() if name != "n_averaged" or name in own}
    candidates = [state]
    while prefix := next((p for p in PREFIXES if state and all(name.startswith(p) for name in state)), ""):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        candidates.append(state)
    if _inside(model):
        candidates += [{own_name(name, model): tensor for name, tensor in c.items()} for c in candidates]
    return dict(max(candidates, key=lambda candidate: len(candidate.keys() & own)))


def _share_tied(state: State, model: nn.Module) -> None:
    """Give tensors that the network has under several names all of these: some files store them once."""
    names_of: dict[int, list[str]] = {}
    for name, tensor in tensors_of(model, keep_vars=True).items():
        names_of.setdefault(id(tensor), []).append(name)
    for names in names_of.values():
        known = next((name for name in names if name in state), "")
        for name in names if known else ():
            state.setdefault(name, state[known])


def _is_named(name: str, given: Iterable[str], model: nn.Module) -> bool:
    inside = _inside(model)
    return any(name in (g, inside + g) or name.startswith((f"{g}.", f"{inside}{g}.")) for g in given)


def _check_names(state: State, own: Mapping[str, Tensor], named: str, hint: bool) -> None:
    """Refuse tensors that are missing, unexpected or of another shape, with the first names of each."""
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shapes = {n: (state[n].shape, t.shape) for n, t in own.items() if n in state and state[n].shape != t.shape}
    if not missing and not unexpected and not shapes:
        return
    misshapen = [f"{n} ({_size(has)} in the file, {_size(needs)} in the network)" for n, (has, needs) in shapes.items()]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    what = "; ".join(f"{kind}: {_first(names)}" for kind, names in kinds.items() if names)
    layers = list(dict.fromkeys(n.rpartition(".")[0] or n for n in (*missing, *unexpected, *shapes)))
    few = len(layers) <= 2 and len(missing) + len(shapes) < len(own) / 2
    advice = "give the network, its width and the classes that they were trained with"
    if hint and few:
        advice = f"to start {'this layer' if len(layers) == 1 else 'these'} fresh, add --reinit {','.join(layers)}"
    raise ValueError(f"its weights do not fit {named} ({what}); {advice}")


def _first(names: Sequence[str]) -> str:
    rest = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(name if len(name) <= 120 else f"{name[:119]}…" for name in names[:SHOWN]) + rest


def _size(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "one number"


def _converted(name: str, given: Tensor, own: Tensor) -> Tensor:
    """A tensor as the network's own type. Their shapes agree, so it is no larger than the network's."""
    kind = str(given.dtype).removeprefix("torch.")
    if given.layout != torch.strided or given.is_quantized or given.is_meta:
        raise ValueError(f"{name} is {'without numbers' if given.is_meta else f'sparse or quantised ({kind})'}; "
                         "give plain floating-point weights")  # fmt: skip
    if given.is_complex() and not own.is_complex():
        raise ValueError(f"{name} has complex numbers ({kind}); give real weights")
    if own.is_floating_point() and not given.is_floating_point():
        raise ValueError(f"{name} has whole numbers ({kind}), not weights; give floating-point weights")
    if not own.is_floating_point() and given.is_floating_point():  # as in an average of several networks
        given = given.double().round()
        if not math.isfinite(float(given.abs().max() if given.numel() else 0)):
            raise ValueError(f"{name} has numbers that are not finite; give finite ones")
    return given.detach().to(own.dtype).clone(memory_format=torch.contiguous_format)
