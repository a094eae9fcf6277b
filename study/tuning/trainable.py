"""One trial as Ray Tune runs it: a configuration in, reports and files out."""

from __future__ import annotations

import faulthandler
import math
import os
import resource
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from ray import tune

from study.artifacts.cache import SharedWork, write_arrays
from study.artifacts.checkpoints import HUNG, Checkpoint, codebook_of, path_of, weights_of
from study.artifacts.finite import not_finite
from study.artifacts.weight_trace import npz_bytes
from study.data.splits import Splits
from study.errors import TrialFailed
from study.methods import registry
from study.methods.method import TrialFunction, TrialResult, settings_with
from study.records.atomic_files import write_bytes
from study.records.columns import Row
from study.records.paths import trace_of
from study.records.search_domains import Value
from study.settings import Settings
from study.tuning.measuring import with_cost
from study.tuning.node_data import data_here
from study.tuning.repeats import train_with_seeds
from study.tuning.scored_epochs import scored_epochs
from study.tuning.trial_process import TrialProcess, trial_process


def trial_device(settings: Settings) -> torch.device:
    """The device that Ray gave this trial."""
    return torch.device("cuda" if settings.resources.gpus_per_trial and torch.cuda.is_available() else "cpu")


REPORTED = "reported"
"""Of a report to Tune: the names of what the trial itself says in it, with commas. Tune adds its own."""


def plain_values(row: Mapping[str, object]) -> Row:
    """A row with Python's own numbers, text and truth, which checkpoints and tables take; NumPy's are converted.

    Raises:
        TypeError: another value, by its name.
    """
    values = {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}
    for name, value in values.items():
        if not isinstance(value, float | int | str | bool | None):
            raise TypeError(
                f"a trial reported {name} as {type(value).__name__}; report a number, text or a truth value"
            )
    return values


def finite_values(row: Mapping[str, object]) -> Row:
    """`plain_values` of a row whose numbers are all finite.

    Raises:
        TrialFailed: one is not, by its name.
    """
    values = plain_values(row)
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise TrialFailed(f"{name} became {value}")
    return values


class TrialReporter:
    """What one trial reports to Tune, and leaves in the study folder, whoever trains it.

    Args:
        folder: of the study.
        config: of the trial. It goes on from its checkpoint if there is one.
    """

    def __init__(self, folder: Path, config: Mapping[str, Value]) -> None:
        self.folder = folder
        self.values = dict(config)
        """The searched ones."""
        self.trial_id, self.seed = str(self.values.pop("trial_id")), int(str(self.values.pop("seed")))
        self.path = path_of(folder, self.trial_id)
        self.checkpoint = Checkpoint.open(self.path, config)
        self.last: Row = {}

    def _report(self, row: Mapping[str, Value]) -> Row:
        """A row as Tune takes it: with the names of what it has, and the trial's time."""
        return {**row, REPORTED: ",".join(row), "spent": self.checkpoint.spent}

    def reported_rows(self) -> list[Row]:
        """The epochs before the checkpoint, which a new listener has not heard of."""
        for row in self.checkpoint.rows:
            self.last.update(row)
        return [self._report(row) for row in self.checkpoint.rows]

    def epoch(self, row: Row) -> Row | None:
        """An epoch that has ended; None if it was reported before, since a packed trial starts again.

        Raises:
            TrialFailed: a metric is not a finite number.
        """
        row = finite_values(row)
        if self.checkpoint.rows and row["epoch"] <= self.checkpoint.rows[-1]["epoch"]:
            return None
        self.checkpoint.write(row)
        self.last.update(row)
        return self._report(row)

    def failure_report(self, reason: object) -> Row:
        """The last report of a trial that cannot be scored."""
        failure = f"{reason} (after epoch {self.last.get('epoch', 0)})"
        return {"failure": failure, "spent": self.checkpoint.spent}

    def final_report(self, result: TrialResult) -> Row:
        """Writes the trial's files. Only a trial that says it has finished is complete; another was stopped.

        One whose metrics or arrays are not finite has failed, and leaves no file.
        """
        try:
            own = finite_values(result.metrics)
        except TrialFailed as error:
            return self.failure_report(error)
        if problem := not_finite(result.arrays):
            return self.failure_report(problem)
        write_arrays(weights_of(self.path), result.arrays)
        if result.file:
            write_bytes(codebook_of(self.path), result.file)
        if self.checkpoint.progress.trace.frames:
            write_bytes(trace_of(self.folder, self.trial_id), npz_bytes(self.checkpoint.progress.trace.arrays()))
        metrics = {**self.last, **own, "threads": torch.get_num_threads()}
        return {**self._report(metrics), "finished": True}


