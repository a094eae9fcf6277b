"""MNIST and Fashion-MNIST, read from their IDX files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from study.data.download import fetch
from study.data.splits import Part, Source
from study.errors import UserError


def read_mnist(data_dir: Path | None, kind: str = "MNIST", title: str = "MNIST") -> Source:
    from torchvision import datasets

    published: Any = getattr(datasets, kind)
    raw = Path(kind) / "raw"
    archives = {raw / archive: md5 for archive, md5 in published.resources}
    files = [file.with_suffix("") for file in archives]
    root = fetch(published, data_dir, files, archives)
    classes = tuple(name.split(" - ")[0] for name in published.classes)  # MNIST's own read "0 - zero"
    parts = []
    for images_file, labels_file in (files[:2], files[2:]):
        images, labels = _read_idx(root / images_file, 3), _read_idx(root / labels_file, 1)
        if not len(images) == len(labels) > 0 or labels.max() >= len(classes):
            raise UserError(
                f"{root / labels_file}: {len(labels)} labels up to {labels.max(initial=0)} for {len(images)} images; "
                f"one label below {len(classes)} an image is needed: delete both files to download them again"
            )
        parts.append(Part(torch.from_numpy(images[:, None]), torch.from_numpy(labels.astype(np.int64))))
    return Source(title, classes, parts[0], parts[1], validation_fraction=1 / 12)


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes: 0, 0, 8, dimensions; each size as a big-endian uint32; the values.

    Reference: http://yann.lecun.com/exdb/mnist/. torchvision's reader takes any file that is there for a whole one.
    """
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    header = 4 + 4 * dimensions
    again = "delete it, and the next run downloads it again"
    if len(data) < header or data[:4].tolist() != [0, 0, 8, dimensions]:
        raise UserError(f"{path}: damaged, it does not start as an IDX file of {dimensions} dimensions; {again}")
    shape = data[4:header].view(">u4").tolist()
    if len(data) != header + math.prod(shape):
        raise UserError(f"{path}: damaged, {len(data)} bytes in place of {header + math.prod(shape)}; {again}")
    return data[header:].reshape(shape)
