"""The part of a compressed file with all tensors that are not shared: batch-norm, buffers, what was left out.

    types     for each float32 tensor, whether it is stored as float16, which is so where that is exact; one byte each
    floats    these tensors, first the float16 ones; first bytes of all numbers, then second bytes, and so on
    rest      tensors of other types, as they are

In versions 1 and 2 all tensors stand one after another, as they are. The part is deflated, and empty if there are none.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from study.compression import file_checks, file_parts
from study.compression.quantised_weights import shared_parameters
from study.models.state import load_tensors, tensors_of

_SIZES = {True: 2, False: 4}  # bytes of a number, by whether it is a float16


def layout(model: nn.Module) -> int:
    """CRC-32 of names, shapes and types in the state dict."""
    entries = [(name, list(t.shape), str(t.dtype)) for name, t in tensors_of(model).items()]
    return zlib.crc32(json.dumps(entries).encode())


def pack(model: nn.Module) -> bytes:
    """The part of a model's file, deflated."""
    tensors = _others(model)
    floats = [_array(t) for t in tensors if t.dtype == torch.float32]
    halves = [file_parts.is_half(numbers) for numbers in floats]
    blocks = [bytes(halves)]
    for half in (True, False):
        same = [f.ravel() for f, is_one in zip(floats, halves, strict=True) if is_one == half]
        numbers = np.concatenate([np.zeros(0, "<f4"), *same]).astype("<f2" if half else "<f4")
        blocks.append(numbers.view(np.uint8).reshape(-1, _SIZES[half]).T.tobytes())
    blocks += [_bytes(t) for t in tensors if t.dtype != torch.float32]
    return file_parts.deflate(b"".join(blocks))


@torch.no_grad()
def unpack(model: nn.Module, data: bytes, version: int) -> None:
    """Give the tensors of a model that are not shared their numbers.

    Raises:
        ValueError, zlib.error: they are not this model's.
    """
    state = tensors_of(model, keep_vars=True)
    tensors = _others(model, state)
    most = sum(t.nbytes for t in tensors)
    if version < 3:
        inflated = file_checks.inflate(data, most)
        if len(inflated) != most:
            raise ValueError(_OTHER_LENGTH)
        numbers = _one_by_one(inflated, tensors)
    else:
        numbers = _typed(file_checks.inflate(data, most + len(tensors)), tensors)
    for tensor, raw in zip(tensors, numbers, strict=True):
        tensor.copy_(torch.from_numpy(np.frombuffer(raw, np.uint8).copy()).view(tensor.dtype).view(tensor.shape))
    load_tensors(model, state)  # for extra state, which may be a copy; all else has its numbers already


_OTHER_LENGTH = "its batch-norm and buffers have another length than its network's"


def _one_by_one(data: bytes, tensors: list[Tensor]) -> list[bytes]:
    """The bytes of each tensor, which stand one after another."""
    ends = np.cumsum([0, *(t.nbytes for t in tensors)])
    return [data[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]


def _typed(data: bytes, tensors: list[Tensor]) -> list[bytes]:
    """The bytes of each tensor, out of the inflated part of version 3."""
    floats = [t for t in tensors if t.dtype == torch.float32]
    rest = [t for t in tensors if t.dtype != torch.float32]
    halves = data[: len(floats)]
    if len(halves) != len(floats) or any(half > 1 for half in halves):
        raise ValueError(_OTHER_LENGTH)
    counts = {half: sum(t.numel() for t, h in zip(floats, halves, strict=True) if h == half) for half in (True, False)}
    sizes = [len(floats), *(_SIZES[half] * n for half, n in counts.items()), sum(t.nbytes for t in rest)]
    if len(data) != sum(sizes):
        raise ValueError(_OTHER_LENGTH)
    ends = np.cumsum(sizes)
    numbers = {
        half: _numbers(data[start:end], half) for half, start, end in zip(counts, ends[:2], ends[1:3], strict=True)
    }
    at, own, others = {True: 0, False: 0}, iter(halves), iter(_one_by_one(data[ends[2] :], rest))
    coded = []
    for tensor in tensors:
        if tensor.dtype != torch.float32:
            coded.append(next(others))
            continue
        half = bool(next(own))
        coded.append(numbers[half][at[half] : at[half] + tensor.numel()].astype("<f4").tobytes())
        at[half] += tensor.numel()
    return coded


def _numbers(data: bytes, half: bool) -> np.ndarray:
    """Numbers of which the first bytes come first, then the second bytes, and so on."""
    planes = np.frombuffer(data, np.uint8).reshape(_SIZES[half], -1)
    return planes.T.copy().view("<f2" if half else "<f4").ravel()


def _others(model: nn.Module, state: Mapping[str, Tensor] | None = None) -> list[Tensor]:
    """Tensors of the state dict, or of this one with its parameters, that are not shared ones, in its order."""
    shared = {id(p) for p in shared_parameters(model)}
    return [t.detach() for t in (state or tensors_of(model, keep_vars=True)).values() if id(t) not in shared]


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.cpu().contiguous().numpy().astype("<f4"))


def _bytes(tensor: Tensor) -> bytes:
    return bytes(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
