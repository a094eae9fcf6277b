"""Files for TensorBoard, with the hyperparameters that its HParams tab shows: a folder for each trial."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study.records.paths import TENSORBOARD, trial_folder
from study.tuning.trackers.tracker import StudyFacts


class TensorBoardFiles:
    """See `Tracker`. TensorBoard has no place for files: it is given the names of the compressed ones as a text."""

    def __init__(self, study: StudyFacts) -> None:
        self.study = study
        self.writers: dict[str, Any] = {}
        self.values: dict[str, dict[str, object]] = {}
        self.epochs: dict[str, int] = {}

    def start(self, trial_id: str, seed: int, values: Mapping[str, object]) -> None:
        from tensorboardX import SummaryWriter

        folder = self.study.folder / TENSORBOARD / trial_folder(trial_id)
        if trial_id in self.writers:
            self.writers.pop(trial_id).close()
        shutil.rmtree(folder, ignore_errors=True)  # a trial that continues reports its epochs again
        self.writers[trial_id] = writer = SummaryWriter(str(folder), flush_secs=10)
        tags = self.study.tags(trial_id, seed)
        self.values[trial_id] = {**values, "seed": seed, "kind": self.study.kind, "dataset": self.study.dataset}
        self.epochs[trial_id] = 0
        writer.add_text("tags", "\n\n".join(f"{name}: {value}" for name, value in tags.items()), 0)

    def epoch(self, trial_id: str, epoch: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.writers[trial_id].add_scalar(name, value, epoch)
        self.epochs[trial_id] = epoch

    def end(self, trial_id: str, state: str, metrics: Mapping[str, float], file: bytes | None) -> None:
        from tensorboardX.summary import hparams

        writer, epoch = self.writers.pop(trial_id), self.epochs.pop(trial_id)
        values = {
            name: v if isinstance(v, bool | int | float) else str(v) for name, v in self.values.pop(trial_id).items()
        }
        for name, value in metrics.items():  # HParams shows scalars of the same names
            writer.add_scalar(name, value, epoch)
        for summary in hparams(hparam_dict=values, metric_dict=dict(metrics)):
            writer.file_writer.add_summary(summary)
        text = f"{state}; {len(file)} bytes in {trial_id}.codebook" if file is not None else state
        writer.add_text("end", text, epoch)
        writer.close()

    def report(self, page: Path) -> None:
        from tensorboardX import SummaryWriter

        folder = self.study.folder / TENSORBOARD / "report"
        shutil.rmtree(folder, ignore_errors=True)
        writer = SummaryWriter(str(folder))
        writer.add_text("report", f"{self.study.place}/{page.name}", 0)
        writer.close()

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()
        self.writers.clear()
