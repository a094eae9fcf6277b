"""MNIST and Fashion-MNIST, read from their IDX files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from study.data.download import fetch
from study.data.memory import require_memory
from study.data.splits import Part, Source
from study.errors import UserError


class _Published(Protocol):
    """`torchvision.datasets.MNIST`, or FashionMNIST: archives with their MD5 sums, and the class names."""

    resources: list[tuple[str, str]]
    classes: list[str]

    def __call__(self, root: Path, *, download: bool = False) -> object: ...


def read_mnist(data_dir: Path | None, kind: str = "MNIST", title: str = "MNIST") -> Source:
    from torchvision import datasets

    published: _Published = getattr(datasets, kind)
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
                f"{root / labels_file} does not fit {images_file.name}: {len(labels)} labels up to "
                f"{labels.max(initial=0)} for {len(images)} images; each image needs one label below {len(classes)}. "
                "To fix it: delete both files, and the same command downloads them again"
            )
        parts.append(Part(torch.from_numpy(images[:, None]), torch.from_numpy(labels.astype(np.int64))))
    return Source(title, classes, parts[0], parts[1], validation_fraction=1 / 12)


def _read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes: 0, 0, 8, dimensions; each size as a big-endian uint32; the values.

    Reference: http://yann.lecun.com/exdb/mnist/. torchvision's reader takes a file that was cut short as complete.
    """
    header = 4 + 4 * dimensions
    fix = "To fix it: delete it, and the same command downloads it again"
    try:
        start = np.fromfile(path, np.uint8, header)
        size = path.stat().st_size
        if len(start) < header or start[:4].tolist() != [0, 0, 8, dimensions]:
            raise UserError(f"{path} is damaged: it does not start as an IDX file of {dimensions} dimensions. {fix}")
        shape = start[4:].view(">u4").tolist()
        if size != header + math.prod(shape):
            raise UserError(f"{path} is damaged: it has {size} bytes, not {header + math.prod(shape)}. {fix}")
        require_memory(2 * size, f"{path}: its {shape[0]:,} entries")
        return np.fromfile(path, np.uint8, offset=header).reshape(shape)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
