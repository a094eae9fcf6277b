"""Hashes by which a data set is recognised."""

from __future__ import annotations

import hashlib

import numpy as np

from study.data.mapped import MappedPart
from study.data.splits import Part, Splits


def fingerprint(part: Part) -> str:
    """Hash of a part's images and labels: 16 hexadecimal digits."""
    if isinstance(part, MappedPart):
        return part.fingerprint
    hashed = hashlib.sha256(np.ascontiguousarray(part.images.numpy()).data)
    hashed.update(np.ascontiguousarray(part.labels.numpy()).data)
    return hashed.hexdigest()[:16]


def identity(data: Splits) -> dict[str, str]:
    """Hashes of the parts that determine a trained network and its recorded accuracy."""
    return {"train": fingerprint(data.train), "validation": fingerprint(data.validation)}
