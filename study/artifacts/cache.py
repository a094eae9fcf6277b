"""The cache of work that many trials share: a trained teacher, its logits, a pretrained network."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from study.artifacts.finite import not_finite
from study.data.splits import as_tensor
from study.errors import TrialFailed, UserError
from study.records import object_store
from study.records.atomic_files import write_bytes

LOGITS = "logits"
"""Name of a teacher's logits of the training part, among the weights."""

TEACHER = "teacher/"
"""Prefix of a teacher's weights, among those of the network that it teaches."""
NETWORK = "network/"
"""Prefix of the weights that a user gave of the network that is compressed."""
STUDENT = "student/"
"""The same of a student."""
FINE_TUNED = "fine-tuned/"
"""Prefix of the weights that trials start from, where the network was trained further than it was brought."""


CHECKSUM = "crc32"
"""Of a file's metadata; see `write_arrays`."""


@dataclass(frozen=True)
class SharedWork:
    """The result of work that trials share.

    Attributes:
        arrays: weights by name, and logits. NumPy, since Ray shares NumPy arrays between processes without a copy.
        record: its history, accuracy and seconds; JSON values only.
    """

    arrays: dict[str, np.ndarray]
    record: dict[str, Any] = field(default_factory=dict)

    def weights(self) -> SharedWork:
        """The network's weights alone, without its logits and without the weights of others."""
        others = (TEACHER, STUDENT, FINE_TUNED)
        own = {k: v for k, v in self.arrays.items() if k != LOGITS and not k.startswith(others)}
        return SharedWork(own, self.record)

    def part(self, prefix: str) -> SharedWork:
        """The arrays whose names begin so, without that beginning."""
        own = {k.removeprefix(prefix): v for k, v in self.arrays.items() if k.startswith(prefix)}
        return SharedWork(own, self.record)

    def start(self) -> SharedWork:
        """The weights that trials start from."""
        further = self.part(FINE_TUNED)
        return further if further.arrays else self.weights()

    def teacher(self) -> SharedWork:
        """The network's teacher, weights and logits: the one that is stored with it or, if none is, itself."""
        weights = self.part(TEACHER).arrays or self.start().arrays
        logits = {k: v for k, v in self.arrays.items() if k == LOGITS}
        return SharedWork({**weights, **logits})

    def tensors(self) -> dict[str, Tensor]:
        """The arrays as tensors on the same memory, which is read-only where Ray shares it: copy before writing."""
        return {name: as_tensor(array) for name, array in self.arrays.items()}


def digest(value: object) -> str:
    """Hash of a JSON value, independent of key order: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash of names, shapes and numbers: 16 hexadecimal digits."""
    hashed = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        hashed.update(f"{name} {array.dtype} {array.shape}".encode())
        hashed.update(array.reshape(-1).view(np.uint8).data)
    return hashed.hexdigest()[:16]


def get_or_compute(
    folder: Path, what: str, key: Mapping[str, object], compute: Callable[[], SharedWork]
) -> tuple[SharedWork, bool]:
    """Return the cached result for this key, or compute it and cache it. A damaged file counts as missing.

    Args:
        folder: of the cache, one safetensors file for each result; no pickle is involved.
        what: a word for the file's name, such as "teacher".
        key: everything that determines the result, as JSON values.
    Returns: the result, and whether it was in the cache.
    Raises:
        TrialFailed: it has numbers that are not finite.
    """
    if shared := get(folder, what, digest(key)):
        return shared, True
    shared = compute()
    if problem := not_finite(shared.arrays):
        raise TrialFailed(problem)
    metadata = {"key": json.dumps(key), "record": json.dumps(shared.record)}
    write_arrays(_path(folder, what, digest(key)), shared.arrays, metadata)
    return shared, False


def get(folder: Path, what: str, key: str) -> SharedWork | None:
    """The cached result for the digest of a key; None if it is missing, damaged, or not finite."""
    path = _path(folder, what, key)
    object_store.fetch(path, required=False)
    try:
        arrays, metadata = _read(path)
        return None if not_finite(arrays) else SharedWork(arrays, json.loads(metadata["record"]))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, MemoryError):
        return None


def _path(folder: Path, what: str, key: str) -> Path:
    return folder / f"{what}-{key}.safetensors"


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file by name.

    Raises:
        UserError: it is damaged or missing.
    """
    if path.exists() and not path.is_file():  # reading a FIFO would wait for ever
        raise UserError(f"{path}: no file; restore it from a copy")
    try:
        return _read(path)[0]
    except (OSError, SafetensorError, ValueError, MemoryError) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())}); restore it from a copy") from error


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of its arrays; {} for a file that says nothing, is damaged or missing."""
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError, ValueError, MemoryError):
        return {}


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata.

    Raises:
        OSError, SafetensorError: missing, or no such file.
        ValueError: the arrays are not those that were written.
    """
    with safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata() or {})
        arrays = {name: file.get_tensor(name) for name in file.keys()}
    if metadata.get(CHECKSUM, _checksum(arrays)) != _checksum(arrays):  # older files have none
        raise ValueError("its numbers are not those that were written")
    return arrays, metadata


def _checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """Of names, shapes and numbers; a safetensors file has none of its own, and a bit may flip on a disk."""
    checksum = 0
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        checksum = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return f"{checksum:08x}"


def same_arrays(some: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> bool:
    """Whether both have the same names, and the same numbers under each."""
    return some.keys() == others.keys() and all(np.array_equal(some[name], others[name]) for name in some)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, with a checksum of its arrays."""
    # Not `save_file`, which lets nobody but its owner read it.
    write_bytes(path, arrays_bytes(arrays, metadata))


def arrays_bytes(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file, with a checksum of its arrays."""
    written = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(written, metadata={**(metadata or {}), CHECKSUM: _checksum(written)})
