"""The compressed file: one quantised network with everything that decoding needs. The compression ratio divides by its
size on disk.

    "CBK" + version, CRC-32 of the rest, lengths of the parts, then:
    header    what builds the network and feeds it, as deflated JSON
    values    the codebook without its zero, float32
    scales    one float32 for each shared tensor, if there are any
    others    every other entry of the state dict (batch-norm, buffers, what was left out), deflated
    weights   positions of the nonzeros and their values, entropy-coded (study/compression/entropy_coder.py)

Names, shapes and types of the tensors come from building the network. Their CRC-32 is stored, so that a network whose
code has changed is noticed. Nothing is unpickled, and a user's code is imported only if its name is given again.
A file is not trusted: what it says is checked, and its weights are counted, before any memory is taken for them.

Which tensors share their values follows from the network and the names in the header that were left out. In version 1
it was linear and convolution layers alone.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from study.artifacts.finite import not_finite
from study.compression import file_checks
from study.compression.entropy_coder import Decoder, Encoder, code_tensor
from study.compression.quantised_weights import QuantisedWeights, leave_out, leave_out_as_version_1, shared_parameters
from study.data.splits import Splits
from study.errors import UserError, one_line
from study.models import registry
from study.models.custom import is_custom
from study.models.state import load_tensors, tensors_of
from study.models.zoo import Options, Shape
from study.records.atomic_files import write_bytes

SUFFIX = ".codebook"
VERSION = 2
_MAGIC = b"CBK"
_START = struct.Struct("<3sBI")  # magic, version, CRC-32 of the rest
_LENGTHS = struct.Struct("<HHHII")  # header (bytes), values, scales (numbers), others (bytes); CRC-32 of the tensors
_MOST_VALUES = 2**16
MAX_PARAMETERS = 150_000_000
"""Of a network in a file, unless the caller knows better; VGG-19, the largest that is common, has 144 million."""
_MOST_BYTES = 8  # that a parameter takes in a file, in itself or as a weight; and so many for all else:
_MOST_OVERHEAD = 2**20


@dataclass(frozen=True)
class Network:
    """What builds a network and feeds it.

    Attributes:
        name, options, input_shape, classes: as `models.build` takes them.
        mean, std: of each channel, for pixels scaled to 0…1, as `data.normalise` takes them.
        dataset: name of the data set it was trained on.
        skip: names of parameters, or of modules, that were left out; see `quantised_weights.leave_out`.
        train_mean: mean of each channel over the training part, where `mean` is another one; otherwise empty.
    """

    name: str
    options: Options
    input_shape: Shape
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dataset: str
    skip: tuple[str, ...] = ()
    train_mean: tuple[float, ...] = ()


@dataclass(frozen=True)
class Decoded:
    """What a compressed file holds; `model` has its weights, and is in evaluation mode."""

    model: nn.Module
    quantised: QuantisedWeights
    network: Network


def network_of(name: str, options: Options, data: Splits, skip: tuple[str, ...] = ()) -> Network:
    """The network of this name, trained on these splits."""
    classes, train_mean = len(data.classes), data.train_mean
    return Network(name, options, data.shape, classes, data.mean, data.std, data.name, skip, train_mean)


def encode(model: nn.Module, quantised: QuantisedWeights, network: Network) -> bytes:
    """The compressed file of a network.

    Args:
        model: gives the tensors that are not shared, and the shapes of those that are. It has left out what `network`
            says.
        quantised: the shared weights; values that no weight has are not written.
    Raises:
        ValueError: the codebook does not begin with zero, or more than 65,536 of its values are in use.
    """
    assignment = quantised.assignment.cpu().numpy()
    used = np.bincount(assignment, minlength=1) > 0
    used[0] = True
    values = quantised.values.detach().cpu().numpy().astype("<f4")[: len(used)]
    if values[0] != 0 or used.sum() > _MOST_VALUES:
        raise ValueError(f"a codebook begins with zero and has {_MOST_VALUES} values at most, not {used.sum()}")
    parameters = shared_parameters(model)
    coder, index = Encoder(), (np.cumsum(used) - 1)[assignment]
    for parameter, part in zip(parameters, split(index, parameters), strict=True):
        code_tensor(coder, parameter.shape, int(used.sum()), part)
    scales = quantised.scales.detach().cpu().numpy().astype("<f4")
    scales = scales if bool((scales != 1).any()) else scales[:0]
    *required, skip, train_mean = astuple(network)
    described = [*required, skip, train_mean] if train_mean else [*required, skip] if skip else required
    header = _deflate(json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode())
    others = _deflate(b"".join(_bytes(tensor) for tensor in _others(model)))
    lengths = _LENGTHS.pack(len(header), int(used.sum()) - 1, len(scales), len(others), _layout(model))
    rest = b"".join((lengths, header, values[used][1:].tobytes(), scales.tobytes(), others, coder.data()))
    return _START.pack(_MAGIC, VERSION, zlib.crc32(rest)) + rest


def decode(
    data: bytes,
    *,
    custom: str | None = None,
    source: str = "the compressed network",
    max_parameters: int | None = MAX_PARAMETERS,
) -> Decoded:
    """Build the network that a compressed file holds, bit for bit.

    Args:
        custom: the network's name, where it is a `module:function`, which allows its code to be imported and called.
        source: name of the data in messages.
        max_parameters: of the network; None for a file of one's own.
    Raises:
        UserError: not such a file, a damaged one, one of a newer version, numbers that are not finite, or a network
            that is too large, may not be imported, or is not the one that was compressed.
    """
    parts = _parts(data, source)
    model = build(parts.network, custom, source, max_parameters)
    if _layout(model) != parts.layout:
        raise UserError(
            f"{source}: its network {parts.network.name} is not built as it was when it was compressed. To fix it: "
            "use its code, or torchvision, of that time"
        )
    model = leave_out_as_version_1(model) if parts.version == 1 else leave_out(model, parts.network.skip)
    quantised = _quantised(parts, model, source)
    quantised.write(shared_parameters(model))
    check_finite(model, source)
    return Decoded(model.eval(), quantised, parts.network)


def _quantised(parts: _Parts, model: nn.Module, source: str) -> QuantisedWeights:
    """The shared weights, decoded; the other tensors of the model are filled in."""
    parameters = shared_parameters(model)
    values = np.concatenate([np.zeros(1, np.float32), parts.values])
    scales = parts.scales if len(parts.scales) else np.ones(len(parameters), np.float32)
    try:
        if len(parts.values) > sum(p.numel() for p in parameters):
            raise ValueError("it has more values than weights")
        if len(scales) != len(parameters):
            raise ValueError(f"it has {len(scales)} scales for {len(parameters)} tensors")
        _fill(model, parts.others)
        coder = Decoder(parts.weights)
        index = np.concatenate([code_tensor(coder, p.shape, len(values)) for p in parameters])
        if not coder.may_be_at_end():
            raise ValueError("it goes on after its last weight")
    except (AssertionError, ValueError, zlib.error) as error:  # the first is how the range decoder says it
        raise _not_as_the_format_has_it(source, error) from error
    return QuantisedWeights(torch.from_numpy(index), torch.from_numpy(values), torch.from_numpy(scales))


def save(path: Path, model: nn.Module, quantised: QuantisedWeights, network: Network) -> int:
    """Write the compressed file of a network; see `encode`. Returns its bytes."""
    data = encode(model, quantised, network)
    write_bytes(path, data)
    return len(data)


def read(path: Path, *, custom: str | None = None, max_parameters: int | None = MAX_PARAMETERS) -> Decoded:
    """Everything in a compressed file; see `decode`.

    Raises:
        UserError: missing, unreadable, no regular file, or refused by `decode`.
    """
    most = None if max_parameters is None else _MOST_BYTES * max_parameters + _MOST_OVERHEAD
    try:
        data = file_checks.read_regular(path, _MAGIC, most)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a {SUFFIX} file") from error
    except ValueError as error:
        raise UserError(f"{path}: longer than a file of {max_parameters:,} parameters can be; {_RAISE}") from error
    if data is None:
        raise _no_such_file(str(path))
    return decode(data, custom=custom, source=str(path), max_parameters=max_parameters)


def load(path: Path, *, custom: str | None = None, max_parameters: int | None = MAX_PARAMETERS) -> nn.Module:
    """The network in a compressed file, in evaluation mode; see `read`."""
    return read(path, custom=custom, max_parameters=max_parameters).model


@dataclass(frozen=True)
class _Parts:
    """The parts of a file, as the module's docstring lists them; `others` are still deflated."""

    network: Network
    values: np.ndarray
    scales: np.ndarray
    others: bytes
    weights: bytes
    layout: int
    version: int


