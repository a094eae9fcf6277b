"""A user's own arrays, by module:function: what is taken, what is refused, and how they are recognised."""

from __future__ import annotations

import dataclasses
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from study import evaluate, user_code
from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.compression import file_checks
from study.data import registry
from study.data.images import normalise
from study.data.splits import Part, Splits
from study.errors import UserError
from study.methods.common import pretrained
from study.methods.sws import method
from study.pipeline import metadata, preflight
from study.records.study_json import problem_of
from study.run import parse
from study.settings import resolve
from study.training.loop import logits_of
from study.tuning.space import SearchSpace

_count = itertools.count()
Give = Callable[..., str]


@pytest.fixture
def give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Give]:
    """Make a module whose function `data` returns something; returns its name for --dataset."""
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def make(result: Any = None, signature: str = "", returns: str = "RESULT", more: str = "") -> str:
        module = f"own_data_{next(_count)}"
        (tmp_path / f"{module}.py").write_text(f"RESULT = None\ndef data({signature}):\n    return {returns}\n{more}")
        __import__(module)
        sys.modules[module].RESULT = result  # type: ignore[attr-defined]
        made.append(module)
        return f"{module}:data"

    yield make
    for module in made:
        sys.modules.pop(module)


def features(count: int, seed: int = 0, shape: tuple[int, ...] = (5,)) -> tuple[np.ndarray, np.ndarray]:
    """Random numbers of another scale in each channel."""
    scale = np.array([1, 10, 0.01, 1e4, 1][: shape[0]]).reshape(-1, *[1] * (len(shape) - 1))
    numbers = np.random.default_rng(seed).normal(size=(count, *shape)) * scale + 7 * scale
    return numbers.astype(np.float32), np.arange(count) % 3


def images(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(count).integers(0, 256, (count, 3, 6, 5)).astype(np.uint8), np.arange(count) % 3


def refusal(name: str, data_dir: Path | None = None) -> str:
    with pytest.raises(UserError) as refused:
        registry.load(name, data_dir)
    assert str(refused.value).isprintable()
    return str(refused.value)


class Pairs(Dataset[Any]):
    """A map-style Dataset of what it is given."""

    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.ones(5) * i, i % 3) for i in range(12)])


@pytest.mark.parametrize("shape", [(5,), (2, 7), (2, 4, 3), (2, 3, 4, 2)])
def test_numbers_of_any_shape_are_normalised(give: Give, shape: tuple[int, ...]) -> None:
    """Each feature, or channel, has mean 0 and deviation 1 over the training part, which is nine tenths of it."""
    splits, test = registry.load(give((features(60, shape=shape), features(9, 1, shape))), None)
    assert splits.shape == shape and not splits.has_images and len(splits.validation) == 6 and len(test) == 9
    inputs = normalise(splits.train.images, splits.mean, splits.std, len(shape))
    axes = [0, *range(2, len(shape) + 1)]
    np.testing.assert_allclose(inputs.mean(dim=axes), 0, atol=1e-4)
    np.testing.assert_allclose(inputs.std(dim=axes, correction=0), 1, atol=1e-4)
    assert torch.equal(normalise(splits.train.images, None, None, len(shape)), splits.train.images)


def test_a_constant_feature_and_a_large_one_are_normalised_exactly() -> None:
    """A constant stays finite on other values, too; 10⁶ + {0, 1} becomes ±1, which sums of squares would lose."""
    numbers = torch.tensor([[0.1, 1e6], [0.1, 1e6 + 1]] * 50)
    part = Part(numbers, torch.arange(100) % 2)
    name = Splits("own:data", "own", ("a", "b"), part, part, (), (), 0)
    from study.data.images import channel_statistics

    mean, std = channel_statistics(numbers)
    assert std == (1.0, 0.5) and name.shape == (2,)
    assert normalise(numbers, mean, std, 1)[:2].tolist() == [[0.0, -1.0], [0.0, 1.0]]


