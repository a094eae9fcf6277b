"""A trial that is stopped goes on as if it had not been."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from study.artifacts import checkpoints
from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Checkpoint
from study.data import registry
from study.data.splits import Splits
from study.methods import registry as methods
from study.methods.kd.settings import KDSettings
from study.methods.kd_sws.settings import KDSWSSettings
from study.methods.magnitude.settings import MagnitudeSettings
from study.methods.method import TrialFunction, TrialResult, settings_with
from study.methods.sws.settings import SWSSettings
from study.settings import resolve
from study.tuning import trainable

SHARING = dict(codebook_epochs=2, sigma=0.02, precision_rate=0.05, retrain_epochs=2, layer_scales=True)
RECIPE = dict(optimizer="nesterov", schedule="step", warmup_epochs=1, clip_norm=1.0, ema=0.9)
SMALL_KD = dict(teacher="vgg11", teacher_width=0.125, student_width=0.125, teacher_epochs=2, epochs=2)
SMALL = dict(pretrain_epochs=2, epochs=3, codebook_epochs=2)
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "kd": (KDSettings.of(**SMALL_KD), {"temperature": 2.0, "alpha": 0.5}),  # type: ignore[arg-type]
    "kd, augmented": (KDSettings.of(**SMALL_KD, augment="crop"), {"temperature": 2.0, "alpha": 0.5}),  # type: ignore[arg-type]
    "kd, another recipe": (
        KDSettings.of(**SMALL_KD, **RECIPE, mixup=0.2),  # type: ignore[arg-type]
        {"temperature": 2.0, "alpha": 0.5},
    ),
    "magnitude, another recipe": (
        MagnitudeSettings.of(**SMALL, **RECIPE, teacher="lenet_300_100", teacher_epochs=2),  # type: ignore[arg-type]
        {"density": 0.1, "codebook_size": 8},
    ),
    "sws": (
        SWSSettings.of(  # type: ignore[arg-type]
            **{**SMALL, **SHARING}, variant="soft", teacher="lenet_300_100", teacher_epochs=2, anneal=0.5, merge=0.1
        ),
        {"tau": 0.02, "components": 6, "one_minus_pi_zero": 0.01},
    ),
    "magnitude": (MagnitudeSettings.of(**SMALL, teacher="self"), {"density": 0.1, "codebook_size": 8}),  # type: ignore[arg-type]
    "magnitude, augmented": (
        MagnitudeSettings.of(**SMALL, teacher="lenet_300_100", teacher_epochs=2, augment="shift"),  # type: ignore[arg-type]
        {"density": 0.1, "codebook_size": 8},
    ),
    "magnitude, quantised training": (
        MagnitudeSettings.of(**SMALL, teacher="self", augment="shift1", quantised_training=True),  # type: ignore
        {"density": 0.1, "codebook_size": 8},
    ),
    "sws, hard": (
        SWSSettings.of(**{**SMALL, "epochs": 6}, variant="hard", teacher="self"),  # type: ignore[arg-type]
        {"density": 0.05, "components": 8},
    ),
    "sws, hard, k-means": (
        SWSSettings.of(**SMALL, variant="hard", quantised_training=False),  # type: ignore[arg-type]
        {"density": 0.05, "components": 8},
    ),
    "kd_sws": (
        KDSWSSettings.of(**SMALL_KD, **SHARING, cluster_epochs=2, augment="flip"),  # type: ignore[arg-type]
        {"student_width": 0.125, "temperature": 2.0, "alpha": 0.5, "tau": 0.02, "components": 6,
         "one_minus_pi_zero": 0.01},
    ),
}  # fmt: skip


def test_a_trial_that_was_cut_off_outlives_the_end_of_a_study(tmp_path: Path) -> None:
    """What trials ended with waits until it is tested; then all goes but the checkpoints of those that still run."""
    assert not checkpoints.has_untested_results(tmp_path)
    for trial_id in ("t001", "t002", "paper settings"):
        path = checkpoints.path_of(tmp_path, trial_id)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert not checkpoints.has_untested_results(tmp_path)
    checkpoints.weights_of(checkpoints.path_of(tmp_path, "paper settings")).touch()
    assert checkpoints.has_untested_results(tmp_path)
    checkpoints.clear_results(tmp_path, [{"trial_id": "t002"}])
    assert [p.name for p in (tmp_path / checkpoints.FOLDER).iterdir()] == ["t002.pt"]
    checkpoints.clear_results(tmp_path, [])
    checkpoints.clear_results(tmp_path, [])
    assert not (tmp_path / checkpoints.FOLDER).exists()


def test_an_earlier_hang_is_not_the_reason_of_a_later_end(tmp_path: Path) -> None:
    """A trial that begins again without a time limit leaves nothing behind that says it hung."""
    path = checkpoints.path_of(tmp_path, "t001")
    stack = path.with_suffix(checkpoints.HUNG)
    stack.parent.mkdir()
    stack.write_text('  File "mine.py", line 3 in forward\n')
    assert checkpoints.where_it_hung(path) == "mine.py, line 3, in forward"
    with trainable._end_if_hung(stack, None):
        assert checkpoints.where_it_hung(path) == ""


class Killed(Exception):
    """Stands for the end of the trial's process."""