def _parts(data: bytes, source: str) -> _Parts:
    if len(data) < _START.size or data[:3] != _MAGIC:
        raise _no_such_file(source)
    _, version, checksum = _START.unpack_from(data)
    if version > VERSION:
        raise UserError(
            f"{source}: format version {version}, but this version of the harness reads {VERSION}; update it"
        )
    rest = memoryview(data)[_START.size :]
    if zlib.crc32(rest) != checksum or version < 1:
        raise UserError(f"{source}: damaged (its checksum does not fit); restore it from a copy")
    try:
        header, values, scales, others, layout = _LENGTHS.unpack_from(rest)
        ends = list(itertools.accumulate((_LENGTHS.size, header, 4 * values, 4 * scales, others)))
        if ends[-1] > len(rest):
            raise ValueError("its parts are longer than it is")
        header, values, scales, others = (bytes(rest[start:end]) for start, end in itertools.pairwise(ends))
        network = _network(file_checks.inflate(header, file_checks.LONGEST_HEADER))
        return _Parts(network, _floats(values), _floats(scales), others, bytes(rest[ends[-1] :]), layout, version)
    except (ValueError, struct.error, zlib.error) as error:
        raise _not_as_the_format_has_it(source, error) from error


_RAISE = "if you trust it, raise --max-parameters"


