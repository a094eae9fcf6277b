"""What Tune and TensorBoard remember of trials that have ended."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune
from ray.tune.logger import TBXLoggerCallback

from study.tuning import ended_trials, ray_home
from study.tuning.ended_trials import ForgetEndedTrials, forget_closed_writers


class Trial(SimpleNamespace):
    """As much of Tune's as its logger asks for."""

    __hash__ = object.__hash__


class Size(tune.Callback):
    """What Tune remembers after each step."""

    def __init__(self) -> None:
        self.listed: list[int] = []
        self.trials: dict[str, Any] = {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: object) -> None:
        self.listed.append(len(trials))
        self.trials |= {trial.trial_id: trial for trial in trials}


@pytest.fixture
def ray_here() -> Iterator[None]:
    with ray_home.kept_handlers():  # Tune leaves one for SIGINT
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def test_tune_forgets_what_has_ended(ray_here: None, tmp_path: Path) -> None:
    """Its list has those that run, those that wait and the one that ended last; of the others it remembers neither
    reports nor configuration. Tune still ends as it should: every trial has run, failed ones too, and the grid has the
    last."""
    ran = tmp_path / "ran"
    ran.mkdir()

    def trial(config: dict[str, Any]) -> None:
        (ran / str(config["number"])).touch()
        tune.report({"loss": config["number"]})
        if config["number"] == 3:
            raise ValueError("on purpose")

    size = Size()
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space={"number": tune.grid_search(list(range(8)))},
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(tmp_path), callbacks=[ForgetEndedTrials(), size], verbose=0
        ),
    )
    results = tuner.fit()
    assert sorted(path.name for path in ran.iterdir()) == [str(n) for n in range(8)]
    assert len(results) == 1 and results[0].metrics["loss"] == 7
    assert max(size.listed) <= 3 and len(size.trials) == 8
    forgotten = [trial for trial in size.trials.values() if not trial.run_metadata.last_result]
    assert len(forgotten) == 7 and sorted(trial.status for trial in forgotten) == ["ERROR"] + ["TERMINATED"] * 6
    assert all(not trial.config and not trial.run_metadata.metric_analysis for trial in forgotten)
    (state,) = (tmp_path / "tune").glob("experiment_state-*.json")
    assert len(json.loads(state.read_text())["trial_data"]) == 8


def test_a_closed_writer_is_forgotten(tmp_path: Path) -> None:
    """One of a trial that has ended; those that are open are closed as Python ends, with all that was written."""
    forget_closed_writers()
    forget_closed_writers()
    logger = TBXLoggerCallback()
    ended_trials._close_writers()
    trials = []
    for number in range(4):
        if number == 3:
            for trial in trials[:2]:
                logger.log_trial_end(trial)
        folder = tmp_path / str(number)
        folder.mkdir()
        trials.append(
            Trial(local_path=str(folder), init_local_path=lambda: None, evaluated_params={}, trial_id=str(number))
        )
        logger.log_trial_start(trials[-1])
        logger.log_trial_result(1, trials[-1], {"loss": 1.0, "training_iteration": 1, "timesteps_total": 1})
    assert len(ended_trials._OPEN_WRITERS) == 2  # one for each trial that has not ended
    threads = [writer._worker for writer in ended_trials._OPEN_WRITERS]
    logger = None  # Tune's are gone by the time Python ends
    gc.collect()
    ended_trials._close_writers()
    assert not any(thread.is_alive() for thread in threads)
    assert all(path.stat().st_size > 100 for path in tmp_path.glob("*/events*"))
