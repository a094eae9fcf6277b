"""torchvision's published weights, by name: downloaded once into torch's own cache.

Every function raises ValueError with what is wrong and what to do, as the end of a line that names the flag.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from study.errors import one_line
from study.models.checkpoint_file import State, own_name
from study.models.registry import torchvision_name
from study.models.state import tensors_of
from study.normalisation import IMAGENET, Constants

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

TIMEOUT = 60
"""Seconds without an answer, after which a download has failed."""

_TRANSFORMS_INSIDE = ("googlenet", "inception_v3")
"""Networks that torchvision builds with another normalisation in front where it gives them published weights. Ours are
built without, so they take the constants that this amounts to."""


def published(network: str, name: str) -> WeightsEnum:
    """The weights of this name, or DEFAULT, of a torchvision network.

    Raises:
        ValueError: another network, or no such weights.
    """
    from torchvision.models import get_model_weights

    theirs = torchvision_name(network)
    if not theirs:
        raise ValueError(f"{network} is no network of torchvision.models, which these are of; give --checkpoint FILE")
    known = get_model_weights(theirs).__members__
    if name.upper() not in known:
        raise ValueError(f"{theirs} has no weights of that name; give {' or '.join(known) or '--checkpoint FILE'}")
    return known[name.upper()]


def image_size(network: str, name: str) -> int:
    """Smallest image side, in pixels, for these weights: a vision transformer's have positions for images of one size.

    Raises:
        ValueError: see `published`.
    """
    return max(published(network, name).meta["min_size"])


def constants_of(network: str, name: str) -> Constants:
    """What images are normalised by for these weights.

    Raises:
        ValueError: see `published`.
    """
    if torchvision_name(network) in _TRANSFORMS_INSIDE:
        return Constants((0.5,), (0.5,))
    preset = published(network, name).transforms()
    return Constants(tuple(preset.mean), tuple(preset.std)) if hasattr(preset, "mean") else IMAGENET


def download(network: str, name: str) -> State:
    """The tensors, from torch's cache or, the first time, from the network; their hash is checked then.

    Raises:
        ValueError: see `published`; or they cannot be had.
    """
    weights = published(network, name)
    file = os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(urlparse(weights.url).path))
    there = os.path.exists(file)
    try:
        with _timeout(TIMEOUT):
            state = weights.get_state_dict(check_hash=True, progress=False, weights_only=True, map_location="cpu")
    except Exception as error:  # a server, a disk, a hash, or a file of the cache that is damaged
        if there:
            raise ValueError(f"{file} is damaged ({one_line(error)}); remove it, and it is downloaded again") from error
        raise ValueError(
            f"{weights.url} cannot be downloaded ({one_line(error)}); try again, or put the file to {file}"
        ) from error
    return {k: v for k, v in state.items() if isinstance(v, Tensor)}


def replaced_layers(state: Mapping[str, Tensor], model: nn.Module, classes: int) -> tuple[str, ...]:
    """Names of the layers that start fresh since they answer with one number a class, of which the weights have
    another number."""
    names = {own_name(name, model): tensor for name, tensor in state.items()}
    misshapen = [
        name
        for name, tensor in tensors_of(model).items()
        if name in names and tensor.shape != names[name].shape and tensor.shape[0] == classes
    ]
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in misshapen))


def without_auxiliary(state: State, model: nn.Module) -> State:
    """The tensors without those of auxiliary classifiers, with which our networks are not built."""
    own = tensors_of(model)
    return {k: v for k, v in state.items() if own_name(k, model) in own or not k.lower().startswith("aux")}


@contextlib.contextmanager
def _timeout(seconds: float) -> Iterator[None]:
    """Let connections that are opened meanwhile fail after so long without an answer; torch sets none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
