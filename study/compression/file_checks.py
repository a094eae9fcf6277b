"""What is checked of a compressed file before anything is built from it: a stranger may have written it, with a
checksum that is right.

Every function raises ValueError with the reason in a few words.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import stat
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from study.models.custom import is_custom
from study.models.zoo import Options, Shape

LONGEST_HEADER = 2**18
"""Bytes of the header, inflated."""
LARGEST = 2**16
"""Number of channels, pixels of a side, classes, and any number among the options of a network that is not a user's."""
MOST_INPUTS = 2**24
"""Numbers of one image: 2,364 × 2,364 pixels in colour."""
LONGEST_NAME = 500
LONGEST_LIST = 64
DEEPEST = 8

Numbers = tuple[float, ...]
Entries = tuple[str, Options, Shape, int, Numbers, Numbers, str, tuple[str, ...], Numbers]
"""Name, options, input shape, classes, mean, std and data set of a network, names of what was left out, and the
training part's own mean where it is another one."""


def read_regular(path: Path, start: bytes, most: int | None) -> bytes | None:
    """The bytes of a file that begins so; None if it begins otherwise, or is no regular file.

    Args:
        most: bytes that it may have.
    Raises:
        OSError: it cannot be read.
        ValueError: it is longer, and was not read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO without a writer must not block
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # before it is a Python file, which a folder cannot be
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        if file.read(len(start)) != start:
            return None
        size = os.fstat(descriptor).st_size
        if most is not None and size > most:
            raise ValueError(f"{size:,} bytes")
        return start + file.read(max(size - len(start), 0))


def cut(data: bytes, start: int, sizes: Iterable[int]) -> list[bytes]:
    """The parts of these sizes that stand from `start` on, and what is left behind them."""
    ends = list(itertools.accumulate((start, *sizes)))
    if ends[-1] > len(data):
        raise ValueError("its parts are longer than it is")
    return [*(data[begin:end] for begin, end in itertools.pairwise(ends)), data[ends[-1] :]]


def inflate(data: bytes, most: int, dictionary: bytes = b"") -> bytes:
    """Raw deflate, inflated; nothing for nothing. Never allocates more than `most` bytes and one."""
    if not data:
        return b""
    stream = zlib.decompressobj(-zlib.MAX_WBITS, dictionary)
    inflated = stream.decompress(data, most + 1)
    if len(inflated) > most:
        raise ValueError(f"a part has more than {most:,} bytes when inflated")
    if not stream.eof or stream.unused_data:
        raise ValueError("a deflated part is cut, or goes on after its end")
    return inflated


def floats(data: bytes, kind: np.dtype) -> np.ndarray:
    """Values or scales, as float32."""
    numbers = np.frombuffer(data, kind).astype(np.float32)
    if not np.isfinite(numbers).all():
        raise ValueError("its codebook or its scales have a number that is not finite")
    return numbers


def header_entries(header: bytes) -> Entries:
    """The header's entries, as `check_entries` has them."""
    entries = json_list(header)
    if len(entries) not in (7, 8, 9):
        raise ValueError("its header is no list of seven to nine entries")
    return check_entries(*entries)


def json_list(text: bytes) -> list[Any]:
    """A list in JSON, empty if it is something else, of which nothing is checked."""
    try:
        entries = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    return entries if isinstance(entries, list) else []


def check_entries(
    name: Any,
    options: Any,
    shape: Any,
    classes: Any,
    mean: Any,
    std: Any,
    dataset: Any,
    skip: Any = (),
    train_mean: Any = (),
) -> Entries:
    """What describes a network, with the types and within the bounds that it must have."""
    for what, value in (("network", name), ("data set", dataset)):
        if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
            raise ValueError(f"the name of its {what} is not a text of at most {LONGEST_NAME} letters")
    dimensions = range(1, 5) if is_custom(name) else (3,)  # only a user's own takes what is no image
    if not isinstance(shape, list | tuple) or len(shape) not in dimensions or not all(map(_is_size, (*shape, classes))):
        raise ValueError(
            f"its input shape, of {'1 to 4' if is_custom(name) else 'three'} dimensions, and number of classes are not "
            f"whole numbers from 1 to {LARGEST:,}"
        )
    if math.prod(shape) > MOST_INPUTS:
        raise ValueError(f"its images have more than {MOST_INPUTS:,} numbers each")
    given = {"mean": mean, "std": std} | ({} if train_mean in ([], ()) else {"training mean": train_mean})
    for what, numbers in given.items():
        if not isinstance(numbers, list | tuple) or len(numbers) != shape[0] or not all(map(_is_finite, numbers)):
            raise ValueError(f"its {what} is not one finite number for each of its {shape[0]} channels")
    if min(std) <= 0:
        raise ValueError("its std is not above 0")
    if not isinstance(skip, list | tuple) or not all(isinstance(n, str) and len(n) <= LONGEST_NAME for n in skip):
        raise ValueError("what it leaves out is no list of names")
    _check_options(name, options)
    left_out, own_mean = tuple(skip), tuple(train_mean)
    return name, options, tuple(shape), classes, tuple(mean), tuple(std), dataset, left_out, own_mean


def _check_options(name: str, options: Any) -> None:
    """A user's own network takes any JSON; of others, numbers are bounded, since they say how much is built."""
    if not isinstance(options, dict):
        raise ValueError("its options are no JSON object")
    for option, value in options.items():
        if len(option) > LONGEST_NAME or not (_is_json(value, DEEPEST) if is_custom(name) else _is_option(value)):
            raise ValueError(f"its option {option[:LONGEST_NAME]!r} has a value that no network takes")


def _is_option(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= LONGEST_LIST and not any(isinstance(v, list | tuple) or not _is_option(v) for v in value)
    if isinstance(value, str):
        return len(value) <= LONGEST_NAME
    return value is None or (isinstance(value, int | float) and abs(value) <= LARGEST)


def _is_json(value: Any, depth: int) -> bool:
    """Whether a value is JSON of finite numbers, nested no deeper than so."""
    if isinstance(value, dict | list | tuple):
        inner = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_is_json(v, depth - 1) for v in inner)
    return value is None or isinstance(value, str) or _is_finite(value)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _no_constant(constant: str) -> None:
    raise ValueError(f"its header has {constant}")
