"""Runs a study: data, shared work, Ray Tune around the search, and the test of its front.

The ledger (`trials.csv`) decides what is still to do; Tune and Optuna are told, and never restored.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from study import machine  # isort: skip  (first of all: it sets what Ray reads when it is imported)

import ray
from ray import tune
from ray.tune.logger import TBXLoggerCallback
from ray.tune.schedulers import FIFOScheduler

from study import checkpoints, describe, kd, results, search, selection
from study.cache import Shared, read_arrays, remember, write_arrays
from study.confirm import confirm, confirm_fresh
from study.data import Part, Splits
from study.display import Display
from study.errors import NO_SPACE, UserError, no_space
from study.files import write_bytes
from study.halving import Rungs
from study.recorder import FULL_DISK, Recorder
from study.results import Ledger
from study.settings import Common, contradiction
from study.trace import pack
from study.trainables import KINDS, given_weights, trained_network, trial

Queue = list[tuple[str, dict[str, Any], str]]
"""Configurations to run before Optuna is asked: trial id, hyperparameters, baseline's name or ""."""


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: the study's folder, trials in a final state, how many were asked for, and why it
    stopped before them, if it did so by itself."""

    folder: Path
    finished: int
    wanted: int
    stopped: str = ""


class Halving(FIFOScheduler):
    """Successive halving among the searched trials: a baseline is neither stopped nor the measure for others."""

    def __init__(self, rungs: Rungs, baselines: Collection[str]) -> None:
        super().__init__()
        self.rungs, self.baselines = rungs, baselines

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
        trial_id = trial.config["trial_id"]
        reported = "epoch" in result and not result.get("finished") and not result.get("failure")
        if trial_id in self.baselines or not reported or self.rungs.judge(trial_id, result["epoch"], result):
            return str(self.CONTINUE)
        return str(self.STOP)


@dataclass(frozen=True)
class Job:
    """What a stage of a study needs to know: settings, what is searched, its folder, and who hears of its trials."""

    settings: Any
    spaces: Any
    folder: Path
    recorder: Recorder

    @property
    def ledger(self) -> Ledger:
        return self.recorder.ledger


def run(settings: Any) -> Outcome:
    """Bring a study to `settings.num_samples` finished trials, test its front, and say where everything lies.

    Raises:
        UserError: bad settings, a study folder that was begun with other ones, or no space left on the disk.
    """
    spaces = importlib.import_module(f"search_spaces.{settings.kind}")
    folder = settings.folder.resolve()
    recorded = results.read_meta(folder) if (folder / results.STUDY).exists() else None
    if recorded and recorded["kind"] != settings.kind:
        raise UserError(f"--name {folder.name}: that study is of kind {recorded['kind']}; choose another --name")
    if recorded and (difference := contradiction(settings, recorded["settings"])):
        raise UserError(f"{folder} was begun with other settings: {difference}; choose another --name")
    with _locked(folder):
        try:
            ledger = Ledger.open(folder)
            _recover(ledger, folder)
            stopped = ""
            if _whole(ledger, settings, spaces, folder):
                print(
                    f"Nothing to do: {folder} has its {settings.num_samples} trials. "
                    "A larger --num-samples adds to them."
                )
            else:
                stopped = _search(settings, spaces, folder, ledger, bool(recorded))
        except Exception as error:  # Tune wraps those of its callbacks
            if not no_space(error):
                raise
            raise UserError(f"{folder}: {FULL_DISK}, and the same command continues") from error
        return Outcome(folder, len(ledger.of_state(*results.FINAL_STATES)), settings.num_samples, stopped)


def _recover(ledger: Ledger, folder: Path) -> None:
    """Take the history of trials that had just ended, when the last command was cut off, from their checkpoints."""
    for trial_id in [i for i, row in ledger.trials.items() if row["state"] in results.FINAL_STATES]:
        path = checkpoints.path_of(folder, trial_id)
        if not path.exists():
            continue
        row = ledger.trials[trial_id]
        if len(ledger.history.get(trial_id, [])) < row["epochs"]:
            for epoch in checkpoints.rows_of(path)[: int(row["epochs"])]:
                ledger.epoch(trial_id, results.history_row(epoch))
    if ledger.unwritten:
        ledger.flush()
    for trial_id, row in ledger.trials.items():
        if row["state"] in results.FINAL_STATES:
            checkpoints.forget(folder, trial_id)


def _whole(ledger: Ledger, settings: Any, spaces: Any, folder: Path) -> bool:
    """Whether the study is what the command says it shall be."""
    if _missing(ledger, settings, spaces) or not (folder / results.CONFIRMED).exists():
        return False
    return not _unconfirmed(settings, spaces, folder, ledger)


def _missing(ledger: Ledger, settings: Common, spaces: Any) -> int:
    """Trials still to run, baselines included."""
    final = results.FINAL_STATES
    baselines = {KINDS[settings.kind].first, *spaces.BASELINES}
    have = {r["baseline"] for r in ledger.of_state(*final, baseline=True)}
    return max(0, settings.num_samples - len(ledger.of_state(*final))) + len(baselines - have)


def _search(settings: Any, spaces: Any, folder: Path, ledger: Ledger, begun: bool) -> str:
    """All stages of a study; returns why it stopped early, or ""."""
    data, test = describe.load_data(settings)
    # Wrong names, widths and numbers of examples fail here, before anything starts.
    networks, seen = describe.networks(settings, data), KINDS[settings.kind].trial_data(settings, data)
    given = _given(settings, data)
    warm = _warm(settings, spaces)
    dashboard = machine.start_ray(settings)
    try:
        machine.check_shared(folder)
        gpus, concurrent = machine.resources(settings)
        settings = replace(settings, gpus_per_trial=gpus)
        if not begun:
            results.write_meta(folder, describe.meta(settings, spaces, data, test, networks, sys.argv))
        left = max(0, settings.num_samples - len(ledger.of_state(*results.FINAL_STATES)))
        images = f"{len(seen.train):,} training and {len(seen.validation):,} validation images"
        print(f"{folder.name}: {left} trials to run, {concurrent} at a time; {data.title}, {images}")
        for line in machine.addresses(settings, dashboard):
            print(line)
        with Display(ledger, spaces.OBJECTIVES, settings.num_samples, dashboard) as display:
            job = Job(settings, spaces, folder, Recorder(ledger, display, spaces.OBJECTIVES, settings, folder))
            shared = _shared(job, data, given)
            if shared is not None:
                _run_trials(job, seen, shared, warm)
            job.recorder.close()
            best = search.front(ledger, spaces.OBJECTIVES, settings.min_accuracy)
            confirmed: dict[str, dict[str, Any]] = {}
            if _missing(ledger, settings, spaces) == 0:
                confirmed = confirm(settings, folder, ledger, best, data, test)
                _confirm_fresh(job, display, data, test, seen, given)
        display.summary(best[:10], confirmed)
        return job.recorder.stopped
    finally:
        ray.shutdown()


def _shared(job: Job, data: Splits, given: Shared | None) -> Shared | None:
    """Stage one, from the cache or as a trial of its own; None if it was cut off."""
    kind, ledger, folder = KINDS[job.settings.kind], job.ledger, job.folder
    first = _prepared(job, data, given, {job.settings.seed: kind.first}, folder.parent / results.CACHE)
    if first is None:
        return None
    shared = first[job.settings.seed]
    if ledger.trials.get(kind.first, {}).get("state") != "complete":  # it was in the cache
        row = {k: v for k, v in shared.record["metrics"].items() if k not in results.TRIAL_COLUMNS}
        ledger.start(kind.first, {}, kind.first)
        ledger.history[kind.first] = shared.record["history"]
        ledger.finish(kind.first, "complete", "", row, shared.record["metrics"]["seconds"])
        ledger.flush()
    weights = {k: v for k, v in shared.arrays.items() if k != "logits"}
    write_arrays(folder / results.MODELS / f"{kind.first}.safetensors", weights)
    if kind.first == "teacher" and not results.trace_of(folder, kind.first).exists():
        teacher = kd.load(Shared(weights).tensors(), trained_network(job.settings, kind.first), data)
        write_bytes(results.trace_of(folder, kind.first), pack(kd.dark_knowledge(teacher, data)))
    return shared


class _Missing(Exception):
    """A piece of shared work is not in the cache."""


def _prepared(
    job: Job, data: Splits, given: Shared | None, names: Mapping[int, str], cache: Path
) -> dict[int, Shared] | None:
    """The shared work for each of these seeds, from the cache or from trials that run side by side; None if cut off.

    Args:
        names: seed → trial id.
    """
    kind, ledger = KINDS[job.settings.kind], job.ledger

    def take(seed: int) -> Shared:
        """From the trial that did it."""
        row = ledger.trials.get(names[seed], {"state": "running"})
        path = checkpoints.weights_of(checkpoints.path_of(job.folder, names[seed]))
        if row["state"] == "failed":
            raise UserError(f"the {kind.first} could not be trained: {row['reason']}")
        if row["state"] != "complete" or not path.exists():
            raise _Missing
        return Shared(read_arrays(path), {"metrics": row, "history": ledger.history.get(names[seed], [])})

    def collect() -> tuple[dict[int, Shared], list[int]]:
        found, missing = {}, []
        for seed in names:
            key = kind.key(replace(job.settings, seed=seed), data, given)
            try:
                found[seed] = remember(cache, kind.first, key, lambda seed=seed: take(seed))[0]  # type: ignore[misc]
            except _Missing:
                missing.append(seed)
        return found, missing

    found, missing = collect()
    if missing:
        queue: Queue = [
            (names[seed], {} if seed == job.settings.seed else {"seed": seed}, kind.first) for seed in missing
        ]
        parameters = {"data": data, "shared": dict.fromkeys(names, given)}
        _tune(job, kind.prepare, parameters, queue)
        found, missing = collect()
    for seed in names:
        checkpoints.discard(job.folder, names[seed])
    return None if missing else found


def _run_trials(job: Job, data: Splits, shared: Shared, warm: Sequence[dict[str, Any]]) -> None:
    """Stage two: the baselines, the trials that were cut off, another study's front, and then new ones."""
    settings, spaces, ledger = job.settings, job.spaces, job.ledger
    final = results.FINAL_STATES
    queue: Queue = [
        (name, values, name)
        for name, values in spaces.BASELINES.items()
        if ledger.trials.get(name, {}).get("state") not in final
    ]
    left = settings.num_samples - len(ledger.of_state(*final))
    owed = ledger.of_state("running")[: max(0, left)]
    queue += [(r["trial_id"], {k: _typed(k, r[k], spaces) for k in spaces.SPACE}, "") for r in owed]
    known = [{k: r[k] for k in spaces.SPACE} for r in ledger.of_state("running", *final)]
    fresh = [values for values in warm if values not in known][: max(0, left - len(owed))]
    queue += [("", values, "") for values in fresh]
    wanted = max(0, left - len(owed) - len(fresh))
    _tune(job, KINDS[settings.kind].search, {"data": data, "shared": {settings.seed: shared}}, queue, wanted, True)


