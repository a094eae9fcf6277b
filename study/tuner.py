"""Runs a study: data, shared work, Ray Tune around the search, and the test of its front.

The ledger (`trials.csv`) decides what is still to do; Tune and Optuna are told, and never restored.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study import machine  # isort: skip  (first of all: it sets what Ray reads when it is imported)

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler

from study import describe, kd, results, search
from study.cache import Shared, read_arrays, remember, write_arrays
from study.confirm import confirm
from study.data import Splits
from study.display import Display
from study.errors import UserError
from study.results import COLUMNS, Ledger
from study.settings import Common, contradiction
from study.trainables import ARRAYS, KINDS, given_weights, trained_network

MAX_FAILURES = 2
CACHE = ".cache"

Queue = list[tuple[str, dict[str, Any], str]]
"""Configurations to run before Optuna is asked: trial id, hyperparameters, baseline's name or ""."""


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: the study's folder, trials in a final state, and how many were asked for."""

    folder: Path
    finished: int
    wanted: int


class Asha(AsyncHyperBandScheduler):
    """ASHA among the searched trials: a baseline is neither stopped nor the measure for others."""

    def __init__(self, baselines: Collection[str], **options: Any) -> None:
        super().__init__(**options)
        self.baselines = baselines

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if trial.config["trial_id"] not in self.baselines:
            super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        if trial.config["trial_id"] in self.baselines:
            return str(self.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict) -> None:
        if trial.config["trial_id"] not in self.baselines:
            super().on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        if trial.config["trial_id"] not in self.baselines:
            super().on_trial_remove(tune_controller, trial)


class Recorder(tune.Callback):
    """Writes what Tune's trials report into the ledger, and tells the display."""

    def __init__(self, ledger: Ledger, display: Display, space: dict[str, Any], objectives: dict[str, str]) -> None:
        self.ledger, self.display, self.space, self.objectives = ledger, display, space, objectives
        self.arrays: dict[str, Path] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks; nothing is restored from that

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        if "epoch" in result and not result.get("finished") and not result.get("failure"):
            row = {k: v for k, v in result.items() if k in COLUMNS and k != "trial_id"}
            self.ledger.epoch(trial.config["trial_id"], row)

    def on_checkpoint(self, iteration: int, trials: list, trial: Any, checkpoint: Any, **info: Any) -> None:
        self.arrays[trial.config["trial_id"]] = Path(checkpoint.path) / ARRAYS

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        state, reason = search.outcome(trial.last_result, list(self.objectives), error=False)
        self._end(trial, state, reason)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        self._end(trial, "failed", describe.last_error(trial))

    def _end(self, trial: Any, state: str, reason: str) -> None:
        trial_id, result = trial.config["trial_id"], trial.last_result or {}
        skipped = ("trial_id", "phase", "epoch", "state", "seconds", "epochs", *self.space)
        metrics = {k: v for k, v in result.items() if k in COLUMNS and k not in skipped}
        self.ledger.finish(trial_id, state, reason, metrics, result.get("time_total_s", 0.0))
        self.display.trial_ended(trial_id, len(search.front(self.ledger, self.space, self.objectives)))


def run(settings: Any) -> Outcome:
    """Bring a study to `settings.num_samples` finished trials, test its front once, and say where everything lies.

    Raises:
        UserError: bad settings, or a study folder that was begun with other ones.
    """
    spaces = importlib.import_module(f"search_spaces.{settings.kind}")
    folder = settings.folder.resolve()
    recorded = results.read_meta(folder) if (folder / results.STUDY).exists() else None
    if recorded and recorded["kind"] != settings.kind:
        raise UserError(f"--name {folder.name}: that study is of kind {recorded['kind']}; choose another --name")
    if recorded and (difference := contradiction(settings, recorded["settings"])):
        raise UserError(f"{folder} was begun with other settings: {difference}; choose another --name")
    with _locked(folder):
        ledger = Ledger.open(folder)
        if _missing(ledger, settings, spaces) == 0 and (folder / results.CONFIRMED).exists():
            print(
                f"Nothing to do: {folder} has its {settings.num_samples} trials. A larger --num-samples adds to them."
            )
        else:
            _search(settings, spaces, folder, ledger, bool(recorded))
        return Outcome(folder, len(ledger.of_state(*results.FINAL_STATES)), settings.num_samples)


