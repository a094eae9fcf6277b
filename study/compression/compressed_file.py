"""The compressed file: one quantised network with everything that decoding needs. The compression ratio divides by its
size on disk.

    "CBK" + version, CRC-32 of the rest, lengths of the parts (study/compression/file_parts.py), then:
    header    what builds the network and feeds it: JSON, deflated with the dictionary of the format
    numbers   mean, std and training mean of each channel, float64
    values    the codebook without its zero
    scales    one for each shared tensor, if there are any
    others    every other entry of the state dict (batch-norm, buffers, what was left out), deflated
    weights   positions of the nonzeros and their values, entropy-coded (study/compression/network_coder.py)

Values, scales and others are float32, or float16 where that is exact: every method rounds them before it scores its
network (`codebook_training.conclude`).

Names, shapes and types of the tensors come from building the network. Their CRC-32 is stored, so that a network whose
code has changed is noticed. Nothing is unpickled, and a user's code is imported only if its name is given again.
A file is not trusted: what it says is checked, and its weights are counted, before any memory is taken for them.

Which tensors share their values follows from the network and the names in the header that were left out. In version 1
it was linear and convolution layers alone. Versions 1 and 2 are still read (study/compression/old_file_parts.py).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from study.artifacts.finite import not_finite
from study.compression import file_checks, file_parts, other_tensors
from study.compression.entropy_coder import Decoder, Encoder, code_tensor
from study.compression.file_parts import MOST_VALUES, SUFFIX, VERSION, Parts
from study.compression.network_coder import code_weights
from study.compression.quantised_weights import QuantisedWeights, leave_out, leave_out_as_version_1, shared_parameters
from study.compression.stored_network import MAX_PARAMETERS, RAISE_LIMIT, Network, build, network_of
from study.errors import UserError
from study.models.state import tensors_of
from study.records.atomic_files import write_bytes

__all__ = ["MAX_PARAMETERS", "SUFFIX", "VERSION", "Decoded", "Network", "build", "check_finite", "decode", "encode",
           "load", "network_of", "read", "save", "split"]  # fmt: skip

_MOST_BYTES = 8  # that a parameter takes in a file, in itself or as a weight; and so many for all else:
_MOST_OVERHEAD = 2**20


@dataclass(frozen=True)
class Decoded:
    """What a compressed file holds; `model` has its weights, and is in evaluation mode."""

    model: nn.Module
    quantised: QuantisedWeights
    network: Network


def encode(model: nn.Module, quantised: QuantisedWeights, network: Network) -> bytes:
    """The compressed file of a network.

    Args:
        model: gives the tensors that are not shared, and the shapes of those that are. It has left out what `network`
            says.
        quantised: the shared weights; values that no weight has are not written.
    Raises:
        ValueError: the codebook does not begin with zero, or more than 65,536 of its values are in use.
    """
    codebook, _ = _in_use(quantised)
    coder = Encoder()
    encode_weights(coder, model, quantised, network)
    scales = quantised.scales.detach().cpu().numpy().astype("<f4")
    return file_parts.pack(
        Parts(
            network=network,
            values=codebook[1:],
            scales=scales if bool((scales != 1).any()) else scales[:0],
            others=other_tensors.pack(model),
            weights=coder.data(),
            layout=other_tensors.layout(model),
        )
    )


def encode_weights(coder: Encoder, model: nn.Module, quantised: QuantisedWeights, network: Network) -> list[int]:
    """Append the shared weights as the file has them; see `encode`. Returns the bytes of each tensor."""
    codebook, index = _in_use(quantised)
    parameters = shared_parameters(model)
    shapes = [p.shape for p in parameters]
    return code_weights(coder, shapes, network.input_shape, codebook, split(index, parameters))[1]


def _in_use(quantised: QuantisedWeights) -> tuple[np.ndarray, np.ndarray]:
    """The codebook without values that no weight has, float32, and which of its values each weight has, (weights,)."""
    used = quantised.without_unused()
    values = used.values.detach().cpu().numpy().astype("<f4")
    if values[0] != 0 or len(values) > MOST_VALUES + 1:
        raise ValueError(f"a codebook begins with zero and has {MOST_VALUES + 1} values at most, not {len(values)}")
    return values, used.assignment.cpu().numpy()


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
    parts = file_parts.unpack(data, source)
    model = build(parts.network, custom, source, max_parameters)
    if other_tensors.layout(model) != parts.layout:
        raise UserError(
            f"{source}: its network {parts.network.name} is not built as it was when it was compressed. To fix it: "
            "use its code, or torchvision, of that time"
        )
    model = leave_out_as_version_1(model) if parts.version == 1 else leave_out(model, parts.network.skip)
    quantised = _quantised(parts, model, source)
    quantised.write(shared_parameters(model))
    check_finite(model, source)
    return Decoded(model.eval(), quantised, parts.network)


def _quantised(parts: Parts, model: nn.Module, source: str) -> QuantisedWeights:
    """The shared weights, decoded; the other tensors of the model are filled in."""
    parameters = shared_parameters(model)
    values = np.concatenate([np.zeros(1, np.float32), parts.values])
    scales = parts.scales if len(parts.scales) else np.ones(len(parameters), np.float32)
    try:
        if len(parts.values) > sum(p.numel() for p in parameters):
            raise ValueError("it has more values than weights")
        if len(scales) != len(parameters):
            raise ValueError(f"it has {len(scales)} scales for {len(parameters)} tensors")
        other_tensors.unpack(model, parts.others, parts.version)
        index = _decode_weights(parts, [p.shape for p in parameters], values)
    except (AssertionError, ValueError, zlib.error) as error:  # the first is how the range decoder says it
        raise file_parts.not_as_the_format_has_it(source, parts.version, error) from error
    return QuantisedWeights(torch.from_numpy(index), torch.from_numpy(values), torch.from_numpy(scales))


def _decode_weights(parts: Parts, shapes: Sequence[Sequence[int]], codebook: np.ndarray) -> np.ndarray:
    """Which value each weight has, (weights,) int64."""
    coder = Decoder(parts.weights)
    if parts.version < 3:
        index = np.concatenate([code_tensor(coder, shape, len(codebook)) for shape in shapes])
    else:
        index = np.concatenate(code_weights(coder, shapes, parts.network.input_shape, codebook)[0])
    if not coder.may_be_at_end():
        raise ValueError("it goes on after its last weight")
    if index.size and index.max() >= len(codebook):
        raise ValueError("a weight has a value that is not in its codebook")
    return index


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
        data = file_checks.read_regular(path, file_parts.MAGIC, most)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a {SUFFIX} file") from error
    except ValueError as error:
        raise UserError(f"{path}: longer than a file of {max_parameters:,} parameters can be; {RAISE_LIMIT}") from error
    if data is None:
        raise file_parts.no_such_file(str(path))
    return decode(data, custom=custom, source=str(path), max_parameters=max_parameters)


def load(path: Path, *, custom: str | None = None, max_parameters: int | None = MAX_PARAMETERS) -> nn.Module:
    """The network in a compressed file, in evaluation mode; see `read`."""
    return read(path, custom=custom, max_parameters=max_parameters).model


def check_finite(model: nn.Module, source: str) -> None:
    """Raise UserError where a tensor of the model has a number that is none, or infinite; `source` was read."""
    if problem := not_finite({name: tensor.numpy() for name, tensor in tensors_of(model).items()}):
        raise UserError(f"{source}: {problem}; compress a network without")


def split(index: np.ndarray, parameters: Sequence[Tensor]) -> list[np.ndarray]:
    """The assignment, (weights,), as one vector for each parameter."""
    return np.split(index, np.cumsum([p.numel() for p in parameters])[:-1])
