"""Runs a study: data, shared work, Ray Tune around the search, and the test of its front.

The ledger (`trials.csv`) decides what is still to do; Tune and Optuna are told, and never restored.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import logging
import os
import shutil
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before Ray is imported: it reads these then, and its own tables would write over the display.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import pandas as pd
import ray
import torch
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler
from safetensors import safe_open

from study import data as datasets
from study import describe, kd, results, search
from study.cache import Shared, remember
from study.data import Part, Splits
from study.display import Display
from study.errors import UserError
from study.results import COLUMNS, Ledger
from study.settings import Common, contradiction
from study.trainables import ARRAYS, KINDS, given_weights, least_size, trained_network
from study.training import evaluate

MAX_FAILURES = 2
CACHE = ".cache"


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
            print(f"Nothing to do: {folder} has its {settings.num_samples} trials. A larger --num-samples adds to them.")
        else:
            _search(settings, spaces, folder, ledger, bool(recorded))
        return Outcome(folder, len(ledger.of_state(*results.FINAL_STATES)), settings.num_samples)


def load_data(settings: Common) -> tuple[Splits, Part]:
    """The study's data set: what the search may see, and the test part for confirmation alone."""
    folder = settings.data_dir or (None if settings.dataset in ("digits", "folder") else _default_data_dir())
    return datasets.load(settings.dataset, folder, split_seed=settings.seed, size=least_size(settings))


def _default_data_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "compression-study"


def _missing(ledger: Ledger, settings: Common, spaces: Any) -> int:
    """Trials still to run, baselines included."""
    final = results.FINAL_STATES
    baselines = {KINDS[settings.kind].first, *spaces.BASELINES}
    have = {r["baseline"] for r in ledger.of_state(*final, baseline=True)}
    return max(0, settings.num_samples - len(ledger.of_state(*final))) + len(baselines - have)


def _search(settings: Any, spaces: Any, folder: Path, ledger: Ledger, begun: bool) -> None:
    data, test = load_data(settings)
    networks = describe.networks(settings, data)  # a wrong name or width fails here, before anything starts
    given = _given(settings)
    dashboard = _start_ray(settings)
    try:
        gpus, concurrent = _resources(settings)
        settings = type(settings)(**{**vars(settings), "gpus_per_trial": gpus})
        if not begun:
            results.write_meta(folder, describe.meta(settings, spaces, data, test, networks, sys.argv))
        left = max(0, settings.num_samples - len(ledger.of_state(*results.FINAL_STATES)))
        print(f"{folder.name}: {left} trials to run, {concurrent} at a time; {data.title}, {len(data.train):,} training "
              f"and {len(data.validation):,} validation images")  # fmt: skip
        if dashboard:
            print(f"Ray dashboard: {dashboard}")
        with Display(ledger, spaces.OBJECTIVES, settings.num_samples, dashboard) as display:
            recorder = Recorder(ledger, display, spaces.SPACE, spaces.OBJECTIVES)
            shared = _shared(settings, spaces, folder, data, given, recorder)
            if shared is not None:
                _run_trials(settings, spaces, folder, data, shared, recorder, concurrent)
        _confirm(settings, spaces, folder, ledger, data, test, recorder, display)
    finally:
        ray.shutdown()


def _shared(
    settings: Any, spaces: Any, folder: Path, data: Splits, given: Shared | None, recorder: Recorder
) -> Shared | None:
    """Stage one, from the cache or as a trial of its own; None if it was cut off."""
    kind, ledger = KINDS[settings.kind], recorder.ledger
    models = folder / results.MODELS

    def compute() -> Shared:
        queue = [(kind.first, {}, kind.first)]
        _tune(settings, spaces, folder, recorder, kind.prepare, {"data": data, "shared": given}, queue, 0, 1, False)
        row = ledger.trials[kind.first]
        if row["state"] == "running":
            raise KeyboardInterrupt
        if row["state"] != "complete":
            raise UserError(f"the {kind.first} could not be trained: {row['reason']}")
        record = {"metrics": row, "history": ledger.history.get(kind.first, [])}
        return Shared(_read_arrays(recorder.arrays[kind.first]), record)

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
    _write_arrays(models / f"{kind.first}.safetensors", weights)
    return shared