def test_images_are_as_any_others(give: Give) -> None:
    """uint8, scaled to 0…1 for their constants, and enlarged where a network needs it; a tensor will do."""
    inputs, labels = images(60)
    name = give(((torch.from_numpy(inputs), torch.from_numpy(labels)), images(9)))
    splits, _ = registry.load(name, None, size=16)
    assert splits.shape == (3, 16, 16) and splits.has_images and 0 < splits.mean[0] < 0.6


def test_three_parts_and_names(give: Give) -> None:
    """The validation part is as given, whatever the seed; names stand last, in a pair, in a Dataset or a function."""
    parts = features(12), features(6, 1), features(9, 2)
    splits, test = registry.load(give(parts), None, split_seed=4)
    assert torch.equal(splits.validation.images, torch.from_numpy(parts[1][0])) and len(test) == 9
    assert splits.classes == ("0", "1", "2") and len(splits.train) == 12
    names = ["ant", "bee", "cow"]
    own = TensorDataset(*map(torch.as_tensor, features(12)))
    own.classes = names  # type: ignore[attr-defined]
    for name in (
        give((features(12), features(9), names)),
        give((*parts, names)),
        give(((*features(12), names), features(9))),
        give((own, features(9))),
        give((features(12), features(9)), more=f"data.classes = {names}\n"),
    ):
        assert registry.load(name, None)[0].classes == ("ant", "bee", "cow")


@pytest.mark.parametrize(
    "dataset",
    [
        TensorDataset(torch.arange(60.0).view(12, 5), torch.arange(12) % 3),
        Pairs(*[(torch.ones(5, dtype=torch.float64) * i, i % 3) for i in range(12)]),
        Pairs(*[(np.ones(5) * i, np.int32(i % 3)) for i in range(12)]),
        Stream(),
    ],
)
def test_datasets_are_read_once(give: Give, dataset: Dataset[Any]) -> None:
    """Any Dataset of (tensor, label), of which doubles become float32."""
    splits, test = registry.load(give((dataset, dataset)), None)
    assert splits.shape == (5,) and test.images.dtype == torch.float32 and test.labels.tolist() == [0, 1, 2] * 4