def _typed(name: str, value: Any, spaces: Any) -> Any:
    return int(value) if isinstance(spaces.SPACE[name], tune.search.sample.Integer) else float(value)


def _warm(settings: Any, spaces: Any) -> list[dict[str, Any]]:
    """Configurations of another study's front, best first, within this one's space."""
    if settings.warm_start is None:
        return []
    other = results.load(settings.warm_start)
    lacking = [k for k in (*spaces.SPACE, *spaces.OBJECTIVES) if k not in other.trials]
    if lacking:
        raise UserError(
            f"--warm-start {settings.warm_start}: a study of kind {other.meta['kind']} without {lacking[0]}; "
            f"give one that searched {', '.join(spaces.SPACE)}"
        )
    ledger = Ledger.open(settings.warm_start)
    members = [ledger.trials[i] for i in search.front(ledger, spaces.OBJECTIVES)]
    found = [{k: _typed(k, row[k], spaces) for k in spaces.SPACE} for row in members]
    domains = search.distributions(spaces.SPACE)
    return [v for v in found if all(domains[k]._contains(domains[k].to_internal_repr(x)) for k, x in v.items())]


def _tune(
    job: Job,
    run: Any,
    parameters: dict[str, Any],
    queue: Queue,
    wanted: int = 0,
    searching: bool = False,
) -> None:
    """One run of Ray Tune over a queue and `wanted` suggestions.

    Args:
        run, parameters: what a trial is, and what it is given beside its configuration, settings and folder.
        searching: among trials that are to be compared, so with the scheduler that the settings name.
    """
    if not queue and not wanted:
        return
    settings, spaces, ledger, objectives = job.settings, job.spaces, job.ledger, job.spaces.OBJECTIVES
    known = len(ledger.of_state("running", *results.FINAL_STATES))  # those that were cut off have been suggested, too
    sampler = search.sampler(settings.searcher, settings.seed, known)
    study = search.study_of(
        ledger,
        spaces.SPACE,
        objectives,
        min_accuracy=settings.min_accuracy,
        storage=search.fresh_journal(job.folder / results.JOURNAL),
        chosen=sampler,
        name=job.folder.name,
    )
    searcher = search.LedgerSearch(
        ledger,
        study,
        spaces.SPACE,
        objectives,
        queue,
        wanted,
        machine.Capacity(settings),
        settings.min_accuracy,
        seed=settings.seed,
    )
    job.recorder.searcher = searcher
    scheduler = None
    if searching and settings.scheduler == "asha":
        epochs = KINDS[settings.kind].epochs(settings)
        # Early on, what quantising would give says little of what it will: tests/benchmarks/search_replay.py.
        rungs = Rungs(objectives, epochs, grace=max(1, epochs // (2 if len(objectives) > 1 else 4)))
        for trial_id, row in ledger.trials.items():
            if not row["baseline"]:
                told = ledger.history.get(trial_id) or checkpoints.rows_of(checkpoints.path_of(job.folder, trial_id))
                rungs.recall(trial_id, told)
        scheduler = Halving(rungs, {name for name, _, baseline in queue if baseline})
    bound = tune.with_parameters(trial(run), settings=settings, folder=job.folder, **parameters)
    tuner = tune.Tuner(
        tune.with_resources(bound, machine.request(settings)),
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
            storage_path=str(job.folder),
            callbacks=[job.recorder, TBXLoggerCallback()],
            failure_config=tune.FailureConfig(max_failures=settings.max_failures),
            verbose=2 if settings.verbose else 0,
        ),
    )
    try:
        tuner.fit()
    except Exception as error:  # Tune trips over its own files when they could not be written
        if ledger.full or job.recorder.stopped == FULL_DISK:
            raise OSError(errno.ENOSPC, NO_SPACE) from error
        raise


def _fresh(settings: Any, spaces: Any, folder: Path, ledger: Ledger) -> dict[str, tuple[str, int]]:
    """Trials of the confirmation that retrains: their id → (the trial or baseline that is retrained, seed)."""
    if not settings.confirm:
        return {}
    what = [*spaces.BASELINES, *selection.to_confirm(results.load(folder), settings.confirm)]
    what = [w for w in what if ledger.trials.get(w, {}).get("state") == "complete"]
    seeds = range(settings.seed + 1, settings.seed + 1 + settings.seeds)
    return {f"{w} seed {seed}": (w, seed) for seed in seeds for w in (KINDS[settings.kind].first, *what)}


def _unconfirmed(settings: Any, spaces: Any, folder: Path, ledger: Ledger) -> bool:
    """Whether a trial that `--confirm` asks for has no row yet."""
    frame = results.read_frame(folder / results.CONFIRMED, results.CONFIRMED_COLUMNS)
    have = set(zip(frame["trial_id"], frame["seed"], strict=True))
    failed = {r["trial_id"] for r in Ledger.open(folder / results.CONFIRM).trials.values() if r["state"] == "failed"}
    wanted = _fresh(settings, spaces, folder, ledger)
    return any(pair not in have for name, pair in wanted.items() if name not in failed)


def _confirm_fresh(job: Job, display: Display, data: Splits, test: Part, seen: Splits, given: Shared | None) -> None:
    """Retrain what the search chose, and the baselines, with fresh seeds from the first stage on, and test each once.

    These trials have a ledger of their own, in a folder of the study's, so that they are continued as others are.
    """
    settings, spaces, ledger, kind = job.settings, job.spaces, job.ledger, KINDS[job.settings.kind]
    wanted = _fresh(settings, spaces, job.folder, ledger)
    folder = job.folder / results.CONFIRM
    if not wanted or not _unconfirmed(settings, spaces, job.folder, ledger):
        return
    folder.mkdir(exist_ok=True)
    own = Ledger.open(folder)
    _recover(own, folder)
    display.say(f"confirming: {len(wanted)} trainings with fresh seeds")
    retrained = Job(settings, spaces, folder, Recorder(own, display, spaces.OBJECTIVES, settings, folder))
    firsts = {seed: name for name, (what, seed) in wanted.items() if what == kind.first}
    shared = _prepared(retrained, data, given, firsts, job.folder.parent / results.CACHE)
    if shared is None:
        return
    queue: Queue = []
    for name, (what, seed) in wanted.items():
        if what == kind.first or own.trials.get(name, {}).get("state") in results.FINAL_STATES:
            continue
        row = ledger.trials[what]
        values = spaces.BASELINES.get(what) or {k: _typed(k, row[k], spaces) for k in spaces.SPACE}
        queue.append((name, {**values, "seed": seed}, what))
    _tune(retrained, kind.search, {"data": seen, "shared": shared}, queue)
    retrained.recorder.close()
    confirm_fresh(settings, job.folder, own, wanted, shared, data, test)


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