def _missing(ledger: Ledger, settings: Common, spaces: Any) -> int:
    """Trials still to run, baselines included."""
    final = results.FINAL_STATES
    baselines = {KINDS[settings.kind].first, *spaces.BASELINES}
    have = {r["baseline"] for r in ledger.of_state(*final, baseline=True)}
    return max(0, settings.num_samples - len(ledger.of_state(*final))) + len(baselines - have)


def _search(settings: Any, spaces: Any, folder: Path, ledger: Ledger, begun: bool) -> None:
    data, test = describe.load_data(settings)
    # Wrong names, widths and numbers of examples fail here, before anything starts.
    networks, seen = describe.networks(settings, data), KINDS[settings.kind].trial_data(settings, data)
    given = _given(settings, data)
    dashboard = machine.start_ray(settings)
    try:
        gpus, concurrent = machine.resources(settings)
        settings = type(settings)(**{**vars(settings), "gpus_per_trial": gpus})
        if not begun:
            results.write_meta(folder, describe.meta(settings, spaces, data, test, networks, sys.argv))
        left = max(0, settings.num_samples - len(ledger.of_state(*results.FINAL_STATES)))
        images = f"{len(seen.train):,} training and {len(seen.validation):,} validation images"
        print(f"{folder.name}: {left} trials to run, {concurrent} at a time; {data.title}, {images}")
        if dashboard:
            print(f"Ray dashboard: {dashboard}")
        with Display(ledger, spaces.OBJECTIVES, settings.num_samples, dashboard) as display:
            recorder = Recorder(ledger, display, spaces.SPACE, spaces.OBJECTIVES)
            shared = _shared(settings, spaces, folder, data, given, recorder)
            if shared is not None:
                _run_trials(settings, spaces, folder, seen, shared, recorder, concurrent)
        best = search.front(ledger, spaces.SPACE, spaces.OBJECTIVES)
        whole = _missing(ledger, settings, spaces) == 0
        display.summary(best[:10], confirm(settings, folder, ledger, best, data, test) if whole else {})
    finally:
        ray.shutdown()


def _shared(
    settings: Any, spaces: Any, folder: Path, data: Splits, given: Shared | None, recorder: Recorder
) -> Shared | None:
    """Stage one, from the cache or as a trial of its own; None if it was cut off."""
    kind, ledger = KINDS[settings.kind], recorder.ledger
    models = folder / results.MODELS

    def compute() -> Shared:
        queue: Queue = [(kind.first, {}, kind.first)]
        _tune(settings, spaces, folder, recorder, kind.prepare, {"data": data, "shared": given}, queue, 0, 1, False)
        row = ledger.trials[kind.first]
        if row["state"] == "running":
            raise KeyboardInterrupt
        if row["state"] != "complete":
            raise UserError(f"the {kind.first} could not be trained: {row['reason']}")
        record = {"metrics": row, "history": ledger.history.get(kind.first, [])}
        return Shared(read_arrays(recorder.arrays[kind.first]), record)

    try:
        shared, kept = remember(folder.parent / CACHE, kind.first, kind.key(settings, data, given), compute)
    except KeyboardInterrupt:
        return None
    if kept and ledger.trials.get(kind.first, {}).get("state") != "complete":
        row = {k: v for k, v in shared.record["metrics"].items() if k not in results.TRIAL_COLUMNS}
        ledger.start(kind.first, {}, kind.first)
        ledger.history[kind.first] = shared.record["history"]
        ledger.finish(kind.first, "complete", "", row, shared.record["metrics"]["seconds"])
    weights = {k: v for k, v in shared.arrays.items() if k != "logits"}
    write_arrays(models / f"{kind.first}.safetensors", weights)
    return shared


