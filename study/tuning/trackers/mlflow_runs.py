"""Runs in MLflow: an experiment for each study's name, a run for each trial."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from study.errors import UserError, one_line
from study.tuning.trackers.tracker import StudyFacts

STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
"""State of a trial → MLflow's status of a run."""
EPOCH = "epoch"
"""Metric by which a run that continues knows what it has."""
_VARIABLES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # by default a server that is gone is asked for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines for each trial, into the display
}


class MLflowRuns:
    """See `Tracker`. The server is that of `MLFLOW_TRACKING_URI`."""

    def __init__(self, study: StudyFacts) -> None:
        """Find or make the experiment.

        Raises:
            UserError: the server does not answer.
        """
        for name, value in _VARIABLES.items():
            os.environ.setdefault(name, value)
        import mlflow
        from mlflow.tracking import MlflowClient

        self.study = study
        self.runs: dict[str, str] = {}
        self.epochs: dict[str, int] = {}
        try:
            self.client = MlflowClient()
            experiment = self.client.get_experiment_by_name(study.name)
            self.experiment = experiment.experiment_id if experiment else self.client.create_experiment(study.name)
            # Once: to ask for each trial would take longer the more there are.
            self.earlier = self.client.search_runs(
                [self.experiment], order_by=["attributes.start_time ASC"], max_results=50_000
            )
        except Exception as error:  # MLflow, requests and its stores raise many kinds
            raise UserError(
                f"--track mlflow: {mlflow.get_tracking_uri()} does not answer ({one_line(error)}); set "
                "MLFLOW_TRACKING_URI to a server, as mlflow server starts one"
            ) from error

    def start(self, trial_id: str, seed: int, values: Mapping[str, object]) -> None:
        if trial_id in self.runs:  # tried again in this command
            self.client.update_run(self.runs[trial_id], status="RUNNING")
            return
        tags = self.study.tags(trial_id, seed)
        run = self._find(tags)
        if run is None:
            run = self.client.create_run(self.experiment, tags=tags, run_name=trial_id)
            for name, value in {**values, "seed": seed}.items():
                self.client.log_param(run.info.run_id, name, value)
        self.runs[trial_id] = run.info.run_id
        self.epochs[trial_id] = int(run.data.metrics.get(EPOCH, 0))
        self.client.update_run(run.info.run_id, status="RUNNING")

    def epoch(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> None:
        if epoch > self.epochs[trial_id]:
            self._log(trial_id, {**metrics, EPOCH: epoch}, epoch)
            self.epochs[trial_id] = epoch

    def end(self, trial_id: str, state: str, metrics: Mapping[str, float], file: bytes | None) -> None:
        run = self.runs[trial_id]
        logged = self.client.get_run(run).data.metrics
        changed = {name: value for name, value in metrics.items() if logged.get(name) != value}
        self._log(trial_id, changed, self.epochs[trial_id])
        if file is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"{trial_id}.codebook"
                path.write_bytes(file)
                self.client.log_artifact(run, str(path))
        self.client.set_tag(run, "state", state)
        self.client.set_terminated(run, STATUS[state])

    def report(self, page: Path) -> None:
        tags = {**self.study.study_tags(), "trial_id": ""}
        run = self._find(tags) or self.client.create_run(
            self.experiment, tags=tags, run_name=f"{self.study.name} report"
        )
        self.client.log_artifact(run.info.run_id, str(page))
        self.client.set_terminated(run.info.run_id)

    def close(self) -> None:
        pass

    def _find(self, tags: Mapping[str, str]):  # type: ignore[no-untyped-def]
        """The run that has these tags, if an earlier command has made it."""
        return next((run for run in self.earlier if all(run.data.tags.get(k) == v for k, v in tags.items())), None)

    def _log(self, trial_id: str, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        batch = [Metric(name, value, now, step) for name, value in metrics.items()]
        if batch:
            self.client.log_batch(self.runs[trial_id], metrics=batch)
