"""Retrain one finished trial of a study, and say whether it comes out as it did: `python -m study.reproduce`.

Runs in this process, without Ray. The shared work (teacher, pretrained network) comes from the cache next to the study
folder if it is there, and is done again otherwise.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from study import commandline
from study.errors import TrialFailed, UserError, printable
from study.methods import registry
from study.path_arguments import Folder, StudyFolder
from study.records import paths, study_folder
from study.records.columns import COST_COLUMNS, Row
from study.records.search_domains import domain_from_json, is_active
from study.records.study_folder import Study
from study.settings import Settings, Values, check_bounds, check_types, from_json

if TYPE_CHECKING:
    from study.artifacts.cache import SharedWork
    from study.data.splits import Splits
    from study.methods.method import TrialFunction

PROG = "python -m study.reproduce"


@dataclass(frozen=True)
class Options:
    """Retrain one trial of a study and compare its metrics with the recorded ones."""

    folder: Annotated[tyro.conf.Positional[StudyFolder], tyro.conf.arg(metavar="results/NAME")]
    """Folder of the study."""
    trial_id: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TRIAL")]
    """A complete trial, such as t014, or a baseline's name."""
    data_dir: Folder | None = None
    """Where the data set lies. Default: where the study had it."""
    tolerance: float = 0.0
    """Difference that a metric may have, in its own unit, and still match. On the machine and versions of the study
    nothing differs; elsewhere rounding does."""
    network: tuple[str, ...] = ()
    """Names of the study's networks that are a module:function, to allow that they be imported."""
    dataset: str | None = None
    """Name of the study's data set, where it is a module:function, to allow that it be imported."""


def main(argv: list[str] | None = None) -> int:
    """Run the command; exit status 0 if the trial matches, 1 if not, 2 after bad input."""
    arguments = sys.argv[1:] if argv is None else argv
    return commandline.status(lambda: _run(commandline.parse(Options, PROG, __doc__, arguments)))


def _run(options: Options) -> int:
    if not options.tolerance >= 0:
        raise UserError(f"--tolerance {options.tolerance:g}: must be 0 or more")
    study = study_folder.load(options.folder)
    row = _row(study, options.trial_id)
    settings = settings_of(study, options)
    name = printable(f"{options.trial_id} of {study.meta.get('name') or study.folder.name}")
    print(f"{name}: training it again, seed {settings.seed}", flush=True)
    from study.models import custom  # this imports torch, which --help need not wait for

    try:
        with custom.only(options.network, [options.dataset] if options.dataset else []):
            metrics = retrain(study, settings, row)
    except TrialFailed as error:
        print(printable(f"does not match: the trial failed now ({error})"))
        return 1
    differences = compare(row, metrics, options.tolerance)
    for name, (before, now) in differences.items():
        print(printable(f"  {name}: {before} in the study, {now} now"))
    if differences:
        print(printable(f"does not match; metrics that differ: {len(differences)}.{_versions_differ(study)}"))
        return 1
    print(f"matches: {', '.join(k for k in metrics if k in row and k not in COST_COLUMNS)} are the same")
    return 0


def _row(study: Study, trial_id: str) -> Row:
    rows = study.trials[study.trials["trial_id"] == trial_id].to_dict("records")
    if not rows:
        raise UserError(f"{trial_id}: no such trial in {study.folder}; its trials are in {paths.TRIALS}")
    if rows[0]["state"] != "complete":
        raise UserError(f"{trial_id}: its state is {rows[0]['state']}; give a complete trial")
    return {str(k): v for k, v in rows[0].items() if not (isinstance(v, float) and math.isnan(v))}


def settings_of(study: Study, options: Options) -> Settings:
    """The study's settings as they are recorded."""
    kind = str(study.meta.get("kind", ""))
    if kind not in registry.names():
        raise UserError(
            f"{study.folder / paths.STUDY}: kind {kind!r} is unknown; "
            f"this version of the harness has {', '.join(registry.names())}"
        )
    try:
        settings = from_json(registry.settings_class(kind), kind, study.meta.get("settings", {}))
        check_types(settings)
        check_bounds(settings)
        settings.check()
    except UserError as error:
        raise UserError(f"{study.folder / paths.STUDY}: {error}; restore it from a copy") from error
    return settings if options.data_dir is None else settings.changed(data_dir=options.data_dir)


