"""The parts of a compressed file, and the bytes around them. They stand in this order:

    "CBK", version    4 bytes
    CRC-32            of the rest, 4 bytes
    CRC-32            of names, shapes and types of the network's tensors, 4 bytes
    flags             1 byte; see `_Flag`
    lengths           of header (bytes), numbers (channels), values, scales, others (bytes): each 7 bits a byte, the
                      last byte below 128
    the parts         as `compressed_file` lists them; the weights take the rest

Integers and floats are little-endian.
"""

from __future__ import annotations

import enum
import json
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from study.compression import file_checks, old_file_parts
from study.compression.stored_network import Network
from study.errors import UserError

SUFFIX = ".codebook"
VERSION = 3
MAGIC = b"CBK"
_START = struct.Struct("<3sBI")  # magic, version, CRC-32 of the rest
_FIXED = struct.Struct("<IB")  # CRC-32 of the tensors, flags
MOST_VALUES = 2**16 - 1  # without the zero
_LENGTHS = 5
_LONGEST_LENGTH = 5  # bytes, for 35 bits

DICTIONARY = (
    b'"weights":null,"num_classes":"dropout":"image_size":"groups":"depth":"hidden":false,true,'
    b'["torchvision:mobilenet_v2",{},["torchvision:resnet18",{},["resnet20",{},["vgg19",{"width":["vgg13",{},'
    b'["minivgg",{"width":0.5},[1,32,32],10,"digits"]["lenet_300_100",{},[1,8,8],10,"digits"]'
    b'[3,32,32],100,"cifar100"][3,32,32],10,"cifar10"][1,28,28],10,"fashion_mnist"]'
    b'["lenet5",{},[1,28,28],10,"mnist"]["lenet_300_100",{},[1,28,28],10,"mnist"]'
)
"""Text that headers are likely to have, for deflate; part of the format."""


class _Flag(enum.IntFlag):
    """What a file has besides what every file has."""

    HALF_VALUES = 1  # values are float16, not float32
    HALF_SCALES = 2
    TRAIN_MEAN = 4


@dataclass(frozen=True)
class Parts:
    """The parts of a file.

    Attributes:
        values: the codebook without its zero, (values,) float32.
        scales: one for each shared tensor, (tensors,) float32, or none.
        others: as `other_tensors.pack` gives them.
        weights: as the range coder gives them.
        layout: CRC-32 of the tensors' names, shapes and types.
        version: of the format they were read from.
    """

    network: Network
    values: np.ndarray
    scales: np.ndarray
    others: bytes
    weights: bytes
    layout: int
    version: int = VERSION


def pack(parts: Parts) -> bytes:
    """The file of these parts."""
    network = parts.network
    described = [network.name, network.options, network.input_shape, network.classes, network.dataset]
    text = json.dumps([*described, network.skip] if network.skip else described, separators=(",", ":"),
                      ensure_ascii=False)  # fmt: skip
    header = deflate(text.encode(), DICTIONARY)
    numbers = np.array([*network.mean, *network.std, *network.train_mean], "<f8")
    half_values, half_scales = is_half(parts.values), is_half(parts.scales)
    flags = (
        _Flag.HALF_VALUES * half_values | _Flag.HALF_SCALES * half_scales | _Flag.TRAIN_MEAN * bool(network.train_mean)
    )
    lengths = len(header), len(network.mean), len(parts.values), len(parts.scales), len(parts.others)
    rest = b"".join(
        (
            _FIXED.pack(parts.layout, flags),
            *map(_packed_length, lengths),
            header,
            numbers.tobytes(),
            parts.values.astype(_float(half_values)).tobytes(),
            parts.scales.astype(_float(half_scales)).tobytes(),
            parts.others,
            parts.weights,
        )
    )
    return _START.pack(MAGIC, VERSION, zlib.crc32(rest)) + rest