GOOD = features(12)
X, Y = GOOD
U = images(12)[0]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "returned a NoneType"),
        ((GOOD,), "returned 1 parts"),
        ((GOOD,) * 4, "returned 4 parts"),
        ((X, Y), "its train part is a ndarray"),
        ((GOOD, DataLoader(TensorDataset(torch.ones(3, 5)))), "test part is a DataLoader. To fix it: return its data"),
        ((GOOD, (X, Y[:-1])), "its test part has 12 inputs and 11 labels"),
        ((GOOD, (X, Y.astype(float))), "its test labels are float64. To fix it: give whole numbers"),
        ((GOOD, (X, Y[:, None])), "its test labels have the shape (12, 1)"),
        ((GOOD, (X, ["a"] * 12)), "its test labels is a list that is no array of numbers"),
        ((GOOD, (X, Y - 1)), "its test part has the label -1. To fix it: number the classes from 0"),
        ((GOOD, (X, Y + 1)), "its train part has 0 examples of class 3"),
        ((GOOD, (X, Y * 2)), "its train part has 0 examples of class 3"),
        ((GOOD, (X, Y * 10**9)), "it has the label 2000000000. To fix it: number the classes from 0"),
        ((GOOD, (X, Y * 0)), "its test part has 0 examples of class 1"),
        (((X[:4], Y[:4]), GOOD), "its train part has 1 examples of class 1"),
        (((X, Y * 0), (X, Y * 0)), "it has only one class"),
        ((GOOD, (X[:, :4], Y)), "its test inputs are (4,) float32, those of train (5,) float32"),
        ((GOOD, (U, Y)), "its test inputs are (3, 6, 5) uint8, those of train (5,) float32"),
        ((GOOD, (np.where(X > 100, np.nan, X), Y)), "its test inputs are not all finite numbers, such as"),
        ((GOOD, (X.astype(np.float64) * 1e300, Y)), "are not all finite numbers"),
        ((GOOD, (X.astype(int), Y)), "its test inputs are int64. To fix it: give uint8 for images, or float32"),
        ((GOOD, (X[:, 0], Y)), "its test inputs have the shape (12,)"),
        ((GOOD, (X[:0], Y[:0])), "its test inputs have the shape (0, 5)"),
        ((GOOD, (U.transpose(0, 2, 3, 1), Y)), "seem to be (n, height, width, channels), (12, 6, 5, 3). To fix it: "),
        ((GOOD, (U[:, 0], Y)), "add the axis of the channels, images[:, None]"),
        ((GOOD, (X.astype(np.uint8), Y)), "are uint8 of shape (12, 5). To fix it: give float32"),
        ((GOOD, (np.ones((12, 5000), np.float32), Y)), "give at most 4,096 features"),
        ((GOOD, (np.ones((12, 1, 1, 1, 1, 1), np.float32), Y)), "its test inputs have 5 dimensions each"),
        ((GOOD, ([[1.0], [1.0, 2.0]], Y)), "its test inputs is a list that is no array of numbers"),
        ((GOOD, GOOD, ["a", "b"]), "it names 2 classes, and has the label 2"),
        ((GOOD, GOOD, ["a", "b", "b"]), "two of its classes have one name"),
        ((GOOD, Pairs()), "its test part is empty"),
        ((GOOD, Pairs({"x": 1})), "example 0 of its test part is a dict"),
        ((GOOD, Pairs(("x", 1))), "example 0 of its test part has a str as its input"),
        ((GOOD, Pairs((X[0], 1), (X[0, :2], 1))), "example 1 of its test part has shape (2,) float32, and example 0"),
        ((GOOD, Pairs((X[0], Y))), "example 0 of its test part has 12 labels"),
    ],
)
def test_what_is_not_as_it_must_be_is_one_line(give: Give, result: Any, words: str) -> None:
    """With the flag, the name, what is wrong, and what to do."""
    name = give(result)
    line = refusal(name)
    assert line.startswith(f"--dataset {name}: ") and words in line and ". To fix it: " in line


def test_the_function_is_called_as_it_takes(give: Give, tmp_path: Path) -> None:
    """With data_dir only if it takes that; what it prints is not shown, and what it raises is one line."""
    parts = features(12), features(9)
    registry.load(give(parts, "data_dir=None", "RESULT if data_dir is None else None"), None)
    registry.load(give(parts, "data_dir", "RESULT if data_dir else None"), tmp_path)
    assert refusal(give(parts, "data_dir")).startswith("--data-dir is missing: --dataset own_data_")
    assert "takes no data_dir; leave it out" in refusal(give(parts), tmp_path)
    name = give(returns="1 / 0")
    assert refusal(name) == f"--dataset {name}: calling data failed (ZeroDivisionError: division by zero)"
    assert refusal("nowhere_at_all:data").startswith("--dataset nowhere_at_all:data cannot be imported (ModuleNotFound")


def test_other_code_or_other_arrays_are_another_data_set(give: Give) -> None:
    """A study that goes on knows both by their hashes; code that a file names is not run."""
    parts = features(12), features(9)
    splits, test = registry.load(give(parts), None)
    prints = metadata.fingerprints(splits, test)
    same = registry.load(give(parts), None)
    other = registry.load(give(parts, more="# changed\n"), None)
    another = registry.load(give((features(12, 5), features(9))), None)
    assert metadata.fingerprints(*same) == prints and prints["code"]
    assert [k for k, v in metadata.fingerprints(*other).items() if v != prints[k]] == ["code"]
    assert [k for k, v in metadata.fingerprints(*another).items() if v != prints[k]] == ["train", "validation"]
    name = give(parts)
    with user_code.only(["x:y"]):
        assert refusal(name) == f"dataset {name} is a user's code. If you trust it, add --dataset {name}"
    with user_code.only([], [name]):
        registry.load(name, None)