def _run_trials(
    settings: Any, spaces: Any, folder: Path, data: Splits, shared: Shared, recorder: Recorder, concurrent: int
) -> None:
    kind, ledger = KINDS[settings.kind], recorder.ledger
    final = results.FINAL_STATES
    queue = [
        (name, values, name)
        for name, values in spaces.BASELINES.items()
        if ledger.trials.get(name, {}).get("state") not in final
    ]
    cut_off = ledger.of_state("running")
    queue += [(r["trial_id"], {k: _typed(k, r[k], spaces) for k in spaces.SPACE}, "") for r in cut_off]
    wanted = settings.num_samples - len(ledger.of_state(*final)) - len(cut_off)
    with_data = {"data": kind.trial_data(settings, data), "shared": shared}
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
    queue: list[tuple[str, dict[str, Any], str]],
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
            trial_name_creator=lambda t: str(t.config["trial_id"]).replace(" ", "-"),
            trial_dirname_creator=lambda t: str(t.config["trial_id"]).replace(" ", "-"),
        ),
        run_config=tune.RunConfig(
            name=results.RAY,
            storage_path=str(folder),
            callbacks=[recorder],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            verbose=2 if settings.verbose else 0,
        ),
    ).fit()


def _confirm(
    settings: Any, spaces: Any, folder: Path, ledger: Ledger, data: Splits, test: Part, recorder: Recorder, display: Display
) -> None:
    """Evaluate every baseline and every member of the front on the test part, once each, and keep their weights."""
    best = search.front(ledger, spaces.SPACE, spaces.OBJECTIVES)
    baselines = [r["trial_id"] for r in ledger.of_state("complete", baseline=True)]
    models = folder / results.MODELS
    rows = results.read_frame(folder / results.CONFIRMED, results.CONFIRMED_COLUMNS).to_dict("records")
    for trial_id in (*baselines, *best):
        path, row = models / f"{trial_id}.safetensors", ledger.trials[trial_id]
        source = recorder.arrays.get(trial_id, folder / results.RAY / trial_id.replace(" ", "-") / ARRAYS)
        if not path.exists():
            if not source.exists():
                found = sorted((folder / results.RAY / trial_id.replace(" ", "-")).glob(f"checkpoint_*/{ARRAYS}"))
                if not found:
                    continue
                source = found[-1]
            _write_arrays(path, _read_arrays(source))
        if trial_id in {r["trial_id"] for r in rows}:
            continue
        training = trained_network(settings.kind, settings, row["baseline"], data)
        network = kd.load(Shared(_read_arrays(path)).tensors(), training, data)
        score = evaluate(network, test, data)
        known = {k: v for k, v in row.items() if k in COLUMNS and k not in ("state", "reason", "seconds", "epochs")}
        rows.append({**known, "seed": settings.seed, "test_accuracy": score.accuracy, "test_loss": score.loss})
    if rows and not _missing(ledger, settings, spaces):
        results.write_frame(folder / results.CONFIRMED, pd.DataFrame(rows))
        for checkpoint in (folder / results.RAY).glob("*/checkpoint_*"):  # what is worth keeping is in models/
            shutil.rmtree(checkpoint, ignore_errors=True)
    display.summary(best[:10], {r["trial_id"]: r for r in rows})


def _given(settings: Any) -> Shared | None:
    path = getattr(settings, "teacher_checkpoint", None)
    if path is None:
        return None
    try:
        given = given_weights(path)
        kd.load(given.tensors(), trained_network("kd", settings, "teacher", load_data(settings)[0]), load_data(settings)[0])
        return given
    except Exception as error:  # torch and safetensors raise many kinds for one cause: not these weights
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--teacher-checkpoint {path}: not weights of this teacher ({reason})") from error


