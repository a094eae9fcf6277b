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

Which tensors share their values follows from the network and the names in the header that were left out. In version 1
it was linear and convolution layers alone.
"""

from __future__ import annotations

import itertools
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from study.compression.entropy_coder import Decoder, Encoder, code_tensor
from study.compression.quantised_weights import QuantisedWeights, leave_out, leave_out_as_version_1, shared_parameters
from study.data.splits import Splits
from study.errors import UserError
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
_LARGEST = 2**16  # number of channels, pixels of a side, or classes


@dataclass(frozen=True)
class Network:
    """What builds a network and feeds it.

    Attributes:
        name, options, input_shape, classes: as `models.build` takes them.
        mean, std: of each channel, for pixels scaled to 0…1, as `data.normalise` takes them.
        dataset: name of the data set it was trained on.
        skip: names of parameters, or of modules, that were left out; see `quantised_weights.leave_out`.
    """

    name: str
    options: Options
    input_shape: Shape
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dataset: str
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decoded:
    """What a compressed file holds; `model` has its weights, and is in evaluation mode."""

    model: nn.Module
    quantised: QuantisedWeights
    network: Network


def network_of(name: str, options: Options, data: Splits, skip: tuple[str, ...] = ()) -> Network:
    """The network of this name, trained on these splits."""
    return Network(name, options, data.shape, len(data.classes), data.mean, data.std, data.name, skip)


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
    described = astuple(network) if network.skip else astuple(network)[:-1]
    header = _deflate(json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode())
    others = _deflate(b"".join(_bytes(tensor) for tensor in _others(model)))
    lengths = _LENGTHS.pack(len(header), int(used.sum()) - 1, len(scales), len(others), _layout(model))
    rest = b"".join((lengths, header, values[used][1:].tobytes(), scales.tobytes(), others, coder.data()))
    return _START.pack(_MAGIC, VERSION, zlib.crc32(rest)) + rest


def decode(data: bytes, *, custom: str | None = None, source: str = "the compressed network") -> Decoded:
    """Build the network that a compressed file holds, bit for bit.

    Args:
        custom: the network's name, where it is a `module:function`, which allows its code to be imported and called.
        source: name of the data in messages.
    Raises:
        UserError: not such a file, a damaged one, one of a newer version, or a network that may not be imported or
            is not the one that was compressed.
    """
    parts = _parts(data, source)
    model = build(parts.network, custom, source)
    if _layout(model) != parts.layout:
        raise UserError(
            f"{source}: its network {parts.network.name} is not built as it was when it was compressed. To fix it: "
            "use its code, or torchvision, of that time"
        )
    model = leave_out_as_version_1(model) if parts.version == 1 else leave_out(model, parts.network.skip)
    parameters = shared_parameters(model)
    values = np.concatenate([np.zeros(1, np.float32), parts.values])
    scales = parts.scales if len(parts.scales) else np.ones(len(parameters), np.float32)
    try:
        coder = Decoder(parts.weights)
        index = np.concatenate([code_tensor(coder, p.shape, len(values)) for p in parameters])
        _fill(model, parts.others)
    except (AssertionError, ValueError) as error:  # the range decoder's way to say it, and NumPy's
        raise _not_as_the_format_has_it(source) from error
    quantised = QuantisedWeights(torch.from_numpy(index), torch.from_numpy(values), torch.from_numpy(scales))
    quantised.write(parameters)
    return Decoded(model.eval(), quantised, parts.network)


def save(path: Path, model: nn.Module, quantised: QuantisedWeights, network: Network) -> int:
    """Write the compressed file of a network; see `encode`. Returns its bytes."""
    data = encode(model, quantised, network)
    write_bytes(path, data)
    return len(data)


def read(path: Path, *, custom: str | None = None) -> Decoded:
    """Everything in a compressed file; see `decode`.

    Raises:
        UserError: missing, unreadable, or refused by `decode`.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a {SUFFIX} file") from error
    return decode(data, custom=custom, source=str(path))


