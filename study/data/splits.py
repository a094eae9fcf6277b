"""Train, validation and test parts of a data set, and how they are divided."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from study.errors import UserError


@dataclass(frozen=True, eq=False)
class Part:
    """Examples with their labels. Nothing may write into them: between trials they are shared memory.

    Attributes:
        images: (n, channels, height, width), uint8, 0 to 255; or data that are no images, (n, …), float32.
        labels: class ids, (n,), int64.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> Part:
        """The chosen examples, as a copy. `index`: (m,) int64, or (n,) bool."""
        return Part(self.images[index], self.labels[index])

    def to(self, device: torch.device | str) -> Part:
        return Part(self.images.to(device), self.labels.to(device))

    def __reduce__(self) -> tuple[Callable[..., Part], tuple[np.ndarray, np.ndarray]]:
        # As NumPy arrays, because pickle (protocol 5) leaves their bytes out-of-band and Ray's object store then maps
        # them into every trial; a tensor's bytes would be copied into each.
        arrays = (tensor.cpu().contiguous().numpy() for tensor in (self.images, self.labels))
        return _part_from_arrays, (next(arrays), next(arrays))


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor on the array's own memory, which is read-only where Ray shares it: copy before writing."""
    with warnings.catch_warnings():
        # torch has no read-only tensors and warns; callers must not write, as with the images of a Part.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array)


def _part_from_arrays(images: np.ndarray, labels: np.ndarray) -> Part:
    return Part(as_tensor(images), as_tensor(labels))


@dataclass(frozen=True, eq=False)
class Splits:
    """What a search may see of a data set: its train and validation parts, never its test part.

    Attributes:
        name: one of `NAMES`.
        title: for people, such as "CIFAR-10 (JPEG)".
        classes: name of each class id.
        train, validation: disjoint parts.
        mean, std: what each channel is normalised by, for pixels scaled to 0…1: those over `train`, unless a network
            brings its own. Of data that are no images, what each entry of their first axis (a feature, or a channel)
            is normalised by.
        split_seed: the seed that divided train from validation.
        links_left_out: links in a folder of images that were not followed; see `folder_files`.
        damaged_left_out: images of a folder that were left out because they are damaged.
        code: hash of the user's code that gave the data; "" where that is no user's, or not known.
        train_mean: the mean over `train`, where `mean` is another one; otherwise empty.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    train: Part
    validation: Part
    mean: tuple[float, ...]
    std: tuple[float, ...]
    split_seed: int
    links_left_out: int = 0
    damaged_left_out: int = 0
    code: str = ""
    train_mean: tuple[float, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width) of one image; of other data, the shape of one example."""
        return tuple(self.train.images.shape[1:])

    @property
    def has_images(self) -> bool:
        """Whether the examples are images, of bytes; others are numbers that nothing may turn or shift."""
        return self.train.images.dtype == torch.uint8

    def to(self, device: torch.device | str) -> Splits:
        return dataclasses.replace(self, train=self.train.to(device), validation=self.validation.to(device))


@dataclass(frozen=True, eq=False)
class Source:
    """A data set as it was published.

    Attributes:
        test: None where `test_fraction` of `train` is the test part.
        validation_fraction: of `train`, its usual validation part where it has none of its own.
        links_left_out, damaged_left_out, code: as in `Splits`.
    """

    title: str
    classes: tuple[str, ...]
    train: Part
    test: Part | None
    validation_fraction: float
    validation: Part | None = None
    test_fraction: float = 0.0
    links_left_out: int = 0
    damaged_left_out: int = 0
    code: str = ""

    def rows(self, fraction: float, seed: int) -> dict[str, tuple[Part, Tensor | None]]:
        """Which examples make which part: name → a part, and (n,) bool of it, or None for all.

        Args:
            fraction: of the training examples, for validation where that is no part of its own.
            seed: of that draw; the test part does not depend on it.
        """
        train, mask = self.train, torch.ones(len(self.train), dtype=torch.bool)
        test: tuple[Part, Tensor | None]
        if self.test is None:
            marked = stratified(train.labels, self.test_fraction, _TEST_SEED, self.classes, self.title)
            test, mask = (train, marked), ~marked
        else:
            test = self.test, None
        if self.validation is not None:
            return {"train": (train, mask), "validation": (self.validation, None), "test": test}
        held_out = torch.zeros_like(mask)
        held_out[mask] = stratified(train.labels[mask], fraction, seed, self.classes, self.title)
        return {"train": (train, mask & ~held_out), "validation": (train, held_out), "test": test}


_TEST_SEED = 0
"""The test part is the same in every study, whatever its split seed."""


def subset_per_class(part: Part, per_class: int, seed: int) -> Part:
    """Draw the same number of examples from every class.

    Args:
        part: its classes are the labels that occur in it.
        per_class: examples of each class, at least 1.
        seed: of the draw.
    Returns: per_class × classes examples, in the order of `part`.
    Raises:
        UserError: a class has fewer examples; the message names the flag `--student-examples`.
    """
    labels = part.labels.cpu().numpy()
    counts = np.bincount(labels)
    present = np.flatnonzero(counts)
    scarcest = present[counts[present].argmin()]
    if not 1 <= per_class <= counts[scarcest]:
        raise UserError(
            f"--student-examples {per_class} is not possible: class {scarcest} has {counts[scarcest]} training images. "
            f"To fix it: give 1 to {counts[scarcest]}"
        )
    rng = np.random.default_rng(seed)
    chosen = np.concatenate([rng.permutation(np.flatnonzero(labels == c))[:per_class] for c in present])
    return part[torch.from_numpy(np.sort(chosen)).to(part.labels.device)]


def stratified(labels: Tensor, fraction: float, seed: int, classes: Sequence[str], title: str) -> Tensor:
    """Mark round(fraction × n) examples, every class in proportion and on both sides. Returns (n,) bool."""
    ids = labels.numpy()
    counts = np.bincount(ids, minlength=len(classes))
    scarcest = int(counts.argmin())
    if counts[scarcest] < 2:
        raise UserError(
            f"{title}: class {classes[scarcest]!r} has {counts[scarcest]} training images, but at least 2 are needed, "
            "one to train on and one to validate. To fix it: add images of this class, or delete its folders"
        )
    exact = counts * fraction
    take = np.floor(exact).astype(int)
    short = round(len(ids) * fraction) - take.sum()
    take[np.argsort(take - exact, kind="stable")[:short]] += 1  # to those whose share was rounded down the most
    take = take.clip(1, counts - 1)
    rng = np.random.default_rng(seed)
    marked = torch.zeros(len(ids), dtype=torch.bool)
    for c, k in enumerate(take):
        marked[rng.permutation(np.flatnonzero(ids == c))[:k]] = True
    return marked
