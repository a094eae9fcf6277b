"""CIFAR-10 and CIFAR-100, checked before they are unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from study.data.download import fetch
from study.data.splits import Part, Source
from study.errors import UserError


def read_cifar(data_dir: Path | None, kind: str, title: str) -> Source:
    from torchvision import datasets
    from torchvision.datasets.utils import check_integrity

    published: Any = getattr(datasets, kind)
    folder = Path(published.base_folder)
    listed = [*published.train_list, *published.test_list, (published.meta["filename"], published.meta["md5"])]
    checksums = {folder / file: md5 for file, md5 in listed}
    root = fetch(published, data_dir, list(checksums), {Path(published.filename): published.tgz_md5})
    for file, md5 in checksums.items():  # before the reader, which unpickles them
        if not check_integrity(root / file, md5):
            raise UserError(
                f"{root / file}: damaged, its MD5 sum is not {md5}; delete it, and the next run downloads it again"
            )
    parts = []
    for train in (True, False):
        whole = published(root, train=train)
        images = torch.from_numpy(whole.data).permute(0, 3, 1, 2).contiguous()
        parts.append(Part(images, torch.tensor(whole.targets, dtype=torch.int64)))
    return Source(title, tuple(whole.classes), parts[0], parts[1], validation_fraction=0.1)
