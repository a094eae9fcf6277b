"""Folders of photos, for tests of `--dataset folder`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_photos(root: Path, suffix: str, growing: bool = False) -> Path:
    """Two classes of 6 training and 2 test photos, 20 × 30.

    Args:
        suffix: of their format.
        growing: each photo of a class is one pixel higher than the one before.
    """
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            for i in range(count):
                path = root / part / name / f"{i}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 256, (20 + i * growing, 30, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(path)
    return root