def _run_trials(
    settings: Any, spaces: Any, folder: Path, data: Splits, shared: Shared, recorder: Recorder, concurrent: int
) -> None:
    kind, ledger = KINDS[settings.kind], recorder.ledger
    final = results.FINAL_STATES
    queue: Queue = [
        (name, values, name)
        for name, values in spaces.BASELINES.items()
        if ledger.trials.get(name, {}).get("state") not in final
    ]
    cut_off = ledger.of_state("running")[: settings.num_samples - len(ledger.of_state(*final))]
    queue += [(r["trial_id"], {k: _typed(k, r[k], spaces) for k in spaces.SPACE}, "") for r in cut_off]
    wanted = settings.num_samples - len(ledger.of_state(*final)) - len(cut_off)
    with_data = {"data": data, "shared": shared}
    asha = settings.scheduler == "asha"
    _tune(settings, spaces, folder, recorder, kind.search, with_data, queue, max(0, wanted), concurrent, asha)


def _typed(name: str, value: Any, spaces: Any) -> Any:
    return int(value) if isinstance(spaces.SPACE[name], tune.search.sample.Integer) else value


def _tune(
    settings: Any,
    spaces: Any,
    folder: Path,
    recorder: Recorder,
    trainable: Any,
    parameters: dict[str, Any],
    queue: Queue,
    wanted: int,
    concurrent: int,
    asha: bool,
) -> None:
    """One run of Ray Tune over a queue and `wanted` suggestions."""
    if not queue and not wanted:
        return
    objectives = spaces.OBJECTIVES
    ledger = recorder.ledger
    sampler = search.sampler(settings.searcher, settings.seed, len(ledger.of_state(*results.FINAL_STATES)))
    storage = search.fresh_journal(folder / results.JOURNAL)
    study = search.study_of(ledger, spaces.SPACE, objectives, storage=storage, chosen=sampler, name=folder.name)
    searcher = search.LedgerSearch(ledger, study, spaces.SPACE, objectives, queue, wanted, concurrent)
    metric, direction = next(iter(objectives.items()))
    epochs = KINDS[settings.kind].epochs(settings)
    scheduler = (
        Asha(
            spaces.BASELINES,
            time_attr="epoch",
            metric=metric,
            mode=direction,
            # One more than there are: reaching the last epoch is finishing, not being stopped.
            max_t=epochs + 1,
            grace_period=max(1, epochs // 4),
            reduction_factor=3,
        )
        if asha
        else None
    )
    bound = tune.with_parameters(trainable, settings=settings, **parameters)
    resources = {"cpu": settings.cpus_per_trial, "gpu": settings.gpus_per_trial}
    tune.Tuner(
        tune.with_resources(bound, resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=len(queue) + wanted,
            reuse_actors=True,
            trial_name_creator=lambda t: results.trial_folder(t.config["trial_id"]),
            trial_dirname_creator=lambda t: results.trial_folder(t.config["trial_id"]),
        ),
        run_config=tune.RunConfig(
            name=results.RAY,
            storage_path=str(folder),
            callbacks=[recorder],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            verbose=2 if settings.verbose else 0,
        ),
    ).fit()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a study folder, so that a second command on it stops instead of writing over the first."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"--results-dir {folder.parent}: cannot write there ({error.strerror})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another command is running this study; wait for it, or choose --name") from None
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [".lock"]:  # bad input: leave nothing behind
                (folder / ".lock").unlink()
                folder.rmdir()


def _given(settings: Any, data: Splits) -> Shared | None:
    path = getattr(settings, "teacher_checkpoint", None)
    if path is None:
        return None
    try:
        given = given_weights(path)
        kd.load(given.tensors(), trained_network(settings, "teacher"), data)
    except Exception as error:  # torch and safetensors raise many kinds for one cause: not these weights
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--teacher-checkpoint {path}: not weights of {settings.teacher} here ({reason})") from error
    return given