def load(path: Path, *, custom: str | None = None) -> nn.Module:
    """The network in a compressed file, in evaluation mode; see `read`."""
    return read(path, custom=custom).model


@dataclass(frozen=True)
class _Parts:
    """The parts of a file, as the module's docstring lists them."""

    network: Network
    values: np.ndarray
    scales: np.ndarray
    others: bytes
    weights: bytes
    layout: int
    version: int


def _parts(data: bytes, source: str) -> _Parts:
    if len(data) < _START.size or data[:3] != _MAGIC:
        raise UserError(f"{source}: no compressed network; give a {SUFFIX} file from the models/ of a study folder")
    _, version, checksum = _START.unpack_from(data)
    if version > VERSION:
        raise UserError(
            f"{source}: format version {version}, but this version of the harness reads {VERSION}; update it"
        )
    rest = data[_START.size :]
    if zlib.crc32(rest) != checksum or version < 1:
        raise UserError(f"{source}: damaged (its checksum does not fit); restore it from a copy")
    try:
        header, values, scales, others, layout = _LENGTHS.unpack_from(rest)
        ends = list(itertools.accumulate((_LENGTHS.size, header, 4 * values, 4 * scales, others)))
        header, values, scales, others = (rest[start:end] for start, end in itertools.pairwise(ends))
        network = _network(*json.loads(_inflate(header)))
        return _Parts(network, _floats(values), _floats(scales), _inflate(others), rest[ends[-1] :], layout, version)
    except (ValueError, TypeError, struct.error, zlib.error) as error:
        raise _not_as_the_format_has_it(source) from error


def _not_as_the_format_has_it(source: str) -> UserError:
    return UserError(f"{source}: not in format version {VERSION}, although its checksum is right; compress it again")


def _network(
    name: str,
    options: Options,
    shape: list[int],
    classes: int,
    mean: list[float],
    std: list[float],
    dataset: str,
    skip: Sequence[str] = (),
) -> Network:
    """The header's entries, as JSON has them."""
    channels, height, width = shape
    if not all(isinstance(n, int) and 0 < n <= _LARGEST for n in (*shape, classes)):
        raise ValueError(f"shape {shape}, {classes} classes")
    if not all(isinstance(name, str) for name in skip):
        raise ValueError(f"names {skip}")
    return Network(name, options, (channels, height, width), classes, tuple(mean), tuple(std), dataset, tuple(skip))


def build(network: Network, custom: str | None, source: str) -> nn.Module:
    """The network with fresh weights. A user's code is run only if `custom` is its very name; see `decode`."""
    if is_custom(network.name) and custom != network.name:
        raise UserError(
            f"{source}: its network {network.name} is a user's code, which reading the file would run. If you trust "
            f"it, add --network {network.name}"
        )
    with torch.random.fork_rng(devices=[]):  # the fresh weights are overwritten: leave the caller's sequence alone
        try:
            return registry.build(network.name, network.input_shape, network.classes, **network.options)
        except UserError as error:
            raise UserError(f"{source}: {error}") from error


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
    state, at = tensors_of(model, keep_vars=True), 0
    for tensor in _others(model, state):
        raw = np.frombuffer(data, np.uint8, tensor.nbytes, at).copy()
        tensor.copy_(torch.from_numpy(raw).view(tensor.dtype).view(tensor.shape))
        at += tensor.nbytes
    load_tensors(model, state)  # for extra state, which may be a copy; all else has its numbers already


def split(index: np.ndarray, parameters: Sequence[Tensor]) -> list[np.ndarray]:
    """The assignment, (weights,), as one vector for each parameter."""
    return np.split(index, np.cumsum([p.numel() for p in parameters])[:-1])


def _floats(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<f4").astype(np.float32)


def _deflate(data: bytes) -> bytes:
    """Raw deflate, without zlib's own checksum; nothing for nothing."""
    return zlib.compress(data, 9, -zlib.MAX_WBITS) if data else b""


def _inflate(data: bytes) -> bytes:
    return zlib.decompress(data, -zlib.MAX_WBITS) if data else b""
