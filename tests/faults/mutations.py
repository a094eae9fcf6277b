"""Mutations of files, each drawn from a `random.Random`: of bytes, of JSON, of CSV, of .npz, and of compressed files
whose checksum is made right again."""

from __future__ import annotations

import contextlib
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from study.compression import file_parts

LENGTHS = struct.Struct("<HHHII")
NUMBERS = (0, -1, 1, 2, 7, 255, 65_535, 65_536, 2**31, 2**32 - 1, 2**63, 10**30, 10**400, 1e9, 1e308, -1e-300, 0.5)
ODD = (float("nan"), float("inf"), True, None, "", "\x1b[31mred\x07", "\ud800", "=1+1", "x" * 10_000, "os:system")
NAMES = ("torchvision:vit_b_16", "torchvision:regnet_y_128gf", "torchvision:mobilenet_v2", "vgg19", "lenet5", "minivgg")
WORDS = (
    b"",
    b"\x00",
    b"\xff\xfe",
    b"\x1b]0;x\x07",
    b"\r\n",
    b'"',
    b",",
    b"NaN",
    b"1e999",
    b"9" * 5000,
    b"\xed\xa0\x80",
)


def of_bytes(draw: random.Random, data: bytes) -> bytes:
    """A few of: a bit or a byte changed, a piece cut out, doubled, or replaced."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        at = draw.randrange(len(changed) + 1)
        length = draw.choice((1, 2, 4, 30, 500))
        match draw.randrange(5):
            case 0 if at < len(changed):
                changed[at] ^= 1 << draw.randrange(8)
            case 1:
                changed[at : at + length] = draw.randbytes(min(length, len(changed) - at))
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length]
            case _:
                changed[at : at + draw.choice((0, 1, 8))] = draw.choice(WORDS)
    return bytes(changed[: draw.randrange(len(changed) + 1)] if draw.random() < 0.05 else changed)


def of_json(draw: random.Random, value: Any) -> Any:
    """One place in it changed: another value, another type, a key or an item less or more, or much deeper."""
    if isinstance(value, dict | list) and value and draw.random() < 0.85:
        copy: Any = value.copy()
        key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
        match draw.randrange(12):
            case 0:
                del copy[key]
            case 1 if isinstance(copy, dict):
                copy[draw.choice((*filter(lambda odd: isinstance(odd, str), ODD), "width", "weights"))] = copy.pop(key)
            case 1:
                copy.extend(copy * draw.choice((1, 40)))
            case _:
                copy[key] = of_json(draw, value[key])
        return copy
    match draw.randrange(7):
        case 0:
            return draw.choice(ODD)
        case 1:
            return draw.choice(NAMES)
        case 2:
            return [value] * draw.choice((0, 1, 3, 100))
        case 3:
            return {"width": value, draw.choice(("width", "image_size", "groups", "options")): draw.choice(NUMBERS)}
        case 4:
            return nested(draw.choice((3, 50)))
        case _:
            return draw.choice(NUMBERS)


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def of_json_file(draw: random.Random, data: bytes) -> bytes:
    """A JSON file changed as JSON, or as text."""
    if draw.random() < 0.3:
        return of_bytes(draw, data)
    if draw.random() < 0.01:
        return b"[" * 100_000
    value = json.loads(data)
    for _ in range(draw.choice((1, 1, 2, 5))):
        value = of_json(draw, value)
    return _json_bytes(value)


def of_csv(draw: random.Random, data: bytes) -> bytes:
    """A table with cells, rows or columns changed."""
    if draw.random() < 0.3:
        return of_bytes(draw, data)
    rows = [line.split(b",") for line in data.splitlines()]
    for _ in range(draw.choice((1, 1, 2, 5))):
        row = draw.randrange(len(rows))
        match draw.randrange(6):
            case 0:
                rows.insert(draw.randrange(len(rows)), list(rows[row]))
            case 1 if len(rows) > 1:
                del rows[row]
            case 2 if rows[row]:
                del rows[row][draw.randrange(len(rows[row]))]
            case 3:
                draw.shuffle(rows[row])
            case _ if rows[row]:
                rows[row][draw.randrange(len(rows[row]))] = draw.choice(
                    (*WORDS, b"../../x", b"-5", b"101", b"=1+1", b"running", str(draw.choice(NUMBERS))[:400].encode())
                )
    return b"\n".join(b",".join(row) for row in rows) + b"\n"


def of_npz(draw: random.Random, data: bytes) -> bytes:
    """Arrays of a trace lost, renamed, of another shape or type, pickled, or bytes changed."""
    if draw.random() < 0.4:
        return of_bytes(draw, data)
    with np.load(io.BytesIO(data)) as file:
        arrays: dict[str, np.ndarray] = dict(file)
    for _ in range(draw.choice((1, 2))):
        name = draw.choice(list(arrays))
        array = arrays.pop(name)
        changes: list[Callable[[], np.ndarray]] = [
            lambda a=array: a[: len(a) // 2] if a.ndim else a,
            lambda a=array: a.reshape(1, -1),
            lambda a=array: a.astype(object),
            lambda a=array: a.astype("U9"),
            lambda a=array: np.full(a.shape, np.nan),
            lambda: np.zeros(0),
            lambda: np.zeros(draw.choice((1, 10**6))),
            lambda: np.array(draw.choice(NUMBERS[:10])),
        ]
        if draw.random() < 0.8:
            arrays[draw.choice((name, name, name, "epoch", "../x"))] = draw.choice(changes)()
        arrays = arrays or {"x": np.zeros(1)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=True, **arrays)
    if draw.random() < 0.02:  # a member that says it is far longer than the file
        with zipfile.ZipFile(buffer, "a") as archive:
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "<f8", "fortran_order": False, "shape": (draw.choice((10**9, 2**40)),)}
            )
            archive.writestr("sample/0.npy", header.getvalue())
    return buffer.getvalue()


def sealed(rest: bytes, version: int = 3) -> bytes:
    """A compressed file with a checksum that fits."""
    return b"CBK" + bytes([version]) + struct.pack("<I", zlib.crc32(rest)) + rest


@dataclass
class Codebook:
    """A compressed file of version 3, taken apart.

    Attributes:
        parts: header, numbers, values, scales, others, weights.
    """

    layout: int
    flags: int
    parts: list[bytes]

    @classmethod
    def of(cls, data: bytes) -> Codebook:
        layout, flags = struct.unpack_from("<IB", data, 8)
        at, lengths = 13, []
        for _ in range(5):
            number = shift = 0
            while True:
                byte, at = data[at], at + 1
                number, shift = number | (byte & 127) << shift, shift + 7
                if byte < 128:
                    break
            lengths.append(number)
        codebook, parts = cls(layout, flags, []), []
        for length, size in zip(lengths, codebook.sizes(), strict=True):
            parts.append(data[at : at + length * size])
            at += length * size
        codebook.parts = [*parts, data[at:]]
        return codebook

    def sizes(self) -> tuple[int, ...]:
        """Bytes of what is counted in each part but the weights."""
        return 1, 24 if self.flags & 4 else 16, 2 if self.flags & 1 else 4, 2 if self.flags & 2 else 4, 1

    def file(self, lengths: Sequence[int] | None = None) -> bytes:
        """The file, with other lengths than its parts have if they are given."""
        own = [len(part) // size for part, size in zip(self.parts, self.sizes(), strict=False)]
        packed = b"".join(_varint(number) for number in lengths or own)
        return sealed(struct.pack("<IB", self.layout, self.flags) + packed + b"".join(self.parts))


def _varint(number: int) -> bytes:
    packed = []
    while number > 127:
        packed.append(128 | number & 127)
        number >>= 7
    return bytes([*packed, number])


def of_codebook(draw: random.Random, data: bytes) -> bytes:
    """A compressed file with its header, its lengths or one of its parts changed; the checksum mostly fits."""
    kind = draw.random()
    if kind < 0.05:
        return of_bytes(draw, data)
    if kind < 0.35:
        return sealed(of_bytes(draw, data[8:]), draw.choice((data[3], data[3], 3, 2, 1)))
    if data[3] < 3:
        return _of_old_codebook(draw, data)
    codebook = Codebook.of(data)
    parts = codebook.parts
    which = draw.choice((0, 0, 0, 1, 2, 3, 4, 5, 5, 6, 7))
    if which == 0:
        parts[0] = _deflated(draw, parts[0], of_json_file, file_parts.DICTIONARY)
    elif which == 4:
        parts[4] = _deflated(draw, parts[4], of_bytes)
    elif which < 6:
        changed = of_bytes(draw, parts[which]) if draw.random() < 0.5 else draw.randbytes(draw.choice((0, 4, 64, 4096)))
        parts[which] = changed[: len(changed) // 8 * 8]
    elif which == 6:
        codebook.flags = draw.choice((0, 1, 2, 3, 4, 7, 8, 255))
        codebook.layout = draw.choice((codebook.layout, 0))
    lengths = [len(part) // size for part, size in zip(parts, codebook.sizes(), strict=False)]
    if which == 7:
        lengths[draw.randrange(5)] = draw.choice((0, 1, 127, 128, 65_535, 65_536, 2**31, 2**35 - 1, 2**63))
    return codebook.file(lengths)


def _of_old_codebook(draw: random.Random, data: bytes) -> bytes:
    """The same of a file of version 1 or 2."""
    *lengths, layout = LENGTHS.unpack_from(data, 8)
    parts, at = [], 8 + LENGTHS.size
    for length, size in zip(lengths, (1, 4, 4, 1), strict=True):
        parts.append(data[at : at + length * size])
        at += length * size
    parts.append(data[at:])
    which = draw.choice((0, 0, 0, 1, 2, 3, 4, 4, 5))
    if which in (0, 3):
        parts[which] = _deflated(draw, parts[which], of_json_file if which == 0 else of_bytes)
    elif which < 5:
        changed = of_bytes(draw, parts[which]) if draw.random() < 0.5 else draw.randbytes(draw.choice((0, 4, 64, 4096)))
        parts[which] = changed[: len(changed) // 4 * 4]
    counts = [
        len(part) // size % 2**bits for part, size, bits in zip(parts, (1, 4, 4, 1), (16, 16, 16, 32), strict=False)
    ]
    if which == 5:
        counts[draw.randrange(4)] = draw.choice((0, 1, 65_535, 2**16 - 2))
        layout = draw.choice((layout, 0))
    return sealed(LENGTHS.pack(*counts, layout) + b"".join(parts), data[3])


def _deflated(
    draw: random.Random, data: bytes, mutation: Callable[[random.Random, bytes], bytes], dictionary: bytes = b""
) -> bytes:
    """A deflated part, changed inside; now and then a bomb."""
    if draw.random() < 0.02:
        return zlib.compress(bytes(10**7), 9, -15)
    inflated = zlib.decompressobj(-15, dictionary).decompress(data) if data else b""
    with contextlib.suppress(ValueError):  # of seeds that atheris has already changed
        inflated = mutation(draw, inflated)
    return file_parts.deflate(inflated, dictionary)


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()
