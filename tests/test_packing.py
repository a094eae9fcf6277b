"""A study whose trials are packed is the study without, and survives what happens to its packs."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from study import packing, results, tuner
from study.errors import UserError
from study.settings import SWS, resolve


def settings(folder: Path, **changes: Any) -> SWS:
    small: dict[str, Any] = {"epochs": 3, "pretrain_epochs": 5, "codebook_epochs": 1, "batch_size": 64}
    common: dict[str, Any] = {"searcher": "random", "dashboard": False, "results_dir": folder, "num_samples": 3}
    return resolve(SWS(**small | common | changes))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of packed trials."""
    folder = tmp_path_factory.mktemp("packed")
    outcome = tuner.run(settings(folder, pack=4))
    assert outcome.whole
    return outcome.folder


def test_trials_are_those_of_an_unpacked_study(packed: Path, tmp_path: Path) -> None:
    """The same configurations, states and epochs, and results that differ by rounding alone."""
    plain = results.load(tuner.run(settings(tmp_path)).folder)
    both = [s.trials.set_index("trial_id").sort_index() for s in (results.load(packed), plain)]
    ours, theirs = (t.sort_values(["baseline", "tau"]).reset_index() for t in both)
    for column in ("state", "baseline", "components", "epochs"):
        assert ours[column].astype(str).tolist() == theirs[column].astype(str).tolist()
    for column, off in (("tau", 1e-12), ("val_accuracy", 3.0), ("sparsity", 0.3)):
        assert ours[column].fillna(0).tolist() == pytest.approx(theirs[column].fillna(0).tolist(), abs=off)


def test_a_packed_study_leaves_the_same_files(packed: Path) -> None:
    """Each epoch is told once, in order, and the front has weights, a compressed file and a trace."""
    study = results.load(packed)
    for _, rows in study.history.groupby("trial_id"):
        assert rows["epoch"].tolist() == list(range(1, len(rows) + 1))
    tested = study.confirmed["trial_id"].unique()
    assert len(tested) >= 2
    for trial_id in tested:
        assert (packed / results.MODELS / f"{trial_id}.safetensors").exists()
        if trial_id != "uncompressed":
            assert (packed / results.MODELS / f"{trial_id}.codebook").exists()
            assert results.trace_of(packed, trial_id).exists()
    assert not list((packed / "checkpoints").glob("*.pt"))


def test_a_pack_that_is_killed_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the process that trains the pack dies, its trials are tried again and every epoch is recorded once."""
    killed: list[int] = []
    make = packing.packers

    def dying(*arguments: Any, **others: Any) -> list[Any]:
        found = make(*arguments, **others)
        pid = ray.get(found[0].__ray_call__.remote(lambda self: os.getpid()))
        checkpoints = tmp_path / "sws-digits" / "checkpoints"

        def kill() -> None:
            while not list(checkpoints.glob("t*.pt")):
                time.sleep(0.02)
            killed.append(pid)
            psutil.Process(pid).send_signal(signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
        return found

    monkeypatch.setattr(packing, "packers", dying)
    outcome = tuner.run(settings(tmp_path, pack=4, epochs=40))
    assert killed and outcome.whole
    study = results.load(outcome.folder)
    assert set(study.trials["state"]) == {"complete"}
    for _, rows in study.history.groupby("trial_id"):
        assert rows["epoch"].tolist() == list(range(1, len(rows) + 1))


def test_what_cannot_be_packed_is_refused_by_its_flag(tmp_path: Path) -> None:
    """One line that names both flags."""
    for changes, flag in (({"merge": 0.5}, "--merge"), ({"layer_scales": True}, "--layer-scales")):
        with pytest.raises(UserError, match=f"--pack 2: {flag} cannot be packed"):
            settings(tmp_path, pack=2, **changes)
    with pytest.raises(UserError, match="--pack 0"):
        settings(tmp_path, pack=0)
