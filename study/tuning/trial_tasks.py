"""Trials as Ray's dashboard lists them: a task for each, with its name and values, that lasts as long as the trial."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import RayError

from study.tuning.trial_process import set_title, short
from study.tuning.worker.compression_study_worker import LOADS


class TrialFailure(Exception):
    """Why a trial failed, as the dashboard shows it."""


class StudyActor:
    """A process that lists the trials of a study and does nothing else. Its log is that of the study.

    Each trial is a call of `trial` that ends with it, so Ray's page has its start, its end and its state.
    """

    def __init__(self, study: str) -> None:
        self.study = study
        self.ends: dict[str, asyncio.Future[str]] = {}

    def __repr__(self) -> str:
        return self.study

    async def trial(self, trial_id: str, values: str) -> None:
        """Last as long as the trial.

        Raises:
            TrialFailure: it failed.
        """
        print(f"{trial_id}  starts{': ' * bool(values)}{values}", flush=True)
        end = self.ends[trial_id] = asyncio.get_running_loop().create_future()
        self._show()
        if reason := await end:
            raise TrialFailure(reason)

    @ray.method(enable_task_events=False)
    async def end(self, trial_id: str, line: str, failure: str) -> None:
        """A trial has ended."""
        print(f"{trial_id}  {line}", flush=True)
        if end := self.ends.pop(trial_id, None):
            end.set_result(failure)
        self._show()

    def _show(self) -> None:
        set_title(f"ray::{self.study} study: {', '.join(self.ends) or 'no trial'} running")


class TrialTasks:
    """Tells Ray's dashboard of the trials of a study. It waits for nothing, and a study goes on without it.

    Args:
        study: its name.
    """

    def __init__(self, study: str) -> None:
        self.study = study
        self.actor: Any = None
        self.running: dict[str, ObjectRef] = {}

    def start(self, trial_id: str, name: str, values: Mapping[str, Any]) -> None:
        """A trial starts.

        Args:
            name: under which it is listed.
            values: its hyperparameters.
        """
        with contextlib.suppress(RayError):
            if self.actor is None:
                actor = ray.remote(StudyActor).options(
                    num_cpus=0, name=self.study, get_if_exists=True, runtime_env={"env_vars": {LOADS: ""}}
                )
                self.actor = actor.remote(self.study)
            shown = short(values)
            task = self.actor.trial.options(name=f"{self.study} {name}{': ' * bool(shown)}{shown}")
            self.running[trial_id] = task.remote(trial_id, shown)

    def end(self, trial_id: str, state: str, reason: str, seconds: float) -> None:
        """A trial has ended, in this state of the ledger."""
        task = self.running.pop(trial_id, None)
        if task is None:
            return
        line = f"{state} after {seconds:.1f} s{': ' if reason else ''}{reason}"
        with contextlib.suppress(RayError):
            self.actor.end.remote(trial_id, line, reason if state == "failed" else "")
            task.future().add_done_callback(lambda future: future.exception())  # or Ray would print it
