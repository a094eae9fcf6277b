"""CIFAR-10 and CIFAR-100, checked before they are unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from study.data.download import fetch
from study.data.splits import Part, Source
from study.errors import UserError


class _Images(Protocol):
    """One part of CIFAR, read: (n, height, width, channels), uint8."""

    data: np.ndarray
    targets: list[int]
    classes: list[str]


class _Published(Protocol):
    """`torchvision.datasets.CIFAR10`, or CIFAR100: files with their MD5 sums, and the reader."""

    base_folder: str
    filename: str
    tgz_md5: str
    train_list: list[tuple[str, str]]
    test_list: list[tuple[str, str]]
    meta: dict[str, str]

    def __call__(self, root: Path, *, train: bool = True, download: bool = False) -> _Images: ...


def read_cifar(data_dir: Path | None, kind: str, title: str) -> Source:
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    published: _Published = getattr(datasets, kind)
    folder = Path(published.base_folder)
    listed = [*published.train_list, *published.test_list, (published.meta["filename"], published.meta["md5"])]
    checksums = {folder / file: md5 for file, md5 in listed}
    root = fetch(published, data_dir, list(checksums), {Path(published.filename): published.tgz_md5})
    for file, md5 in checksums.items():  # before the reader, which unpickles them
        if not check_integrity(root / file, md5):
            raise UserError(
                f"{root / file} is damaged: its MD5 sum is not {md5}. To fix it: delete it, and the same command "
                "downloads it again"
            )
    parts = []
    for train in (True, False):
        part = published(root, train=train)
        images = torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous()
        parts.append(Part(images, torch.tensor(part.targets, dtype=torch.int64)))
    return Source(title, tuple(part.classes), parts[0], parts[1], validation_fraction=0.1)
