"""Whether what is kept of a network is finite: a single NaN spoils every number that follows from it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def not_finite(arrays: Mapping[str, np.ndarray]) -> str:
    """What is wrong with the first array that has a NaN or an infinite number, in words that name it; "" for none.

    Integers are finite, and an attention mask of zeros and -inf is what it must be.
    """
    for name, array in arrays.items():
        if array.dtype.kind not in "fc":
            continue
        wrong = array.size - int(np.isfinite(array).sum())
        if wrong and not _is_mask(array):
            return f"{wrong:,} of the {array.size:,} numbers in {name} {'are' if wrong > 1 else 'is'} NaN or infinite"
    return ""


def _is_mask(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and bool(np.all((array == 0) | (array == -np.inf)))
