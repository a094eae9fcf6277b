"""Images that stand in more than one part of a data set: what is measured on them is memory."""

from __future__ import annotations

import numpy as np

from study.data.mapped import MappedPart, digest
from study.data.splits import Part, Splits


def repeated_images(data: Splits, test: Part) -> dict[str, int]:
    """Part → how many of its images are pixel for pixel those of a part before it: of validation those that train has,
    of test those that train or validation has."""
    train, validation, held_out = (_digests(part) for part in (data.train, data.validation, test))
    both = {*train, *validation}
    seen = set(train)
    return {"validation": sum(d in seen for d in validation), "test": sum(d in both for d in held_out)}


def _digests(part: Part) -> list[bytes]:
    if isinstance(part, MappedPart):
        return part.digests()
    images: np.ndarray = part.images.contiguous().numpy()
    return [digest(image) for image in images]