def retrain(study: Study, settings: Settings, row: Row) -> Row:
    """Metrics of the same trial, trained now.

    Raises:
        TrialFailed: the trial, or the work that it builds on, cannot be scored.
    """
    from study.artifacts.cache import get, get_or_compute
    from study.pipeline import preflight
    from study.pipeline.initial_weights import check_weights, digest_of, load_initial_weights

    method = registry.method(settings.kind)
    stage = method.shared_work
    data, _ = preflight.load_data(settings)
    try:
        initial_weights = load_initial_weights(settings, data)
        roles = method.networks(settings)
        check_weights(study.meta, settings, {role: {"weights": digest_of(initial_weights, role)} for role in roles})
    except UserError as error:
        raise UserError(f"{study.folder / paths.STUDY}: {error}") from error

    def shared_stage(row: Row) -> SharedWork:
        return _train(settings, stage.run, {}, data, initial_weights, row, stage.name)

    if row["baseline"] == stage.name:
        return dict(shared_stage(row).record["metrics"])
    if row["baseline"] and row["baseline"] not in study.meta.get("baselines", {}):
        further = stage.further(shared_stage(_row(study, stage.name)))
        if row["baseline"] in further:
            return dict(further[row["baseline"]].record["metrics"])
    cache = study.folder.resolve().parent / paths.CACHE
    shared = get(cache, stage.name, study.meta.get("shared_work", ""))  # as it was, whatever the versions are now
    if shared is None:
        key = stage.key(settings, data, initial_weights)
        shared, _ = get_or_compute(cache, stage.name, key, lambda: shared_stage(_row(study, stage.name)))
    values = _values(study, row)
    seen = method.trial_data(settings, data)
    trained = _train(settings, method.trial, values, seen, shared, row, stage.name, repeated=True)
    return dict(trained.record["metrics"])


def _values(study: Study, row: Row) -> Values:
    """The hyperparameters of a trial or a baseline.

    Raises:
        UserError: the study does not say.
    """
    if row["baseline"]:
        values: Values = study.recorded("baselines", row["baseline"])
        return values
    try:
        space = study.meta["space"]
        return {k: domain_from_json(d).cast(row[k]) for k, d in space.items() if is_active(d, row)}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{study.folder / paths.TRIALS}: {row['trial_id']} has no value of {error} that {paths.STUDY} knows; "
            "restore both from one copy"
        ) from error


def _train(
    settings: Settings,
    run: TrialFunction,
    values: Values,
    data: Splits,
    shared: SharedWork | None,
    row: Row,
    stage: str,
    repeated: bool = False,
) -> SharedWork:
    """Train one trial, or the shared work, as a study would; what it leaves, with its metrics.

    Args:
        row: of the study's table, of which the number of threads is taken.
        stage: name of the shared work, under which a study stores what it reported.
        repeated: with as many seeds as the study has for each trial.
    """
    import torch

    from study.artifacts.cache import SharedWork
    from study.artifacts.checkpoints import Progress
    from study.methods.method import settings_with
    from study.tuning.repeats import train_with_seeds
    from study.tuning.trainable import trial_device

    rows: list[Row] = []
    start = time.perf_counter()
    torch.manual_seed(settings.seed)
    torch.set_num_threads(int(row.get("threads") or settings.resources.threads))
    device = trial_device(settings)
    own = settings_with(settings, values).changed(seeds_per_trial=settings.search.seeds_per_trial if repeated else None)
    result = train_with_seeds(run, values, own, data.to(device), shared, rows.append, Progress())
    last = rows[-1] if rows else {}
    metrics = {k: v for k, v in {**last, **result.metrics}.items() if k not in ("epoch", "phase")}
    metrics |= {"seconds": time.perf_counter() - start, "threads": torch.get_num_threads()}
    history = [{"trial_id": stage, **epoch} for epoch in rows]
    return SharedWork(result.arrays, {"metrics": metrics, "history": history})


def compare(row: Row, metrics: Row, tolerance: float) -> dict[str, tuple[float, float]]:
    """Metrics that differ by more than `tolerance`, and by more than the digits of a table's rounding: name → both."""
    both = [k for k in metrics if k in row and k not in COST_COLUMNS and not isinstance(row[k], str)]
    return {
        k: (row[k], metrics[k]) for k in both if not abs(row[k] - metrics[k]) <= max(tolerance, 1e-12 * abs(row[k]))
    }


def _versions_differ(study: Study) -> str:
    from study.pipeline.metadata import PACKAGES, installed

    now, then = installed(PACKAGES), study.meta.get("versions", {})
    changed = [f"{p} {then[p]} → {now[p]}" for p in now if p in then and then[p] != now[p]]
    return f" Versions differ: {', '.join(changed)}." if changed else " The versions are those of the study."


if __name__ == "__main__":
    sys.exit(main())
