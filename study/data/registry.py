"""Data sets by name, as uint8 tensors that are read once and split into train, validation and test."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from study.data import image_folder
from study.data.cifar import read_cifar
from study.data.digits import read_digits
from study.data.image_folder import Reading
from study.data.images import channel_statistics, enlarge
from study.data.mapped import Entry, allocate, is_large
from study.data.memory import require_memory
from study.data.mnist import read_mnist
from study.data.splits import Part, Source, Splits
from study.data.user_data import read_user_data
from study.errors import UserError
from study.user_code import is_custom

_AS_IT_IS = Reading()


def load(
    name: str,
    data_dir: Path | None,
    *,
    split_seed: int = 0,
    size: int | None = None,
    validation_fraction: float | None = None,
    reading: Reading = _AS_IT_IS,
) -> tuple[Splits, Part]:
    """Read a data set, enlarge its images where asked, and split it.

    Args:
        name: one of `NAMES`, or a user's own function, `module:function`.
        data_dir: where the files lie, or go when downloaded; `digits` needs none.
        split_seed: divides train from validation, class by class. The test part does not depend on it.
        size: least height and width, in pixels; see `enlarge`.
        validation_fraction: share of the published training images, in (0, 1), where the data set has no validation
            part. By default 5,000 images of MNIST, Fashion-MNIST and CIFAR, a tenth of a user's own data, and 20 % of
            all of digits, whose test part is another 20 %.
        reading: of a folder of images.
    Returns: the splits for the search, and the test part for the confirm stage alone.
    Raises:
        UserError: an unknown name, files that are missing, damaged, unreadable or do not belong together, or images
            that do not fit into memory.
    """
    if name not in NAMES and not is_custom(name):
        raise UserError(f"--dataset {name} is not known. To fix it: give one of {', '.join(NAMES)}, or module:function")
    if validation_fraction is not None and not 0 < validation_fraction < 1:
        raise UserError(f"validation_fraction {validation_fraction} must be between 0 and 1")
    named = f"--data-dir {data_dir}" if data_dir and not is_custom(name) else f"--dataset {name}"
    how = _Division(name, split_seed, size, validation_fraction)
    try:
        if name == "folder":
            return _load_folder(data_dir, reading, how)
        source = read_user_data(name, data_dir) if is_custom(name) else _READERS[name](data_dir)
        return _split(source, named, how)
    except (OSError, UnicodeError) as error:
        raise UserError(f"{named}: cannot be read ({' '.join(str(error).split())})") from error
    except MemoryError as error:
        raise UserError(f"{named}: does not fit into memory; give fewer or smaller images") from error


@dataclass(frozen=True)
class _Division:
    """How a data set is split and enlarged; see `load`."""

    name: str
    split_seed: int
    size: int | None
    validation_fraction: float | None

    def rows(self, source: Source) -> Mapping[str, tuple[Part, Tensor | None]]:
        fraction = self.validation_fraction
        return source.rows(source.validation_fraction if fraction is None else fraction, self.split_seed)

    def about(self, source: Source) -> dict[str, Any]:
        """Arguments of `Splits`, without its parts and its statistics."""
        return {
            "name": self.name,
            "title": source.title,
            "classes": source.classes,
            "split_seed": self.split_seed,
            "links_left_out": source.links_left_out,
            "damaged_left_out": source.damaged_left_out,
            "code": source.code,
        }


def _load_folder(data_dir: Path | None, reading: Reading, how: _Division) -> tuple[Splits, Part]:
    """Images of a folder: from memory, or mapped where they take much of it."""
    listing = image_folder.list_images(data_dir, reading)
    own = {"image_size": reading.image_size, "test_fraction": reading.test_fraction}
    entry = Entry({"files": listing.key(), **own, **vars(how)})
    known = entry.read()
    if known is None:
        found = image_folder.scan(listing, reading)
        side = how.size or 0
        final = found.shape[0] * max(found.shape[1], side) * max(found.shape[2], side)
        count = sum(len(listing.examples(part)) for part in listing.files)
        large = is_large(count * final)
        image_folder.require_room(listing, found, in_memory=not large)
        if not large:
            source, damaged = image_folder.decode(
                listing, found, reading, lambda part, shape: np.empty(shape, np.uint8)
            )
            image_folder.check_damaged(listing, damaged, reading)
            return _split(source, f"--data-dir {data_dir}", how)
        with entry.workspace(count * (math.prod(found.shape) + final)) as place:
            make = partial(_allocate, place)
            source, damaged = image_folder.decode(listing, found, reading, make)
            image_folder.check_damaged(listing, damaged, replace(reading, skip_damaged=True))
            entry.write(place, how.rows(source), how.size, how.about(source), damaged)
            del source
        known = entry.read()
        if known is None:
            raise UserError(f"{entry.folder}: was changed while it was written; try again")
    splits, test, damaged = known
    image_folder.check_damaged(listing, damaged, reading)
    return splits, test


def _allocate(place: Path, part: str, shape: tuple[int, ...]) -> np.ndarray:
    return allocate(place / part, shape)


def _split(source: Source, named: str, how: _Division) -> tuple[Splits, Part]:
    """The parts in memory. `named`: the flag that a message begins with."""
    rows = how.rows(source)
    if source.train.images.dtype == torch.uint8:
        _require_memory(source, how.size, named)
    parts = {}
    for name, (part, mask) in rows.items():
        chosen = part if mask is None else part[mask]
        images = enlarge(chosen.images, how.size) if chosen.images.dtype == torch.uint8 else chosen.images
        parts[name] = Part(images, chosen.labels)
    mean, std = channel_statistics(parts["train"].images)
    splits = Splits(train=parts["train"], validation=parts["validation"], mean=mean, std=std, **how.about(source))
    return splits, parts["test"]


def _require_memory(source: Source, size: int | None, named: str) -> None:
    """Refuse images that do not fit once they are split, and enlarged to this size: a copy, and its largest chunk."""
    images, (channels, height, width) = len(source.train), source.train.images.shape[1:]
    enlarged = (max(height, size or 0), max(width, size or 0))
    others = sum(len(part) for part in (source.validation, source.test) if part is not None)
    if enlarged != (height, width):
        images += len(source.train) + 2 * others  # enlarged in pieces, which are then put together
    shown = f"{enlarged[1]}×{enlarged[0]}"
    require_memory(images * channels * enlarged[0] * enlarged[1], f"{named}: its images, enlarged to {shown},")


_READERS: dict[str, Callable[[Path | None], Source]] = {
    "digits": read_digits,
    "mnist": read_mnist,
    "fashion_mnist": functools.partial(read_mnist, kind="FashionMNIST", title="Fashion-MNIST"),
    "cifar10": functools.partial(read_cifar, kind="CIFAR10", title="CIFAR-10"),
    "cifar100": functools.partial(read_cifar, kind="CIFAR100", title="CIFAR-100"),
}
NAMES: tuple[str, ...] = (*_READERS, "folder")