def unpack(data: bytes, source: str) -> Parts:
    """The parts of a file of any version.

    Raises:
        UserError: it is no such file, is damaged, or is not as its version has it.
    """
    if len(data) < _START.size or data[:3] != MAGIC:
        raise no_such_file(source)
    _, version, checksum = _START.unpack_from(data)
    if version > VERSION:
        raise UserError(
            f"{source}: format version {version}, but this version of the harness reads {VERSION}; update it"
        )
    rest = data[_START.size :]
    if zlib.crc32(rest) != checksum or version < 1:
        raise UserError(f"{source}: damaged (its checksum does not fit); restore it from a copy")
    try:
        return Parts(*(old_file_parts.unpack(rest) if version < 3 else _unpack(rest)), version)
    except (ValueError, struct.error, zlib.error) as error:
        raise not_as_the_format_has_it(source, version, error) from error


def _unpack(rest: bytes) -> tuple[Network, np.ndarray, np.ndarray, bytes, bytes, int]:
    """The parts of version 3, as `Parts` has them."""
    layout, flags = _FIXED.unpack_from(rest)
    if flags >= 2 * max(_Flag):
        raise ValueError("it has flags that this version does not know")
    at, lengths = _FIXED.size, []
    for _ in range(_LENGTHS):
        length, at = _length(rest, at)
        lengths.append(length)
    header, channels, values, scales, others = lengths
    if values > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values")
    vectors = 3 if flags & _Flag.TRAIN_MEAN else 2
    half_values, half_scales = bool(flags & _Flag.HALF_VALUES), bool(flags & _Flag.HALF_SCALES)
    sizes = (header, 8 * vectors * channels, _float(half_values).itemsize * values,
             _float(half_scales).itemsize * scales, others)  # fmt: skip
    text, numbers, codebook, factors, other, weights = file_checks.cut(rest, at, sizes)
    return (
        _network(text, np.frombuffer(numbers, "<f8").reshape(vectors, channels)),
        file_checks.floats(codebook, _float(half_values)),
        file_checks.floats(factors, _float(half_scales)),
        other,
        weights,
        layout,
    )


def _network(header: bytes, numbers: np.ndarray) -> Network:
    """What the header describes, with mean, std and perhaps the training mean, (2 or 3, channels)."""
    entries = file_checks.json_list(file_checks.inflate(header, file_checks.LONGEST_HEADER, DICTIONARY))
    if len(entries) not in (5, 6):
        raise ValueError("its header is no list of five or six entries")
    name, options, shape, classes, dataset, *skip = entries
    mean, std, *train_mean = numbers.tolist()
    return Network(
        *file_checks.check_entries(name, options, shape, classes, mean, std, dataset, *(skip or [()]), *train_mean)
    )


def _float(half: bool) -> np.dtype:
    return np.dtype("<f2" if half else "<f4")


def _packed_length(number: int) -> bytes:
    packed = bytearray()
    while number > 127:
        packed.append(128 | number & 127)
        number >>= 7
    return bytes((*packed, number))


def _length(data: bytes, at: int) -> tuple[int, int]:
    """The length that stands there, and where it ends."""
    number = 0
    for i, byte in enumerate(data[at : at + _LONGEST_LENGTH]):
        number |= (byte & 127) << 7 * i
        if byte < 128:
            return number, at + i + 1
    raise ValueError("the lengths of its parts are cut")


def is_half(numbers: np.ndarray) -> bool:
    """Whether float16 has each of these float32 numbers, bit for bit."""
    with np.errstate(over="ignore"):
        return bool(numbers.tobytes() == numbers.astype("<f2").astype(numbers.dtype).tobytes())


def deflate(data: bytes, dictionary: bytes = b"") -> bytes:
    """Raw deflate, without zlib's own checksum; nothing for nothing."""
    if not data:
        return b""
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_DEFAULT_STRATEGY, dictionary)
    return stream.compress(data) + stream.flush()


def no_such_file(source: str) -> UserError:
    return UserError(f"{source}: no compressed network; give a {SUFFIX} file from the models/ of a study folder")


def not_as_the_format_has_it(source: str, version: int, error: Exception) -> UserError:
    return UserError(
        f"{source}: not in format version {version}, although its checksum is right ({' '.join(str(error).split())}); "
        "compress it again"
    )
