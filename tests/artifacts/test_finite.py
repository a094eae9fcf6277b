"""A NaN is told by its name where it comes in, and a trial that has one has failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from study.artifacts.cache import SharedWork, get, get_or_compute, write_arrays
from study.artifacts.checkpoints import codebook_of, path_of, weights_of
from study.artifacts.finite import not_finite
from study.data import registry
from study.errors import TrialFailed, UserError
from study.methods.kd import method
from study.methods.kd.settings import KDSettings
from study.methods.method import TrialResult
from study.models.state import tensors_of
from study.pipeline.initial_weights import load_initial_weights
from study.settings import resolve
from study.training.network import build_network
from study.tuning.trainable import TrialReporter


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.0, np.nan], "1 of the 2 numbers in w is NaN or infinite"),
        ([np.inf, -np.inf], "2 of the 2 numbers in w are NaN or infinite"),
        ([1.0, -np.inf], "1 of the 2 numbers in w is NaN or infinite"),
        ([0.0, -np.inf], ""),  # an attention mask
        ([1.0, 3e38], ""),
    ],
)
def test_an_array_that_is_not_finite_is_named(values: list[float], said: str) -> None:
    """With how many of its numbers are not; integers, empty arrays and masks are finite."""
    others = {"n": np.arange(3), "none": np.zeros(0), "yes": np.ones(2, bool)}
    assert not_finite({**others, "w": np.array(values, np.float32)}) == said


def reporter(folder: Path) -> TrialReporter:
    return TrialReporter(folder, {"trial_id": "t001", "seed": 0})


def test_an_epochs_metric_that_is_no_number_ends_the_trial(tmp_path: Path) -> None:
    """By its name, in that epoch, and nothing of it is stored."""
    trial = reporter(tmp_path)
    assert trial.epoch({"epoch": 1, "val_loss": 1.0})
    with pytest.raises(TrialFailed, match="^val_loss became nan$"):
        trial.epoch({"epoch": 2, "val_loss": np.float32("nan")})
    assert len(trial.checkpoint.rows) == 1


@pytest.mark.parametrize(
    ("metrics", "arrays", "said"),
    [
        ({"val_accuracy": float("nan")}, {}, "val_accuracy became nan"),
        ({"sparsity": float("inf")}, {}, "sparsity became inf"),
        ({"val_accuracy": 50.0}, {"1.running_var": [np.nan]}, "1 of the 1 numbers in 1.running_var is NaN or infinite"),
    ],
)
def test_a_result_that_is_not_finite_is_no_result(tmp_path: Path, metrics: Any, arrays: Any, said: str) -> None:
    """The trial has failed, with the name of the metric or the tensor, and leaves neither weights nor a file."""
    trial = reporter(tmp_path)
    trial.epoch({"epoch": 1, "val_loss": 1.0})
    report = trial.final_report(TrialResult(metrics, {k: np.array(v, np.float32) for k, v in arrays.items()}, b"file"))
    assert report["failure"] == f"{said} (after epoch 1)" and "finished" not in report
    checkpoint = path_of(tmp_path, "t001")
    assert not weights_of(checkpoint).exists() and not codebook_of(checkpoint).exists()


def test_shared_work_that_is_not_finite_is_neither_stored_nor_found(tmp_path: Path) -> None:
    """A file of the cache that an older version wrote counts as missing."""
    bad = {"w": np.array([np.nan], np.float32)}
    with pytest.raises(TrialFailed, match="numbers in w"):
        get_or_compute(tmp_path, "teacher", {}, lambda: SharedWork(bad))
    assert not list(tmp_path.iterdir())
    write_arrays(tmp_path / "teacher-key.safetensors", bad, {"key": "{}", "record": "{}"})
    assert get(tmp_path, "teacher", "key") is None


def test_a_teacher_with_a_nan_is_refused(tmp_path: Path) -> None:
    """By its flag, its file and the tensor's name, batch-norm's statistics included; one that is finite is taken."""
    path = tmp_path / "teacher.safetensors"
    settings = resolve(KDSettings.of(teacher_checkpoint=path))
    data, _ = registry.load("digits", None, size=32)
    state = {k: v.clone() for k, v in tensors_of(build_network(method.teacher_training(settings), data)).items()}
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    assert load_initial_weights(settings, data) is not None
    state["1.running_mean"][0] = torch.nan
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    with pytest.raises(UserError, match=rf"^--teacher-checkpoint {path}: 1 of the .* in 1.running_mean is NaN"):
        load_initial_weights(settings, data)
