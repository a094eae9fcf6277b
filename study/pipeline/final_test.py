"""The last stage of a study: the front and the baselines meet the test part, once for each seed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from torch import nn

from study.artifacts import checkpoints
from study.artifacts.cache import SharedWork, read_arrays, write_arrays
from study.compression import compressed_file
from study.compression.layer_facts import layer_rows, sensitivity_rows
from study.data.splits import Part, Splits
from study.errors import UserError
from study.methods import registry
from study.methods.method import settings_with
from study.models import custom
from study.pipeline.configurations import CODEBOOK, checksum_of, configuration_of, values_of
from study.records import paths, study_folder
from study.records.atomic_files import write_bytes
from study.records.columns import (
    CONFIGURATION,
    CONFIRMED_COLUMNS,
    COST_COLUMNS,
    LAYER_COLUMNS,
    SENSITIVITY_COLUMNS,
    Row,
)
from study.records.ledger import Ledger
from study.settings import Settings
from study.training.loop import evaluate
from study.training.network import load_network
from study.tuning.space import SearchSpace


def keep_weights(folder: Path, trial_id: str, configuration: str) -> Path | None:
    """Copy what a trial ended with to `models/`; None if it left nothing.

    Args:
        configuration: of the trial, which the file then states.
    """
    path, checkpoint = paths.model_of(folder, trial_id), checkpoints.path_of(folder, trial_id)
    if not checkpoints.weights_of(checkpoint).exists():  # an earlier command has copied them, or there are none
        return path if path.exists() else None
    arrays, metadata = read_arrays(checkpoints.weights_of(checkpoint)), {CONFIGURATION: configuration}
    compressed = checkpoints.codebook_of(checkpoint)
    if compressed.exists():
        content = compressed.read_bytes()
        write_bytes(path.with_suffix(compressed_file.SUFFIX), content)
        metadata[CODEBOOK] = checksum_of(content)
    write_arrays(path, arrays, metadata)
    return path


def load_trained(settings: Settings, space: SearchSpace, path: Path, row: Row, data: Splits) -> nn.Module:
    """The network that a trial left: decoded from its compressed file where there is one, and then that is tested.

    Args:
        row: of the trial, in `trials.csv`.
    Raises:
        UserError: a file that is damaged, or not of this network.
    """
    method, baseline = registry.method(settings.kind), row["baseline"]
    training = method.trained_network(settings_with(settings, values_of(space, row)), baseline)
    compressed = path.with_suffix(compressed_file.SUFFIX)
    if compressed.exists():
        name = training.network
        own = name if custom.is_custom(name) else None
        model = compressed_file.load(compressed, custom=own, max_parameters=None)
        return model.to(data.train.images.device)
    weights = SharedWork(read_arrays(path)).tensors()
    try:
        return load_network(weights, training, data)
    except RuntimeError as error:
        raise UserError(f"{path}: not weights of the network {training.network}; restore it from a copy") from error


def confirm(
    settings: Settings, space: SearchSpace, folder: Path, ledger: Ledger, best: list[str], data: Splits, test: Part
) -> dict[str, Row]:
    """Evaluate every baseline and every member of the front on the test part, once each; write `confirmed.csv`.

    Args:
        best: trial ids of the front. Their weights are stored in `models/`, with those that an earlier command stored.
    Returns: rows of `confirmed.csv` by trial id, those of fresh seeds left out.
    """
    frame = study_folder.read_frame(folder / paths.CONFIRMED, CONFIRMED_COLUMNS)
    rows: dict[str, Row] = {r["trial_id"]: r for r in frame[frame["seed"] == settings.seed].to_dict("records")}
    others: list[Row] = frame[frame["seed"] != settings.seed].to_dict("records")
    baselines = [r["trial_id"] for r in ledger.of_state("complete", baseline=True)]
    for trial_id in (*baselines, *best):
        row = ledger.trials[trial_id]
        configuration = configuration_of(settings, space, row, settings.seed)
        path = keep_weights(folder, trial_id, configuration)
        if path is not None:
            _record_layers(settings, space, folder, row, path)
        if path is None or trial_id in rows:
            continue
        model = load_trained(settings, space, path, row, data)
        identity = {"seed": settings.seed, CONFIGURATION: configuration}
        rows[trial_id] = {**_metrics(row), **identity, **_test(model, test, data)}
        _write(folder, [*rows.values(), *others])  # at once: what was tested is not tested again after an interruption
    _write(folder, [*rows.values(), *others])
    checkpoints.clear_results(folder, ledger.of_state("running"))
    for trial_id in ledger.trials.keys() - {*baselines, *best}:
        paths.trace_of(folder, trial_id).unlink(missing_ok=True)
    return rows


def _record_layers(settings: Settings, space: SearchSpace, folder: Path, row: Row, path: Path) -> None:
    """Write what compression did to each layer, next to the compressed file, if there is one."""
    compressed, table = path.with_suffix(compressed_file.SUFFIX), paths.layers_of(folder, row["trial_id"])
    if not compressed.exists() or (table.exists() and table.stat().st_mtime >= compressed.stat().st_mtime):
        return
    training = registry.method(settings.kind).trained_network(
        settings_with(settings, values_of(space, row)), row["baseline"]
    )
    own = training.network if custom.is_custom(training.network) else None
    decoded = compressed_file.read(compressed, custom=own, max_parameters=None)
    study_folder.write_rows(table, layer_rows(decoded), LAYER_COLUMNS)


def record_sensitivity(settings: Settings, folder: Path, shared: SharedWork, data: Splits) -> None:
    """With `--sensitivity`, write how accurate the network is that the study starts from when one layer is pruned."""
    if not settings.measuring.sensitivity or (folder / paths.SENSITIVITY).exists():
        return
    work = registry.method(settings.kind).shared_work
    model = load_network(shared.weights().tensors(), work.networks(settings)[work.role], data)
    study_folder.write_rows(folder / paths.SENSITIVITY, sensitivity_rows(model.eval(), data), SENSITIVITY_COLUMNS)


def confirm_fresh(
    settings: Settings,
    space: SearchSpace,
    folder: Path,
    retrained: Ledger,
    wanted: Mapping[str, tuple[str, int]],
    shared: Mapping[int, SharedWork],
    data: Splits,
    test: Part,
) -> None:
    """Evaluate what was retrained with fresh seeds on the test part, once each, and add it to `confirmed.csv`.

    Args:
        retrained: the ledger of the retraining, whose weights lie next to it.
        wanted: its trial id → (the trial or baseline that was retrained, seed).
        shared: the shared work by seed, which is the first baseline, and perhaps others.
    """
    method = registry.method(settings.kind)
    frame = study_folder.read_frame(folder / paths.CONFIRMED, CONFIRMED_COLUMNS)
    rows: list[Row] = frame.to_dict("records")
    have = set(zip(frame["trial_id"], frame["seed"], strict=True))
    stage = method.shared_work
    left = {seed: {stage.name: work, **stage.further(work)} for seed, work in shared.items()}
    baselines = {*space.baselines}.union(*left.values())
    for name, (original, seed) in wanted.items():
        if (original, seed) in have:
            continue
        baseline = original if original in baselines else ""
        if work := left[seed].get(original):
            weights = work.weights().tensors()
            model = load_network(weights, method.trained_network(settings, original), data)
            row = dict(work.record["metrics"])
        else:
            row = retrained.trials.get(name, {})
            path = checkpoints.weights_of(checkpoints.path_of(retrained.folder, name))
            if row.get("state") != "complete" or not path.exists():
                continue
            model = load_trained(settings, space, path, {**row, "baseline": baseline}, data)
        configuration = configuration_of(settings, space, {**row, "baseline": baseline}, seed)
        identity = {"trial_id": original, "baseline": baseline, "seed": seed, CONFIGURATION: configuration}
        rows.append({**_metrics(row), **identity, **_test(model, test, data)})
        _write(folder, rows)
    for rest in (checkpoints.FOLDER, paths.TRACES):
        shutil.rmtree(retrained.folder / rest, ignore_errors=True)


def _test(model: nn.Module, test: Part, data: Splits) -> dict[str, float]:
    score = evaluate(model, test, data)
    return {"test_accuracy": score.accuracy, "test_loss": score.loss}


def _metrics(row: Row) -> Row:
    """What of a trial's row stands in `confirmed.csv` too."""
    return {k: v for k, v in row.items() if k not in ("state", "reason", *COST_COLUMNS)}


def _write(folder: Path, rows: list[Row]) -> None:
    frame = pd.DataFrame(rows, columns=None if rows else pd.Index(CONFIRMED_COLUMNS))
    study_folder.write_frame(folder / paths.CONFIRMED, frame)
