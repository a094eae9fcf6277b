"""The cache of work that many trials share: a trained teacher, its logits, a pretrained network."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save
from torch import Tensor

from study.artifacts.finite import not_finite
from study.data.splits import as_tensor
from study.errors import TrialFailed, UserError
from study.records.atomic_files import write_bytes

LOGITS = "logits"
"""Name of a teacher's logits of the training part, among the weights."""

TEACHER = "teacher/"
"""Prefix of a teacher's weights, among those of the network that it teaches."""


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
        """The network's weights alone, without its logits and without its teacher's weights."""
        own = {k: v for k, v in self.arrays.items() if k != LOGITS and not k.startswith(TEACHER)}
        return SharedWork(own, self.record)

    def teacher(self) -> SharedWork:
        """The network's teacher, weights and logits: the one that is stored with it or, if none is, itself."""
        weights = {k.removeprefix(TEACHER): v for k, v in self.arrays.items() if k.startswith(TEACHER)}
        logits = {k: v for k, v in self.arrays.items() if k == LOGITS}
        return SharedWork({**weights, **logits}) if weights else self

    def tensors(self) -> dict[str, Tensor]:
        """The arrays as tensors on the same memory, which is read-only where Ray shares it: copy before writing."""
        return {name: as_tensor(array) for name, array in self.arrays.items()}


def digest(value: object) -> str:
    """Hash of a JSON value, independent of key order: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


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
    try:
        with safe_open(_path(folder, what, key), framework="numpy") as file:
            record = json.loads(file.metadata()["record"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            return None if not_finite(arrays) else SharedWork(arrays, record)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None


def _path(folder: Path, what: str, key: str) -> Path:
    return folder / f"{what}-{key}.safetensors"


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file by name.

    Raises:
        UserError: it is damaged or missing.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())}); restore it from a copy") from error


def same_arrays(some: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> bool:
    """Whether both have the same names, and the same numbers under each."""
    return some.keys() == others.keys() and all(np.array_equal(some[name], others[name]) for name in some)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file."""
    # Not `save_file`, which lets nobody but its owner read it.
    write_bytes(path, save({name: np.asarray(array, order="C") for name, array in arrays.items()}, metadata=metadata))