def _no_such_file(source: str) -> UserError:
    return UserError(f"{source}: no compressed network; give a {SUFFIX} file from the models/ of a study folder")


def _not_as_the_format_has_it(source: str, error: Exception) -> UserError:
    return UserError(
        f"{source}: not in format version {VERSION}, although its checksum is right ({' '.join(str(error).split())}); "
        "compress it again"
    )


def _network(header: bytes) -> Network:
    """What the header describes; see `file_checks`."""
    return Network(*file_checks.header_entries(header))


def build(network: Network, custom: str | None, source: str, max_parameters: int | None = MAX_PARAMETERS) -> nn.Module:
    """The network with fresh weights. A user's code is run only if `custom` is its very name; see `decode`."""
    if is_custom(network.name) and custom != network.name:
        raise UserError(
            f"{source}: its network {network.name} is a user's code, which reading the file would run. If you trust "
            f"it, add --network {network.name}"
        )
    with torch.random.fork_rng(devices=[]):  # the fresh weights are overwritten: leave the caller's sequence alone
        if max_parameters is not None and not is_custom(network.name):
            with _counting(network.name, source, max_parameters):
                _build_without_memory(network)
        with _counting(network.name, source, max_parameters):
            if is_custom(network.name):
                return registry.build(network.name, network.input_shape, network.classes, **network.options)
            return registry.construct(network.name, network.input_shape, network.classes, network.options)


def _build_without_memory(network: Network) -> None:
    """Build the network of tensors that have shapes alone."""
    with _ShapesAlone():
        registry.construct(network.name, network.input_shape, network.classes, network.options)


