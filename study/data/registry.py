"""Data sets by name, as uint8 tensors that are read once and split into train, validation and test."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from study.data.cifar import read_cifar
from study.data.digits import read_digits
from study.data.image_folder import read_folder
from study.data.images import channel_statistics, enlarge
from study.data.memory import require_memory
from study.data.mnist import read_mnist
from study.data.splits import Part, Source, Splits, stratified
from study.errors import UserError


def load(
    name: str,
    data_dir: Path | None,
    *,
    split_seed: int = 0,
    size: int | None = None,
    validation_fraction: float | None = None,
) -> tuple[Splits, Part]:
    """Read a data set, enlarge its images where asked, and split it.

    Args:
        name: one of `NAMES`.
        data_dir: where the files lie, or go when downloaded; `digits` needs none.
        split_seed: divides train from validation, class by class. The test part does not depend on it.
        size: least height and width, in pixels; see `enlarge`.
        validation_fraction: share of the published training images, in (0, 1). By default 5,000 images of MNIST,
            Fashion-MNIST and CIFAR, a tenth of a folder, and 20 % of all of digits, whose test part is another 20 %.
    Returns: the splits for the search, and the test part for the confirm stage alone.
    Raises:
        UserError: an unknown name, files that are missing, damaged, unreadable or do not belong together, or images
            that do not fit into memory.
    """
    if name not in _READERS:
        raise UserError(f"--dataset {name} is not known. To fix it: give one of {', '.join(NAMES)}")
    named = f"--data-dir {data_dir}" if data_dir else f"--dataset {name}"
    try:
        return _split(name, _READERS[name](data_dir), named, split_seed, size, validation_fraction)
    except (OSError, UnicodeError) as error:
        raise UserError(f"{named}: cannot be read ({' '.join(str(error).split())})") from error
    except MemoryError as error:
        raise UserError(f"{named}: does not fit into memory; give fewer or smaller images") from error


def _split(
    name: str, source: Source, named: str, split_seed: int, size: int | None, validation_fraction: float | None
) -> tuple[Splits, Part]:
    """See `load`. `named`: the flag that a message begins with."""
    fraction = source.validation_fraction if validation_fraction is None else validation_fraction
    if not 0 < fraction < 1:
        raise UserError(f"validation_fraction {fraction} must be between 0 and 1")
    held_out = stratified(source.train.labels, fraction, split_seed, source.classes, source.title)
    _require_memory(source, size, named)
    train, validation, test = (
        Part(enlarge(part.images, size), part.labels)
        for part in (source.train[~held_out], source.train[held_out], source.test)
    )
    mean, std = channel_statistics(train.images)
    return Splits(
        name, source.title, source.classes, train, validation, mean, std, split_seed, source.links_left_out
    ), test


def _require_memory(source: Source, size: int | None, named: str) -> None:
    """Refuse images that do not fit once they are split, and enlarged to this size: a copy, and its largest chunk."""
    images, (channels, height, width) = len(source.train), source.train.images.shape[1:]
    enlarged = (max(height, size or 0), max(width, size or 0))
    if enlarged != (height, width):
        images += len(source.train) + 2 * len(source.test)  # enlarged in pieces, which are then put together
    shown = f"{enlarged[1]}×{enlarged[0]}"
    require_memory(images * channels * enlarged[0] * enlarged[1], f"{named}: its images, enlarged to {shown},")


_READERS: dict[str, Callable[[Path | None], Source]] = {
    "digits": read_digits,
    "mnist": read_mnist,
    "fashion_mnist": functools.partial(read_mnist, kind="FashionMNIST", title="Fashion-MNIST"),
    "cifar10": functools.partial(read_cifar, kind="CIFAR10", title="CIFAR-10"),
    "cifar100": functools.partial(read_cifar, kind="CIFAR100", title="CIFAR-100"),
    "folder": read_folder,
}
NAMES: tuple[str, ...] = tuple(_READERS)