def _read_arrays(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a safetensors file, not a dict)


def _write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    save_file(arrays, beside)
    beside.replace(path)


def _start_ray(settings: Common) -> str:
    """Join or start Ray; returns the dashboard's address, or ""."""
    quiet = not settings.verbose
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR if quiet else logging.INFO)
    local: dict[str, Any] = {"include_dashboard": settings.dashboard, "dashboard_host": "127.0.0.1"}
    try:
        context = ray.init(
            address=settings.address or "local",
            log_to_driver=not quiet,
            logging_level="error" if quiet else "info",
            configure_logging=True,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}},
            **({} if settings.address else local),
        )
    except (ConnectionError, ValueError, TimeoutError) as error:
        raise UserError(f"--address {settings.address}: no Ray cluster answers there ({str(error).splitlines()[0]})") from error
    url = getattr(context, "dashboard_url", "")
    return f"http://{url}" if settings.dashboard and url else ""


def _resources(settings: Common) -> tuple[float, int]:
    """GPUs of each trial, and trials at one time. Refuses what no node can hold, which Ray would wait for."""
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    has_gpu = any(n.get("GPU", 0) for n in nodes)
    gpus = settings.gpus_per_trial if settings.gpus_per_trial is not None else (0.25 if has_gpu else 0.0)
    cpus = settings.cpus_per_trial
    if gpus and not has_gpu:
        raise UserError(f"--gpus-per-trial {gpus:g}: there is no GPU here; leave the flag out, or give 0")
    if cpus > max(n.get("CPU", 0) for n in nodes):
        most = max(n.get("CPU", 0) for n in nodes)
        raise UserError(f"--cpus-per-trial {cpus:g}: the largest machine has {most:g} CPUs; give that or less")
    if gpus > max(n.get("GPU", 0) for n in nodes) or (gpus > 1 and gpus != int(gpus)):
        raise UserError(f"--gpus-per-trial {gpus:g}: give a fraction of one GPU, or a whole number that a machine has")
    held = sum(
        min(int(n.get("CPU", 0) / cpus + 1e-9), int(n.get("GPU", 0) / gpus + 1e-9) if gpus else sys.maxsize) for n in nodes
    )
    if held < 1:
        raise UserError(f"--cpus-per-trial {cpus:g} --gpus-per-trial {gpus:g}: no machine holds both together")
    return gpus, min(held, settings.max_concurrent or held)


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
        yield


def dry_run(settings: Any) -> None:
    """Print what would run, and its cost from one timed step; starts no Ray and writes nothing."""
    data, _ = load_data(settings)
    kind = KINDS[settings.kind]
    spaces = importlib.import_module(f"search_spaces.{settings.kind}")
    print(f"{settings.folder}: {settings.num_samples} trials and {1 + len(spaces.BASELINES)} baselines, data {data.title}")
    for role, network in describe.networks(settings, data).items():
        print(f"  {role}: {network['name']}, {network['parameters']:,} parameters")
    seen = kind.trial_data(settings, data)
    training = kind.networks(settings)["student" if settings.kind == "kd" else "network"]
    seconds, epochs = describe.timed_epoch(training, seen), kind.epochs(settings)
    at_once = settings.max_concurrent or max(1, int((os.cpu_count() or 1) / settings.cpus_per_trial))
    minutes = seconds * epochs * (settings.num_samples + len(spaces.BASELINES)) / at_once / 60
    print(f"  {settings.num_samples} trials × {epochs} epochs, {at_once} at a time: at most about {minutes:.1f} minutes")
    print(f"  (one plain training step timed on this CPU, {torch.get_num_threads()} thread; without the shared "
          f"{kind.first}, the mixture prior, and what the scheduler saves)")  # fmt: skip