class _ShapesAlone(TorchFunctionMode):
    """New weights take no memory, and none are drawn: to draw without numbers, torch would load its compiler, which
    takes more than a second. Other tensors are as ever, since torchvision's regnets compute widths with some."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in _NEW and kwargs.get("device") is None:
            return function(*args, **{**kwargs, "device": "meta"})
        if function in _DRAWN or getattr(function, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


_NEW = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)
_DRAWN = (Tensor.normal_, Tensor.uniform_)


@contextlib.contextmanager
def _counting(name: str, source: str, most: int | None) -> Iterator[None]:
    """Stop the building of a network when it registers more parameters and buffers than so: before it fills them.
    Whatever else stops it is a UserError, too."""
    registered: dict[int, Tensor] = {}
    count = 0

    def register(module: nn.Module, key: str, tensor: Tensor | None) -> None:
        nonlocal count
        if most is None or tensor is None or nn.parameter.is_lazy(tensor) or id(tensor) in registered:
            return
        registered[id(tensor)] = tensor  # kept, so that its id is not given to another
        count += tensor.numel()
        if count > most:
            raise ValueError("too many")

    hooks = (
        nn.modules.module.register_module_parameter_registration_hook(register),
        nn.modules.module.register_module_buffer_registration_hook(register),
    )
    try:
        yield
    except Exception as error:  # whatever a network raises on options that it was not made for
        if most is not None and count > most:
            raise UserError(f"{source}: its network {name} has more than {most:,} parameters; {_RAISE}") from None
        reason = str(error) if isinstance(error, UserError) else f"network {name} cannot be built ({one_line(error)})"
        raise UserError(f"{source}: {reason}") from error
    finally:
        for hook in hooks:
            hook.remove()


def _others(model: nn.Module, state: Mapping[str, Tensor] | None = None) -> list[Tensor]:
    """Tensors of the state dict, or of this one with its parameters, that are not shared ones, in its order."""
    shared = {id(p) for p in shared_parameters(model)}
    return [t.detach() for t in (state or tensors_of(model, keep_vars=True)).values() if id(t) not in shared]


def _layout(model: nn.Module) -> int:
    """CRC-32 of names, shapes and types in the state dict."""
    entries = [(name, list(t.shape), str(t.dtype)) for name, t in tensors_of(model).items()]
    return zlib.crc32(json.dumps(entries).encode())


def _bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())


@torch.no_grad()
def _fill(model: nn.Module, data: bytes) -> None:
    """Give the tensors that are not shared their numbers."""
    state, at = tensors_of(model, keep_vars=True), 0
    others = _others(model, state)
    data = file_checks.inflate(data, sum(tensor.nbytes for tensor in others))
    if len(data) != sum(tensor.nbytes for tensor in others):
        raise ValueError("its batch-norm and buffers have another length than its network's")
    for tensor in others:
        raw = np.frombuffer(data, np.uint8, tensor.nbytes, at).copy()
        tensor.copy_(torch.from_numpy(raw).view(tensor.dtype).view(tensor.shape))
        at += tensor.nbytes
    load_tensors(model, state)  # for extra state, which may be a copy; all else has its numbers already


def check_finite(model: nn.Module, source: str) -> None:
    """Raise UserError where a tensor of the model has a number that is none, or infinite; `source` was read."""
    if problem := not_finite({name: tensor.numpy() for name, tensor in tensors_of(model).items()}):
        raise UserError(f"{source}: {problem}; compress a network without")


def split(index: np.ndarray, parameters: Sequence[Tensor]) -> list[np.ndarray]:
    """The assignment, (weights,), as one vector for each parameter."""
    return np.split(index, np.cumsum([p.numel() for p in parameters])[:-1])


def _floats(data: bytes) -> np.ndarray:
    """Values or scales."""
    numbers = np.frombuffer(data, "<f4").astype(np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError("its codebook or its scales have a number that is not finite")
    return numbers


def _deflate(data: bytes) -> bytes:
    """Raw deflate, without zlib's own checksum; nothing for nothing."""
    return zlib.compress(data, 9, -zlib.MAX_WBITS) if data else b""
