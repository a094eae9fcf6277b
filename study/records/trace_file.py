"""Traces, the `.npz` files of a study folder, read without trust: a damaged one counts as none.

A file says itself how large its arrays are. Nothing is allocated before that was compared with what the file can hold.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from study.records.paths import trace_of

LARGEST = 512 * 2**20
"""Bytes of the arrays of one trace. A trial's are 1 MB; the teacher's have an image of each class."""

Arrays = dict[str, np.ndarray]


def read_trace(folder: Path, trial_id: str) -> Arrays:
    """The arrays of a trial's trace; none if it left no trace, or a damaged one. Nothing is unpickled."""
    path = trace_of(folder, trial_id)
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            if sum(member.file_size for member in members) > LARGEST:
                return {}
            arrays = {m.filename.removesuffix(".npy"): _array(file.read(m)) for m in members}
        return arrays if _is_consistent(arrays) else {}
    except Exception:  # zipfile, zlib and NumPy raise a dozen kinds for one cause
        return {}


def _array(content: bytes) -> np.ndarray:
    """An `.npy` file whose header says how large it is.

    Raises:
        ValueError: it is not as large, or holds anything but numbers and text.
    """
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.kind not in "biufU" or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError("not an array of the size that its header states")
    array = np.frombuffer(content, dtype, offset=file.tell())
    return array.reshape(shape, order="F" if fortran else "C")


def _is_consistent(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether arrays that the report knows have shapes and values that fit each other; it leaves others alone."""
    if "edges" in arrays and not _weights_fit(arrays):
        return False
    return not {"images", "logits"} & arrays.keys() or _knowledge_fits(arrays)


def _weights_fit(arrays: Mapping[str, np.ndarray]) -> bool:
    """See `study.artifacts.weight_trace.Trace.arrays`."""
    edges, epoch, phase = arrays["edges"], arrays["epoch"], arrays["phase"]
    sample = len(arrays["index"])
    frames = len(epoch)
    if not (frames and edges.ndim == 1 and len(edges) > 2 and _are_numbers(edges) and (np.diff(edges) > 0).all()):
        return False
    if phase.shape != (frames,) or phase.dtype.kind != "U" or epoch.shape != (frames,) or epoch.dtype.kind not in "iu":
        return False
    if not all("".join(str(name).split()).isprintable() for name in phase):
        return False
    whole = all(_frame_fits(arrays, number, len(edges) - 1, sample) for number in range(frames))
    if not whole or ({"codebook", "occupancy", "layers"} & arrays.keys() and not _codebook_fits(arrays)):
        return False
    survivors = [arrays[name] for name in (f"nonzero/{number}" for number in range(frames)) if name in arrays]
    return all(_survivors_fit(arrays, counts) for counts in survivors) and _scores_fit(arrays)


def _frame_fits(arrays: Mapping[str, np.ndarray], number: int, bins: int, sample: int) -> bool:
    counts, followed = arrays[f"counts/{number}"], arrays[f"sample/{number}"]
    mixture = [arrays.get(f"{name}/{number}") for name in ("means", "sigmas", "proportions")]
    if counts.shape != (bins,) or not _are_numbers(counts) or (counts < 0).any() or not counts.any():
        return False
    if followed.shape != (sample,) or not _are_numbers(followed):
        return False
    if all(part is None for part in mixture):
        return True
    means, sigmas, proportions = (part for part in mixture if part is not None)
    same = means.ndim == 1 and len(means) > 0 and means.shape == sigmas.shape == proportions.shape
    numbers = all(map(_are_numbers, (means, sigmas, proportions)))
    return same and numbers and bool((sigmas > 0).all() and (proportions >= 0).all())


def _codebook_fits(arrays: Mapping[str, np.ndarray]) -> bool:
    codebook, occupancy = arrays["codebook"], arrays["occupancy"]
    layers, weights, nonzero = (arrays[name] for name in ("layers", "layer_weights", "layer_nonzero"))
    if codebook.ndim != 1 or codebook.shape != occupancy.shape or not all(map(_are_numbers, (codebook, occupancy))):
        return False
    if layers.ndim != 1 or layers.dtype.kind != "U" or not layers.shape == weights.shape == nonzero.shape:
        return False
    if not all(map(_are_numbers, (weights, nonzero))) or not all(str(name).isprintable() for name in layers):
        return False
    if (occupancy < 0).any() or not occupancy.any():
        return False
    return bool((weights > 0).all() and (nonzero >= 0).all() and (nonzero <= weights).all())


def _survivors_fit(arrays: Mapping[str, np.ndarray], counts: np.ndarray) -> bool:
    """Weights of each layer that are not zero at one epoch."""
    weights = arrays["layer_weights"]
    if counts.shape != weights.shape or counts.dtype.kind not in "iu":
        return False
    return bool((counts >= 0).all() and (counts <= weights).all())


def _scores_fit(arrays: Mapping[str, np.ndarray]) -> bool:
    """See `study.methods.common.decisions.Decisions.arrays`."""
    if not any(name.startswith("score_") for name in arrays):
        return True
    magnitude, gradient, survives = (arrays[f"score_{name}"] for name in ("magnitude", "gradient", "survives"))
    power, thresholds, counts = (arrays[f"score_{name}"] for name in ("power", "thresholds", "counts"))
    if not magnitude.ndim == 1 or not magnitude.shape == gradient.shape == survives.shape:
        return False
    if survives.dtype.kind != "b" or not all(map(_are_numbers, (magnitude, gradient, power, thresholds))):
        return False
    if (magnitude <= 0).any() or (gradient <= 0).any() or power.shape != () or power <= 0:
        return False
    if thresholds.shape != (2,) or (thresholds < 0).any() or counts.shape != (4,) or counts.dtype.kind not in "iu":
        return False
    survivors, pruned, disputed, _ = (int(count) for count in counts)
    return bool((counts >= 0).all()) and survivors > 0 and pruned > 0 and disputed <= min(survivors, pruned)


def _knowledge_fits(arrays: Mapping[str, np.ndarray]) -> bool:
    """See `study.methods.kd.student.dark_knowledge`."""
    images, labels, logits = arrays["images"], arrays["labels"], arrays["logits"]
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[1] in (0, 2) or not images.size:
        return False
    if logits.ndim != 2 or not len(images) == len(labels) == len(logits) or not _are_numbers(logits):
        return False
    known = labels.ndim == 1 and labels.dtype.kind in "iu" and logits.shape[1] > 0
    return known and bool(((labels >= 0) & (labels < logits.shape[1])).all())


def _are_numbers(array: np.ndarray) -> bool:
    return array.dtype.kind in "biuf" and bool((np.abs(array.astype(float)) < 1e30).all())
