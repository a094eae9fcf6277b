"""A user's own data, `module:function`: called, checked, and turned into tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from study import user_code
from study.data.splits import Part, Source, as_tensor
from study.errors import UserError, printable

_FLAG = "--dataset"
_RETURNS = (
    "(train, test) or (train, validation, test), each a pair of arrays (inputs, labels) or a torch.utils.data.Dataset"
)
_MOST_DIMENSIONS = 4
_MOST_CHANNELS = 4096
"""Features, or channels: a compressed file holds the mean and the standard deviation of each."""
_MOST_INPUTS = 2**24
_PLACES = {2: ("train", "test"), 3: ("train", "validation", "test")}


def read_user_data(name: str, data_dir: Path | None) -> Source:
    """The data set that a user's function returns.

    The function is called without arguments, or with `data_dir` if it takes that. It returns (train, test) or (train,
    validation, test); each is a pair (inputs, labels) of arrays or tensors, or a `torch.utils.data.Dataset` of such
    pairs, which is read once. Inputs are images, (n, channels, height, width), uint8, or float32 of any shape (n, …).
    Labels are whole numbers from 0, (n,). Names of the classes are optional: a last element of what is returned or of
    a pair, or an attribute `classes` of a Dataset or of the function.

    Raises:
        UserError: one line that names `--dataset`.
    """
    function = user_code.import_function(_FLAG, name)
    reader = _Reader(name)
    result = user_code.call(_FLAG, name, function, **reader.options(function, data_dir))
    parts, classes = reader.parts(result)
    names = classes or _names(getattr(function, "classes", None))
    return Source(
        title=printable(name),
        classes=reader.check(parts, names),
        train=parts["train"],
        test=parts["test"],
        validation_fraction=0.1,
        validation=parts.get("validation"),
        code=user_code.code_hash(name, b"data"),
    )


class _Reader:
    """Takes apart what the function of this name returned, and refuses what is not as it must be."""

    def __init__(self, name: str) -> None:
        self.name = name

    def refuse(self, what: str, fix: str) -> NoReturn:
        raise UserError(f"{_FLAG} {self.name}: {what}. To fix it: {fix}")

    def options(self, function: Callable[..., Any], data_dir: Path | None) -> dict[str, object]:
        """What the function is called with."""
        try:
            parameter = inspect.signature(function).parameters.get("data_dir")
        except (TypeError, ValueError):  # of code that is not Python's
            parameter = None
        if parameter is None:
            if data_dir is not None:
                raise UserError(f"--data-dir {data_dir}: {self.name} takes no data_dir; leave it out")
            return {}
        if data_dir is not None:
            return {"data_dir": data_dir}
        if parameter.default is inspect.Parameter.empty:
            raise UserError(f"--data-dir is missing: {_FLAG} {self.name} takes data_dir, a folder")
        return {}

    def parts(self, result: object) -> tuple[dict[str, Part], tuple[str, ...]]:
        """The parts by name, and the names of the classes, if it says them."""
        if not isinstance(result, tuple | list):
            self.refuse(f"returned {_kind(result)}", f"return {_RETURNS}")
        given: list[object] = list(result)
        classes: tuple[str, ...] = ()
        if len(given) > 2 and (classes := _names(given[-1])):
            given.pop()
        if len(given) not in _PLACES:
            self.refuse(f"returned {len(given)} parts", f"return {_RETURNS}")
        parts = {}
        for place, part in zip(_PLACES[len(given)], given, strict=True):
            inputs, labels, own = self._pair(place, part)
            parts[place] = Part(self._inputs(place, inputs), self._labels(place, labels))
            classes = classes or own
            if len(parts[place].images) != len(parts[place].labels):
                counts = f"{len(parts[place].images):,} inputs and {len(parts[place].labels):,} labels"
                self.refuse(f"its {place} part has {counts}", "give one label for each input")
        return parts, classes

    def _pair(self, place: str, part: object) -> tuple[object, object, tuple[str, ...]]:
        """Inputs, labels, and names of the classes."""
        if isinstance(part, tuple | list) and len(part) in (2, 3):
            return part[0], part[1], _names(part[2]) if len(part) == 3 else ()
        if isinstance(part, DataLoader):
            self.refuse(f"its {place} part is a DataLoader", "return its dataset")
        if isinstance(part, Dataset):
            inputs, labels = user_code.call(_FLAG, self.name, lambda: self._read(place, part))
            return inputs, labels, _names(getattr(part, "classes", None))
        self.refuse(f"its {place} part is {_kind(part)}", f"return {_RETURNS}")

    def _read(self, place: str, dataset: Dataset[Any]) -> tuple[np.ndarray, np.ndarray]:
        """All examples of a Dataset."""
        items: Iterable[Any] = dataset if isinstance(dataset, torch.utils.data.IterableDataset) else ()
        if isinstance(dataset, Sized) and not items:
            items = (dataset[i] for i in range(len(dataset)))
        inputs: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        for number, item in enumerate(items):
            where = f"example {number} of its {place} part"
            if not isinstance(item, tuple | list) or len(item) != 2:
                self.refuse(f"{where} is {_kind(item)}", "give a Dataset of (tensor, label)")
            if not isinstance(item[0], Tensor | np.ndarray):
                self.refuse(f"{where} has {_kind(item[0])} as its input", "give a Dataset of (tensor, label)")
            inputs.append(self._array(where, item[0]))
            labels.append(self._array(where, item[1]))
            if inputs[-1].shape != inputs[0].shape or inputs[-1].dtype != inputs[0].dtype:
                shapes = f"{inputs[-1].shape} {inputs[-1].dtype}, and example 0 {inputs[0].shape} {inputs[0].dtype}"
                self.refuse(f"{where} has shape {shapes}", "give all one shape and type")
            if labels[-1].size != 1:
                self.refuse(f"{where} has {labels[-1].size} labels", "give one whole number")
        if not inputs:
            self.refuse(f"its {place} part is empty", "give examples of every class")
        return np.stack(inputs), np.stack([label.reshape(()) for label in labels])

    def _array(self, what: str, given: object) -> np.ndarray:
        if isinstance(given, Tensor):
            dense = given.detach().cpu()
            dense = dense.to_dense() if dense.layout is not torch.strided else dense
            return (dense.float() if dense.is_floating_point() else dense).numpy()
        try:
            array = np.asarray(given)
        except ValueError:  # lists of several lengths
            array = np.empty((), object)
        if array.dtype.kind not in "biuf":
            self.refuse(f"{what} is {_kind(given)} that is no array of numbers", "give NumPy arrays or tensors")
        return array

    def _inputs(self, place: str, given: object) -> Tensor:
        what = f"its {place} inputs"
        array = self._array(what, given)
        if array.ndim < 2 or 0 in array.shape:
            fix = "give one row for each example, (n, features), or (n, channels, …)"
            self.refuse(f"{what} have the shape {array.shape}", fix)
        if array.dtype == np.uint8:
            self._check_images(what, array)
        elif array.dtype.kind != "f":
            self.refuse(f"{what} are {array.dtype}", "give uint8 for images, or float32 for other data (.astype)")
        if array.ndim - 1 > _MOST_DIMENSIONS:
            fix = f"give at most {_MOST_DIMENSIONS} dimensions for each"
            self.refuse(f"{what} have {array.ndim - 1} dimensions each", fix)
        if array.shape[1] > _MOST_CHANNELS or np.prod(array.shape[1:]) > _MOST_INPUTS:
            fix = f"give at most {_MOST_CHANNELS:,} features or channels, and {_MOST_INPUTS:,} numbers"
            self.refuse(f"{what} have the shape {array.shape[1:]} each", fix)
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                array = array.astype(np.float32, copy=False)
            if not np.isfinite(array).all():
                row = int(np.argmax(~np.isfinite(array).reshape(len(array), -1).all(axis=1)))
                fix = "fill in or leave out what is NaN or infinite in float32"
                self.refuse(f"{what} are not all finite numbers, such as those of example {row}", fix)
        return as_tensor(np.ascontiguousarray(array))

    def _check_images(self, what: str, array: np.ndarray) -> None:
        if array.ndim == 3:
            fix = "add the axis of the channels, images[:, None]; or give float32 for what is no image"
            self.refuse(f"{what} are uint8 of shape {array.shape}", fix)
        if array.ndim != 4:
            self.refuse(f"{what} are uint8 of shape {array.shape}", "give float32 for what is no image (.astype)")
        if array.shape[1] not in (1, 3) and array.shape[3] in (1, 3, 4):
            fix = "put the channels first: images.transpose(0, 3, 1, 2), or .permute of a tensor"
            self.refuse(f"{what} seem to be (n, height, width, channels), {array.shape}", fix)

    def _labels(self, place: str, given: object) -> Tensor:
        what = f"its {place} labels"
        array = self._array(what, given)
        if array.ndim != 1:
            self.refuse(f"{what} have the shape {array.shape}", "give one whole number for each example, (n,)")
        if array.dtype.kind not in "biu":
            self.refuse(f"{what} are {array.dtype}", "give whole numbers from 0 (.astype(int))")
        return torch.from_numpy(array.astype(np.int64))

    def check(self, parts: Mapping[str, Part], names: tuple[str, ...]) -> tuple[str, ...]:
        """The names of the classes, once the parts fit each other."""
        train = parts["train"].images
        for place, part in parts.items():
            if part.images.shape[1:] != train.shape[1:] or part.images.dtype != train.dtype:
                mine, other = (f"{tuple(x.shape[1:])} {str(x.dtype)[6:]}" for x in (part.images, train))
                self.refuse(f"its {place} inputs are {mine}, those of train {other}", "give all one shape and type")
            if int(part.labels.min()) < 0:
                fix = "number the classes from 0"
                self.refuse(f"its {place} part has the label {int(part.labels.min())}", fix)
        highest = max(int(part.labels.max()) for part in parts.values())
        longest = sum(len(part) for part in parts.values())
        count = len(names) or highest + 1
        if names and highest >= count:
            fix = "name every class"
            self.refuse(f"it names {count} classes, and has the label {highest}", fix)
        if count < 2:
            self.refuse("it has only one class", "a classifier needs at least two")
        if count > longest:
            self.refuse(f"it has the label {highest}", "number the classes from 0, without gaps")
        if len(set(names)) < len(names):
            self.refuse("two of its classes have one name", "give each another name")
        least = {place: 1 if place != "train" or "validation" in parts else 2 for place in parts}
        for place, part in parts.items():
            counts = torch.bincount(part.labels, minlength=count)
            scarcest = int(counts.argmin())
            if int(counts[scarcest]) < least[place]:
                called = f" ({names[scarcest]})" if names else ""
                fix = "give examples of every class in each part, and number the classes from 0 without gaps"
                if least[place] == 2:
                    fix += "; train needs two of each, one of which is to validate"
                has = f"{int(counts[scarcest])} examples of class {scarcest}{called}"
                self.refuse(f"its {place} part has {has}", fix)
        return names or tuple(map(str, range(count)))


def _names(given: object) -> tuple[str, ...]:
    """Names of classes; none where this is no sequence of texts."""
    if isinstance(given, Sequence) and not isinstance(given, str | bytes) and all(isinstance(n, str) for n in given):
        return tuple(map(printable, given))
    return ()


def _kind(value: object) -> str:
    return f"{'an' if type(value).__name__[0] in 'aeiouAEIOU' else 'a'} {type(value).__name__}"