def make_trainable(run: TrialFunction, name: str) -> Callable[..., None]:
    """Make a Tune trainable of a function that trains a network.

    Args:
        name: of the study, by which Ray's dashboard knows the processes. They run one trial after another; their
            titles and the lines of their logs say which.
    """

    def trainable(
        config: Row,
        settings: Settings,
        folder: Path,
        data: Splits,
        shared: Mapping[int, SharedWork | None],
        working_folder: Path | None = None,
        rungs: Sequence[int] = (),
    ) -> None:
        enter(working_folder)
        with trial_process(name, config) as process:
            train(config, settings, folder, data_here(data, process.show), shared, process, rungs)

    def train(
        config: Row,
        settings: Settings,
        folder: Path,
        data: Splits,
        shared: Mapping[int, SharedWork | None],
        process: TrialProcess,
        rungs: Sequence[int],
    ) -> None:
        reporter = TrialReporter(folder, config)
        values, seed = reporter.values, reporter.seed
        settings = settings_with(settings.changed(seed=seed), values)
        _limit_memory(settings.resources.memory_per_trial)
        torch.set_num_threads(reporter.checkpoint.threads or settings.resources.threads)
        torch.manual_seed(seed)  # the process may have run another trial before
        try:
            with _end_if_hung(reporter.path.with_suffix(HUNG), settings.budget.trial_timeout) as alive:

                def on_epoch(row: Row) -> None:
                    alive()
                    if report := reporter.epoch(row):
                        tune.report(report)
                        process.epoch(row)

                for row in reporter.reported_rows():
                    tune.report(row)
                progress, epochs = reporter.checkpoint.progress, registry.method(settings.kind).epochs(settings)
                progress.is_scored = scored_epochs(epochs, len(data.train), len(data.validation), rungs)
                progress.on_epoch = alive
                data = data.to(trial_device(settings))
                work, before = shared[seed], dict(reporter.last)
                result = train_with_seeds(run, values, settings, data, work, on_epoch, progress, before)
            result = with_cost(result, settings, data)
        except TrialFailed as error:
            tune.report(reporter.failure_report(error))
            return
        tune.report(reporter.final_report(result))

    trainable.__name__ = name
    return trainable


def enter(folder: Path | None) -> None:
    """Work in the folder that the command was given in, where a user's network may open files, if this machine has it;
    Tune has gone to one of its own."""
    if folder and folder.is_dir():
        os.chdir(folder)


@contextmanager
def _end_if_hung(path: Path, seconds: float | None) -> Iterator[Callable[[], None]]:
    """End this process, with its stack in `path`, if what is yielded is not called for so many seconds.

    The watch is a thread of C, which Python code that holds the interpreter for ever cannot stop.
    """
    path.unlink(missing_ok=True)  # an earlier process of this trial may have been taken for hung
    if seconds is None:
        yield lambda: None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:

        def alive() -> None:
            faulthandler.dump_traceback_later(seconds, exit=True, file=file)

        alive()
        try:
            yield alive
        finally:
            faulthandler.cancel_dump_traceback_later()


def _limit_memory(gigabytes: float | None) -> None:
    """Let this process's allocations fail beyond so much, rather than let the machine choose whom to kill."""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (int(gigabytes * 1e9) if gigabytes else most, most))
