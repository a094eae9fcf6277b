"""Runs in Weights & Biases: a project for each kind of study, a group for each study, a run for each trial."""

from __future__ import annotations

import hashlib
import netrc
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.errors import UserError
from study.records.paths import WANDB
from study.tuning.trackers.tracker import StudyFacts

PROJECT = "compression-study"
"""Unless WANDB_PROJECT names another one."""


class WandbRuns:
    """See `Tracker`. Account and server are those of `wandb login`; nothing is sent with `WANDB_MODE=offline`."""

    def __init__(self, study: StudyFacts) -> None:
        """See that there is a key.

        Raises:
            UserError: there is none.
        """
        if os.environ.get("WANDB_MODE", "online") == "online" and not _has_key():
            raise UserError(
                "--track wandb: no account; type wandb login, or set WANDB_API_KEY, or WANDB_MODE=offline to send the "
                "runs later"
            )
        self.study = study
        self.runs: dict[str, Any] = {}

    def start(self, trial_id: str, seed: int, values: Mapping[str, object]) -> None:
        if trial_id in self.runs:  # tried again in this command
            return
        config = {**values, **self.study.tags(trial_id, seed), "seed": seed}
        self.runs[trial_id] = self._run(trial_id, config, [self.study.kind, self.study.dataset, f"seed {seed}"])

    def epoch(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> None:
        run = self.runs[trial_id]
        if epoch >= run.step:  # a trial that continues reports its epochs again
            run.log({**metrics, "epoch": epoch}, step=epoch)

    def end(self, trial_id: str, state: str, metrics: Mapping[str, float], file: bytes | None) -> None:
        import wandb

        run = self.runs.pop(trial_id)
        run.summary.update({**metrics, "state": state})
        if file is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"{trial_id}.codebook"
                path.write_bytes(file)
                artifact = wandb.Artifact(f"{self.study.name}-{_identity(trial_id)}", type="compressed-network")
                artifact.add_file(str(path))
                run.log_artifact(artifact)
                self._finish(run, state)
        else:
            self._finish(run, state)

    def _finish(self, run: Any, state: str) -> None:
        run.finish(exit_code=int(state == "failed"))

    def report(self, page: Path) -> None:
        import wandb

        run = self._run(f"{self.study.name} report", self.study.study_tags(), [self.study.kind, self.study.dataset])
        artifact = wandb.Artifact(f"{self.study.name}-report", type="report")
        artifact.add_file(str(page))
        run.log_artifact(artifact)
        run.finish()

    def close(self) -> None:
        for run in self.runs.values():  # trials that were cut off, and will continue
            run.finish()
        self.runs.clear()

    def _run(self, name: str, config: Mapping[str, object], tags: list[str]) -> Any:
        import wandb

        (self.study.folder / WANDB).mkdir(exist_ok=True)
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=self.study.name,
            name=name,
            id=run_id(self.study.place, name),
            resume="allow",
            reinit="create_new",  # trials run at the same time
            config=dict(config),
            tags=tags,
            dir=str(self.study.folder),
            settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True),
        )


def run_id(place: str, name: str) -> str:
    """The id of a run, which is the same when the trial continues."""
    return _identity(f"{place} {name}")


def _identity(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").partition("://")[2].split("/")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