def test_augmentation_is_for_images(give: Give) -> None:
    """Numbers that are no images are not turned; images of a user's are."""
    numbers, pixels = give((features(12), features(9))), give((images(12), images(9)))
    for name in (numbers, pixels):
        settings = resolve(parse(["sws", "--dataset", name, "--augment", "flip", "--network", "lenet_300_100"]))
        if name == pixels:
            assert preflight.load_data(settings)[0].shape == (3, 6, 5)
        else:
            with pytest.raises(UserError, match=f"^--augment flip: is for images, and --dataset {name} gives float32"):
                preflight.load_data(settings)
    assert settings.folder.name == f"sws-{pixels.replace(':', '.')}"


def test_headers_have_the_shapes_of_other_data() -> None:
    """One number for each feature, up to four dimensions; 4,096 features fit."""
    many = [1.2345678e-05] * 4096
    name, _, shape, *_ = file_checks.check_entries("a:b", {}, (4096,), 3, many, many, "c:d")
    assert (name, shape) == ("a:b", (4096,))
    file_checks.check_entries("a:b", {}, (2, 3, 4, 5), 3, (0, 0), (1, 1), "c:d")
    for shape in ((), (2, 3, 4, 5, 6), (2.0,)):
        with pytest.raises(ValueError, match="1 to 4 dimensions"):
            file_checks.check_entries("a:b", {}, shape, 3, (0, 0), (1, 1), "c:d")


def test_networks_see_the_normalised_numbers(give: Give) -> None:
    """What a network is asked is what `normalise` gives, in training and in evaluation."""
    splits, test = registry.load(give((features(60, shape=(2, 7)), features(9, 1, (2, 7)))), None)
    model = torch.nn.Flatten()
    wanted = normalise(test.images, splits.mean, splits.std, 2).flatten(1)
    assert torch.equal(logits_of(model, test.images, splits), wanted)
    raw = dataclasses.replace(splits, mean=(0.0, 0.0), std=(1.0, 1.0))
    assert torch.equal(logits_of(model, test.images, raw), test.images.flatten(1))


def test_the_table_of_the_readme_is_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module in README.md with its command: it passes the checks before Ray, learns, and its compressed file
    scores as its network did."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, flags=re.S)
    (command,) = re.findall(r"python -m study.run (sws --dataset mytable.*)", readme)
    (tmp_path / "mytable.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        settings = resolve(parse([*command.split(), "--epochs", "2", "--codebook-epochs", "1"]))
        space = SearchSpace.of_study(settings)
        inputs = preflight.load_inputs(settings, space, None)
        assert inputs.data.shape == (8,) and [len(p) for p in (inputs.data.train, inputs.test)] == [900, 200]
        meta = metadata.study_metadata(settings, space, inputs.data, inputs.test, inputs.networks, ["run"])
        assert meta["data"]["name"] == meta["settings"]["dataset"] == "mytable:data" and meta["data"]["shape"] == [8]
        assert not problem_of({**meta, "shared_work": ""})
        work = pretrained.pretrain({}, settings, inputs.data, None, lambda row: None, Progress())
        assert work.metrics["val_accuracy"] > 90
        values = {"density": 0.2, "components": 16}
        shared = SharedWork(dict(work.arrays), {"metrics": work.metrics})
        trial = method.trial(values, settings, inputs.data, shared, lambda row: None, Progress())
        (tmp_path / "t.codebook").write_bytes(trial.file)
        options = evaluate.Options((tmp_path / "t.codebook",), network="mytable:build", part="validation")
        with pytest.raises(UserError, match="If you trust it, add --dataset mytable:data$"):
            evaluate.report(options)
        score = evaluate.report(dataclasses.replace(options, dataset="mytable:data"))
        assert score["accuracy"] == trial.metrics["val_accuracy"] and score["examples"] == 100
    finally:
        sys.modules.pop("mytable", None)
