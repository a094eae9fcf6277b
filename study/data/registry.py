"""Data sets by name, as uint8 tensors that are read once and split into train, validation and test."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from study.data.cifar import read_cifar
from study.data.digits import read_digits
from study.data.division import Division, split
from study.data.folder_data import load_folder
from study.data.image_folder import Reading
from study.data.mnist import read_mnist
from study.data.splits import Part, Source, Splits
from study.data.user_data import read_user_data
from study.errors import UserError, reading_errors
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
    how = Division(name, split_seed, size, validation_fraction)
    with reading_errors(named):
        if name == "folder":
            return load_folder(data_dir, reading, how)
        source = read_user_data(name, data_dir) if is_custom(name) else _READERS[name](data_dir)
        return split(source, named, how)


_READERS: dict[str, Callable[[Path | None], Source]] = {
    "digits": read_digits,
    "mnist": read_mnist,
    "fashion_mnist": functools.partial(read_mnist, kind="FashionMNIST", title="Fashion-MNIST"),
    "cifar10": functools.partial(read_cifar, kind="CIFAR10", title="CIFAR-10"),
    "cifar100": functools.partial(read_cifar, kind="CIFAR100", title="CIFAR-100"),
}
NAMES: tuple[str, ...] = (*_READERS, "folder")