def run(function: TrialFunction, values: dict, settings: Any, splits: Splits, shared: SharedWork | None,
        checkpoint: Checkpoint, die_after: int = 99) -> TrialResult:  # fmt: skip
    """A trial as Tune runs it, without Tune, that dies after so many epochs of its own."""
    epochs = 0

    def on_epoch(row: dict[str, Any]) -> None:
        nonlocal epochs
        checkpoint.write(row)
        epochs += 1
        if epochs == die_after:
            raise Killed

    return function(values, settings_with(settings, values), splits, shared, on_epoch, checkpoint.progress)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return registry.load("digits", None, split_seed=0, size=32)[0]


@pytest.mark.parametrize("case", CASES)
def test_a_trial_goes_on_to_the_same_result(case: str, splits: Splits, tmp_path: Path) -> None:
    """Killed after every single epoch and continued each time by a new process, both stages of every kind of study end
    with the weights, the file, the trace and the epochs of a run without a stop, bit for bit; no epoch is trained
    twice."""
    settings, values = CASES[case]
    settings = resolve(settings)
    method = methods.method(settings.kind)
    shared, trial_data = None, method.trial_data(settings, splits)
    for function, given, seen in ((method.shared_work.run, {}, splits), (method.trial, values, trial_data)):
        complete = Checkpoint.open(tmp_path / "complete.pt", {"stage": function.__name__})
        once = run(function, given, settings, seen, shared, complete)
        for _ in range(len(complete.rows) + 1):
            # As a new process reads it: from the file alone.
            part = Checkpoint.open(tmp_path / "part.pt", {"stage": function.__name__})
            try:
                again = run(function, given, settings, seen, shared, part, die_after=1)
                break
            except Killed:
                continue
        assert part.rows == complete.rows and len(complete.rows) >= 2
        assert once.file == again.file and once.metrics == again.metrics
        assert once.arrays.keys() == again.arrays.keys()
        assert all(np.array_equal(once.arrays[k], again.arrays[k]) for k in once.arrays)
        trace_once, trace_again = complete.progress.trace.arrays(), part.progress.trace.arrays()
        assert trace_once.keys() == trace_again.keys()
        assert all(np.array_equal(trace_once[k], trace_again[k]) for k in trace_once)
        shared = SharedWork(once.arrays, {"metrics": {"val_accuracy": 0.0}})


def test_a_file_of_another_trial_or_a_damaged_one_is_not_read(tmp_path: Path) -> None:
    """A checkpoint is of one configuration; another one, and any cut of the file, begins at the beginning."""
    path = tmp_path / "t001.pt"
    Checkpoint.open(path, {"tau": 0.1}).write({"epoch": 1, "val_accuracy": 50.0})
    assert Checkpoint.open(path, {"tau": 0.1}).rows == [{"epoch": 1, "val_accuracy": 50.0}]
    assert Checkpoint.open(path, {"tau": 0.2}).rows == []
    assert Checkpoint.open(tmp_path / "t002.pt", {}).rows == []
    content = path.read_bytes()
    for end in range(0, len(content), 97):
        path.write_bytes(content[:end])
        assert Checkpoint.open(path, {"tau": 0.1}).rows == [] and checkpoints.rows_of(path) == []


def test_a_checkpoint_that_says_it_is_larger_than_its_file_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch would take as much memory as the archive's table says before it reads a byte. All checksums are right."""
    path, loaded = tmp_path / "t001.pt", []
    Checkpoint.open(path, {"tau": 0.1}).write({"epoch": 1})
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo(f"{archive.namelist()[0].split('/')[0]}/data.pkl").file_size
    content = path.read_bytes()
    entry = content.index(b"PK\x01\x02")
    assert content[entry + 46 :].partition(b"/data.pkl")[0].isalnum()
    assert int.from_bytes(content[entry + 24 : entry + 28], "little") == size
    path.write_bytes(content[: entry + 24] + (2**31).to_bytes(4, "little") + content[entry + 28 :])
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    monkeypatch.setattr(torch, "load", lambda *_, **__: loaded.append(1))
    assert Checkpoint.open(path, {"tau": 0.1}).rows == [] and checkpoints.rows_of(path) == [] and not loaded
    path.write_bytes(content)
    checkpoints.rows_of(path)
    assert loaded


def test_seconds_add_up_over_processes(tmp_path: Path) -> None:
    """A trial has spent what its earlier processes spent, and what this one has."""
    first = Checkpoint.open(tmp_path / "t.pt", {})
    first._since -= 10
    first.write({"epoch": 1})
    second = Checkpoint.open(tmp_path / "t.pt", {})
    assert 10 <= second.seconds <= second.spent < 15


def test_a_trial_goes_on_with_the_threads_it_had(tmp_path: Path) -> None:
    """Rounding differs with their number, so the file keeps it; a trial that has not started has none."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        began = Checkpoint.open(tmp_path / "t.pt", {})
        assert began.threads == 0
        began.write({"epoch": 1})
    finally:
        torch.set_num_threads(before)
    assert Checkpoint.open(tmp_path / "t.pt", {}).threads == 2


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    """A pickle that would run code when loaded is not loaded."""

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path / "ran").touch, ())

    content = {"config": {}, "rows": [Evil()], "seconds": 0.0, "states": [], "trace": {}}
    (tmp_path / "t.pt").write_bytes(pickle.dumps(content, protocol=2))
    assert Checkpoint.open(tmp_path / "t.pt", {}).rows == []
    assert not (tmp_path / "ran").exists()
