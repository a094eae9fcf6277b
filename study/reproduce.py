"""Retrain one finished trial of a study, and say whether it comes out as it did: `python -m study.reproduce`.

Runs in this process, without Ray. The shared work (teacher, pretrained network) comes from the cache beside the study
folder if it is there, and is done anew otherwise.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from study import commandline
from study.errors import TrialFailed, UserError
from study.records import ledger, study_folder
from study.records.columns import COLUMNS, COST_COLUMNS
from study.records.paths import CACHE, STUDY, TRIALS
from study.records.study_folder import Study
from study.settings import OLDER_PRECISION

PROG = "python -m study.reproduce"


@dataclass(frozen=True)
class Options:
    """Retrain one trial of a study and compare its metrics with the recorded ones."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="results/NAME")]
    """Folder of the study."""
    trial_id: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TRIAL")]
    """A complete trial, such as t014, or a baseline's name."""
    data_dir: Path | None = None
    """Where the data set lies. Default: where the study had it."""
    tolerance: float = 0.0
    """Difference that a metric may have, in its own unit, and still match. On the machine and versions of the study
    nothing differs; elsewhere rounding does."""


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
    print(f"{options.trial_id} of {study.meta['name']}: training it again, seed {settings.seed}", flush=True)
    try:
        metrics = retrain(study, settings, row)
    except TrialFailed as error:
        print(f"does not match: the trial failed now ({error})")
        return 1
    differences = compare(row, metrics, options.tolerance)
    for name, (before, now) in differences.items():
        print(f"  {name}: {before} in the study, {now} now")
    if differences:
        print(f"does not match: {len(differences)} metrics differ.{_versions_differ(study)}")
        return 1
    print(f"matches: {', '.join(k for k in metrics if k in row)} are the same")
    return 0


def _row(study: Study, trial_id: str) -> dict[str, Any]:
    rows = study.trials[study.trials["trial_id"] == trial_id].to_dict("records")
    if not rows:
        raise UserError(f"{trial_id}: no such trial in {study.folder}; its trials are in {TRIALS}")
    if rows[0]["state"] != "complete":
        raise UserError(f"{trial_id}: it is {rows[0]['state']}; give a complete trial")
    return {str(k): v for k, v in rows[0].items() if not (isinstance(v, float) and math.isnan(v))}


def settings_of(study: Study, options: Options) -> Any:
    """The study's settings as they are recorded."""
    from study import run

    kind = run.KINDS.get(study.meta.get("kind", ""))
    if kind is None:
        raise UserError(
            f"{study.folder / STUDY}: kind {study.meta.get('kind')!r} is unknown; "
            f"this version of the harness has {', '.join(run.KINDS)}"
        )
    paths = ("data_dir", "results_dir", "teacher_checkpoint", "warm_start")
    recorded = {"precision": OLDER_PRECISION, **study.meta["settings"]}
    values = {f.name: recorded[f.name] for f in dataclasses.fields(kind) if f.name in recorded}
    values |= {k: Path(values[k]) for k in paths if values.get(k) is not None}
    if options.data_dir is not None:
        values["data_dir"] = options.data_dir
    return kind(**values)


def retrain(study: Study, settings: Any, row: dict[str, Any]) -> dict[str, Any]:
    """Metrics of the same trial, trained now.

    Raises:
        TrialFailed: the trial, or the work that it builds on, cannot be scored.
    """
    import torch

    from study.artifacts.cache import SharedWork, get, get_or_compute
    from study.artifacts.checkpoints import Progress
    from study.methods import registry
    from study.methods.method import TrialFunction
    from study.pipeline import preflight
    from study.tuning.trainable import trial_device

    kind = registry.KINDS[settings.kind]
    data, _ = preflight.load_data(settings)

    def train(
        stage: TrialFunction, values: dict[str, Any], shared: SharedWork | None, row: dict[str, Any]
    ) -> tuple[dict[str, Any], SharedWork]:
        """Metrics, and what a study would keep of it."""
        rows: list[dict[str, Any]] = []
        start = time.perf_counter()
        torch.manual_seed(settings.seed)
        seen = data if stage is kind.prepare else kind.trial_data(settings, data)
        torch.set_num_threads(int(row.get("threads") or settings.threads))
        left = stage(values, settings, seen.to(trial_device(settings)), shared, rows.append, Progress())
        last = rows[-1] if rows else {}
        metrics = {k: v for k, v in {**last, **left.metrics}.items() if k not in ("epoch", "phase")}
        told = [{"trial_id": kind.first, **ledger.history_row(r)} for r in rows]
        spent = {"seconds": time.perf_counter() - start, "threads": torch.get_num_threads()}
        return metrics, SharedWork(left.arrays, {"metrics": {**metrics, **spent}, "history": told})

    try:
        given = preflight.given_teacher(settings, data)
    except UserError as error:
        raise UserError(f"{study.folder / STUDY}: {error}") from error
    if row["baseline"] == kind.first:
        return train(kind.prepare, {}, given, row)[0]

    cache = study.folder.resolve().parent / CACHE
    shared = get(cache, kind.first, study.meta.get("shared_work", ""))  # as it was, whatever the versions are now
    if shared is None:
        key = kind.key(settings, data, given)
        shared, _ = get_or_compute(
            cache, kind.first, key, lambda: train(kind.prepare, {}, given, _row(study, kind.first))[1]
        )
    values = study.meta["baselines"].get(row["baseline"]) or {
        k: int(row[k]) if domain["type"] == "int" else float(row[k]) for k, domain in study.meta["space"].items()
    }
    return train(kind.search, values, shared, row)[0]


def compare(row: dict[str, Any], metrics: dict[str, Any], tolerance: float) -> dict[str, tuple[float, float]]:
    """Metrics that differ by more than `tolerance`, and by more than the digits of a table's rounding: name → both."""
    both = [k for k in metrics if k in row and k in COLUMNS and k not in COST_COLUMNS and not isinstance(row[k], str)]
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
