"""Shared work is done once for each key, and never half kept."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from study import user_code
from study.artifacts.cache import STUDENT, SharedWork, digest, get_or_compute, read_arrays, write_arrays
from study.data import registry
from study.errors import UserError
from study.methods import registry as methods
from study.methods.kd.settings import KDSettings
from study.methods.kd_sws.settings import KDSWSSettings
from study.methods.magnitude.settings import MagnitudeSettings
from study.methods.sws.settings import SWSSettings
from study.models import custom
from study.models.registry import build
from study.settings import resolve


def test_work_is_done_once_for_each_key(tmp_path: Path) -> None:
    """The same key gives what was stored, arrays and record; another key, or a damaged file, computes again."""
    calls = []

    def compute() -> SharedWork:
        calls.append(1)
        return SharedWork({"w": np.arange(3.0)}, {"accuracy": 98.5})

    first, kept = get_or_compute(tmp_path, "teacher", {"seed": 0}, compute)
    assert not kept
    again, kept = get_or_compute(tmp_path, "teacher", {"seed": 0}, compute)
    assert kept and len(calls) == 1
    assert np.array_equal(again.arrays["w"], first.arrays["w"]) and again.record == first.record
    get_or_compute(tmp_path, "teacher", {"seed": 1}, compute)
    assert len(calls) == 2
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:20])
    assert get_or_compute(tmp_path, "teacher", {"seed": 0}, compute)[1] is False


def test_work_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """An error while computing passes on, and no file is kept."""

    def broken() -> SharedWork:
        raise RuntimeError("no teacher")

    with pytest.raises(RuntimeError, match="no teacher"):
        get_or_compute(tmp_path, "teacher", {}, broken)
    assert not list(tmp_path.iterdir())


def some() -> SharedWork:
    return SharedWork(
        {"w": np.arange(6, dtype=np.float32).reshape(2, 3).T, "n": np.arange(2)}, {"history": [{"epoch": 1}]}
    )


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 64, b"\xff" * 64, None])
def test_a_damaged_file_is_computed_again(content: bytes | None, tmp_path: Path) -> None:
    """Empty, foreign or cut short, a kept file is replaced by a whole one, which the next run finds."""
    get_or_compute(tmp_path, "teacher", {}, some)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-3] if content is None else content)
    shared, kept = get_or_compute(tmp_path, "teacher", {}, some)
    assert not kept and np.array_equal(shared.arrays["w"], some().arrays["w"])
    assert get_or_compute(tmp_path, "teacher", {}, some)[1]


def test_what_is_kept_is_what_was_computed(tmp_path: Path) -> None:
    """Shapes, types and values come back, of transposed arrays too, and the record as it was."""
    get_or_compute(tmp_path, "teacher", {"b": 1, "a": [2]}, some)
    shared, kept = get_or_compute(tmp_path, "teacher", {"a": [2], "b": 1}, some)  # the order of keys does not matter
    assert kept and shared.record == some().record
    for name, array in some().arrays.items():
        assert shared.arrays[name].dtype == array.dtype and np.array_equal(shared.arrays[name], array)
    assert np.array_equal(shared.tensors()["w"].numpy(), some().arrays["w"])


def test_a_word_and_every_part_of_the_key_tell_results_apart(tmp_path: Path) -> None:
    """Another word for the same key is another file; a nested value, its type or a further part changes the hash."""
    get_or_compute(tmp_path, "teacher", {}, some)
    assert not get_or_compute(tmp_path, "network", {}, some)[1]
    keys = [{}, {"a": 1}, {"a": "1"}, {"a": {"b": 1}}, {"a": {"b": 2}}, {"a": 1, "b": None}]
    assert len({digest(key) for key in keys}) == len(keys)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk fills half-way, the error passes on and no file is left, whole or in part."""

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:4])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        get_or_compute(tmp_path, "teacher", {}, some)
    assert not list(tmp_path.iterdir())


def test_weights_are_for_all_to_read_and_damaged_ones_are_named(tmp_path: Path) -> None:
    """As the tables next to them are; a file that was cut is one line and no traceback."""
    write_arrays(tmp_path / "t001.safetensors", {"w": np.arange(3.0)})
    (tmp_path / "table.csv").touch()
    path = tmp_path / "t001.safetensors"
    assert path.stat().st_mode == (tmp_path / "table.csv").stat().st_mode
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match="t001.safetensors: damaged"):
        read_arrays(path)


def test_a_scalar_stays_a_scalar(tmp_path: Path) -> None:
    """A scalar, such as batch-norm's count of batches, is kept without a dimension."""
    for _ in range(2):
        shared, _ = get_or_compute(tmp_path, "teacher", {}, lambda: SharedWork({"count": np.array(7)}))
        assert shared.arrays["count"].shape == ()


