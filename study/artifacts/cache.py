"""Work that many trials share (a trained teacher, its logits, a pretrained network), kept by what determines it."""

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

from study.data.splits import as_tensor
from study.errors import UserError
from study.records.atomic_files import write_bytes

LOGITS = "logits"
"""Name of a teacher's logits of the training part, beside the weights."""

TEACHER = "teacher/"
"""Before the names of a teacher's weights, beside those of the network that it teaches."""


@dataclass(frozen=True)
class SharedWork:
    """What one preparation yields.

    Attributes:
        arrays: weights by name, or logits. NumPy, since Ray shares NumPy arrays between processes without a copy.
        record: what to tell of how they came about (history, accuracy, seconds); JSON values only.
    """

    arrays: dict[str, np.ndarray]
    record: dict[str, Any] = field(default_factory=dict)

    def weights(self) -> SharedWork:
        """Of the network itself: without its logits, and without the weights of a teacher that lie beside it."""
        own = {k: v for k, v in self.arrays.items() if k != LOGITS and not k.startswith(TEACHER)}
        return SharedWork(own, self.record)

    def teacher(self) -> SharedWork:
        """What teaches the network, with its logits: the teacher that lies beside it or, where none does, itself."""
        beside = {k.removeprefix(TEACHER): v for k, v in self.arrays.items() if k.startswith(TEACHER)}
        logits = {k: v for k, v in self.arrays.items() if k == LOGITS}
        return SharedWork({**beside, **logits}) if beside else self

    def tensors(self) -> dict[str, Tensor]:
        """The arrays as tensors on the same memory, which is read-only where Ray shares it: copy before writing."""
        return {name: as_tensor(array) for name, array in self.arrays.items()}


def digest(value: Any) -> str:
    """Hash of a JSON value, independent of key order: 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def get_or_compute(
    folder: Path, what: str, key: Mapping[str, Any], compute: Callable[[], SharedWork]
) -> tuple[SharedWork, bool]:
    """Return the kept result for this key, or compute it and keep it.

    Args:
        folder: where results are kept, one safetensors file each; no pickle is involved.
        what: a word for the file's name, such as "teacher".
        key: everything that determines the result, as JSON values.
    Returns: the result, and whether it had been kept already. A damaged file is computed anew.
    """
    if shared := get(folder, what, digest(key)):
        return shared, True
    shared = compute()
    metadata = {"key": json.dumps(key), "record": json.dumps(shared.record)}
    write_arrays(_path(folder, what, digest(key)), shared.arrays, metadata)
    return shared, False


def get(folder: Path, what: str, key: str) -> SharedWork | None:
    """The kept result for the digest of a key; None if it is missing or damaged."""
    try:
        with safe_open(_path(folder, what, key), framework="numpy") as file:
            record = json.loads(file.metadata()["record"])
            return SharedWork({name: file.get_tensor(name) for name in file.keys()}, record)
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
