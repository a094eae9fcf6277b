"""Work that a stage shares, without Ray running."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from study.artifacts import checkpoints
from study.artifacts.cache import write_arrays
from study.data import registry
from study.errors import UserError
from study.methods.sws.settings import SWSSettings
from study.pipeline import shared_work
from study.pipeline.shared_work import load_or_train
from study.records import columns, paths, study_folder
from study.records.ledger import Ledger
from study.settings import resolve
from study.tuning import cluster
from study.tuning.searcher import Queued
from study.tuning.space import SearchSpace
from study.tuning.tune_run import Job, Work, recover_history


@pytest.fixture
def fates(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How the shared work ends, each time it is tried: a reason to fail, or "" for a network."""
    fates: list[str] = []

    def run_trials(job: Job, work: Work, queue: Sequence[Queued]) -> bool:
        for name, values, baseline in queue:
            reason = fates.pop(0)
            job.ledger.start(name, values, baseline)
            job.ledger.epoch(name, {"epoch": 1, "phase": "train"})
            job.ledger.finish(name, "failed" if reason else "complete", reason, {"val_accuracy": 90.0})
            if not reason:
                path = checkpoints.weights_of(checkpoints.path_of(job.folder, name))
                write_arrays(path, {"w": np.zeros(2)})
        job.ledger.flush()
        return True

    monkeypatch.setattr(shared_work, "run_trials", run_trials)
    monkeypatch.setattr(cluster, "for_shared_work", lambda settings, trainings: settings)
    return fates


def test_shared_work_that_failed_is_tried_again(tmp_path: Path, fates: list[str]) -> None:
    """A command whose shared work failed ends with its reason; the next one tries again, and what it then leaves is
    one row and one history, those of the attempt that succeeded."""
    fates += ["out of memory", "out of memory still", ""]
    folder, splits = tmp_path / "stuck", registry.load("digits", None)[0]

    def command() -> Any:
        ledger = Ledger.open(folder)
        recover_history(ledger, folder)
        job = Job(resolve(SWSSettings()), SearchSpace.load("sws"), folder, SimpleNamespace(ledger=ledger))  # type: ignore[arg-type]
        return load_or_train(job, splits, None, {0: "uncompressed"}, tmp_path / paths.CACHE)

    for reason in ("out of memory", "out of memory still"):
        with pytest.raises(
            UserError, match=f"^training the uncompressed network failed: {reason}; the same command tries again$"
        ):
            command()
        assert list(study_folder.read_frame(folder / paths.TRIALS, ["reason"])["reason"]) == [reason]
    shared = command()
    assert list(shared[0].arrays) == ["w"] and not fates
    trials = study_folder.read_frame(folder / paths.TRIALS, columns.TRIAL_COLUMNS)
    assert trials[["trial_id", "state", "reason"]].values.tolist() == [["uncompressed", "complete", ""]]
    assert len(study_folder.read_frame(folder / paths.HISTORY, columns.HISTORY_COLUMNS)) == 1


def test_shared_work_cut_off_before_it_starts_is_not_said_to_have_failed(
    tmp_path: Path, fates: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ctrl-C a failure of an earlier command is not reported again as if it had happened now."""
    ledger = Ledger(tmp_path)
    ledger.start("uncompressed", {}, "uncompressed")
    ledger.finish("uncompressed", "failed", "out of memory")
    monkeypatch.setattr(shared_work, "run_trials", lambda *arguments: False)
    job = Job(resolve(SWSSettings()), SearchSpace.load("sws"), tmp_path, SimpleNamespace(ledger=ledger))  # type: ignore[arg-type]
    splits = registry.load("digits", None)[0]
    assert load_or_train(job, splits, None, {0: "uncompressed"}, tmp_path / paths.CACHE) is None
    assert ledger.trials["uncompressed"]["state"] == "running"