def test_parts_are_the_same_after_the_disk(tmp_path: Path) -> None:
    """Weights, teacher and logits, student, and what trials start from, of a result as it was computed and as it is
    read: each has its own arrays alone, under its own names."""
    names = ("w", "logits", "teacher/w", "student/w", "fine-tuned/w")
    everything = {name: np.full(2, float(number)) for number, name in enumerate(names)}
    for left_out, teacher, start in ((None, 2.0, 4.0), ("teacher/w", 4.0, 4.0), ("fine-tuned/w", 2.0, 0.0)):
        arrays = {name: array for name, array in everything.items() if name != left_out}
        for _ in range(2):
            shared, _ = get_or_compute(tmp_path, "network", {"without": left_out}, lambda a=arrays: SharedWork(a))
            parts = shared.weights(), shared.teacher(), shared.start(), shared.part(STUDENT)
            assert [{name: array[0] for name, array in part.arrays.items()} for part in parts] == [
                {"w": 0.0}, {"w": teacher, "logits": 1.0}, {"w": start}, {"w": 3.0}
            ]  # fmt: skip
    plain = SharedWork({"w": everything["w"]})
    assert plain.teacher().arrays.keys() == plain.start().arrays.keys() == {"w"}


def test_a_teacher_of_one_method_is_not_that_of_another() -> None:
    """Distillation with sizes needs more of a teacher's record than plain distillation, so their keys differ; and so
    do those of teachers for students with other weights."""
    splits, _ = registry.load("digits", None, size=32)

    def key(settings: Any, weights: SharedWork | None = None) -> str:
        return digest(methods.method(settings.kind).shared_work.key(resolve(settings), splits, weights))

    teacher = {"teacher": "vgg11", "teacher_width": 0.125}
    students = [SharedWork({"student/w": np.full(3, value, np.float32)}) for value in (0.0, 1.0)]
    keys = [key(KDSettings.of(**teacher)), key(KDSWSSettings.of(**teacher))]
    keys += [key(KDSWSSettings.of(**teacher), student) for student in students]
    assert len(set(keys)) == 4 and key(KDSWSSettings.of(**teacher), students[0]) == keys[2]


OWN = """
from torch import nn

class Own(nn.Sequential):
    def forward(self, images):
        return super().forward(images)SCALED

def build(input_shape, classes):
    pixels = input_shape[0] * input_shape[1] * input_shape[2]
    return Own(nn.Flatten(), nn.Linear(pixels, WIDE), nn.RELU(), nn.Linear(WIDE, classes))
"""
PLAIN = {"SCALED": "", "WIDE": "20", "RELU": "ReLU"}


@pytest.mark.parametrize("settings", [
    KDSettings.of(teacher="own:build"), KDSWSSettings.of(teacher="own:build"),
    SWSSettings.of(network="own:build"), SWSSettings.of(teacher="own:build"), MagnitudeSettings.of(network="own:build"),
])  # fmt: skip
def test_a_users_network_is_known_by_its_code(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared work of a `module:function` is found again while its file is as it was, and not once a layer, a size or
    what the forward pass does has changed under the same name."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two of these files are of one length and one second
    splits, _ = registry.load("digits", None, size=32)

    def key(**changed: str) -> str:
        code = OWN
        for what, value in {**PLAIN, **changed}.items():
            code = code.replace(what, value)
        (tmp_path / "own.py").write_text(code)
        sys.modules.pop("own", None)
        return digest(methods.method(settings.kind).shared_work.key(resolve(settings), splits, None))

    keys = [key(), key(RELU="Sigmoid"), key(WIDE="30"), key(SCALED=" * 2")]
    assert len(set(keys)) == 4 and key() == keys[0]


@pytest.mark.parametrize("imported", ["import helper", "from helper import scaled"])
def test_a_users_network_is_known_by_the_files_that_it_uses(
    imported: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code next to its file that it calls counts as its own, at second hand too; what it does not use does not."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    call = "helper.scaled" if imported.startswith("import") else "scaled"

    def identity(factor: str = "1", other: str = "") -> str:
        files = {"own": f"{imported}\nfrom torch import nn\n\ndef net(input_shape, classes):\n"
                        f"    {call}(1)\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n",
                 "helper": "from deeper import FACTOR, nothing\n\ndef scaled(x):\n    return nothing(x) * FACTOR\n",
                 "deeper": f"FACTOR = {factor}\n\ndef nothing(x):\n    return x\n",
                 "unused": other}  # fmt: skip
        for name, code in files.items():
            (tmp_path / f"{name}.py").write_text(code)
            sys.modules.pop(name, None)
        return custom.identity("own:net", build("own:net", (1, 8, 8), 10))

    assert identity() == identity(other="x = 1")
    assert identity() != identity(factor="2")


@pytest.mark.parametrize("named", [True, False])
def test_an_installed_network_is_known_by_its_own_package(
    named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was installed counts with its package, with an `__init__.py` or without, and not with what else is."""
    package = tmp_path / "site-packages" / "pack"
    package.mkdir(parents=True)
    monkeypatch.syspath_prepend(package.parent)
    if named:
        (package / "__init__.py").touch()
    (package.parent / "strange.py").touch()
    (package / "helper.py").write_text("def scaled(x):\n    return x\n")
    (package / "own.py").write_text("import strange\nfrom pack.helper import scaled\n\ndef net():\n    pass\n")
    importlib.import_module("pack.own")
    assert user_code._used_by("pack.own") == {"pack.own", "pack.helper"}
    for name in ("pack.own", "pack.helper", "pack", "strange"):
        sys.modules.pop(name)
