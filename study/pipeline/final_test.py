"""The last stage of a study: the front and the baselines meet the test part, once for each seed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from study.artifacts import checkpoints
from study.artifacts.cache import SharedWork, read_arrays, write_arrays
from study.compression import compressed_file
from study.data.splits import Part, Splits
from study.methods.registry import KINDS, searched_network, trained_network
from study.models import custom
from study.records import columns, paths, study_folder
from study.records.atomic_files import write_bytes
from study.records.columns import COLUMNS, COST_COLUMNS
from study.records.ledger import Ledger
from study.training import network
from study.training.loop import evaluate


def keep_weights(folder: Path, trial_id: str) -> Path | None:
    """Copy what a trial ended with to `models/`; None if it left nothing."""
    path = folder / paths.MODELS / f"{trial_id}.safetensors"
    if not path.exists():
        left = checkpoints.path_of(folder, trial_id)
        if not checkpoints.weights_of(left).exists():
            return None
        compressed = checkpoints.codebook_of(left)
        if compressed.exists():
            write_bytes(path.with_suffix(compressed_file.SUFFIX), compressed.read_bytes())
        write_arrays(path, read_arrays(checkpoints.weights_of(left)))
    return path


def kept_network(settings: Any, path: Path, baseline: str, data: Splits) -> nn.Module:
    """The network that a trial left: decoded from its compressed file where there is one, and then that is tested."""
    compressed = path.with_suffix(compressed_file.SUFFIX)
    if compressed.exists():
        name = searched_network(settings).network
        model = compressed_file.load(compressed, custom=name if custom.is_custom(name) else None)
        return model.to(data.train.images.device)
    return network.load_network(SharedWork(read_arrays(path)).tensors(), trained_network(settings, baseline), data)


def confirm(
    settings: Any, folder: Path, ledger: Ledger, best: list[str], data: Splits, test: Part
) -> dict[str, dict[str, Any]]:
    """Evaluate every baseline and every member of the front on the test part, once each; write `confirmed.csv`.

    Args:
        best: trial ids of the front. Their weights are kept in `models/`, beside those that an earlier command kept.
    Returns: rows of `confirmed.csv` by trial id, those of fresh seeds left out.
    """
    frame = study_folder.read_frame(folder / paths.CONFIRMED, columns.CONFIRMED_COLUMNS)
    rows: dict[str, dict[str, Any]] = {
        r["trial_id"]: r for r in frame[frame["seed"] == settings.seed].to_dict("records")
    }
    baselines = [r["trial_id"] for r in ledger.of_state("complete", baseline=True)]
    for trial_id in (*baselines, *best):
        path, row = keep_weights(folder, trial_id), ledger.trials[trial_id]
        if path is None or trial_id in rows:
            continue
        model = kept_network(settings, path, row["baseline"], data)
        rows[trial_id] = {**_known(row), "seed": settings.seed, **_tested(model, test, data)}
    _write(folder, [*rows.values(), *frame[frame["seed"] != settings.seed].to_dict("records")])
    checkpoints.clear_results(folder, ledger.of_state("running"))
    for trial_id in ledger.trials.keys() - {*baselines, *best}:
        paths.trace_of(folder, trial_id).unlink(missing_ok=True)
    return rows


def confirm_fresh(
    settings: Any,
    folder: Path,
    retrained: Ledger,
    wanted: Mapping[str, tuple[str, int]],
    shared: Mapping[int, SharedWork],
    data: Splits,
    test: Part,
) -> None:
    """Evaluate what was retrained with fresh seeds on the test part, once each, and add it to `confirmed.csv`.

    Args:
        retrained: the ledger of the retraining, whose weights lie beside it.
        wanted: its trial id → (the trial or baseline that was retrained, seed).
        shared: the shared work by seed, which is the first baseline.
    """
    frame = study_folder.read_frame(folder / paths.CONFIRMED, columns.CONFIRMED_COLUMNS)
    rows: list[dict[str, Any]] = frame.to_dict("records")
    have = set(zip(frame["trial_id"], frame["seed"], strict=True))
    baselines = dict(zip(frame["trial_id"], frame["baseline"], strict=True))
    first = KINDS[settings.kind].first
    for name, (what, seed) in wanted.items():
        if (what, seed) in have:
            continue
        if what == first:
            state = shared[seed].weights().tensors()
            model = network.load_network(state, trained_network(settings, first), data)
            row = dict(shared[seed].record["metrics"])
        else:
            row = retrained.trials.get(name, {})
            path = checkpoints.weights_of(checkpoints.path_of(retrained.folder, name))
            if row.get("state") != "complete" or not path.exists():
                continue
            model = kept_network(settings, path, "", data)
        named = {"trial_id": what, "baseline": baselines.get(what, ""), "seed": seed}
        rows.append({**_known(row), **named, **_tested(model, test, data)})
    _write(folder, rows)
    for left in (checkpoints.FOLDER, paths.TRACES):
        shutil.rmtree(retrained.folder / left, ignore_errors=True)


def _tested(model: nn.Module, test: Part, data: Splits) -> dict[str, float]:
    score = evaluate(model, test, data)
    return {"test_accuracy": score.accuracy, "test_loss": score.loss}


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k in COLUMNS and k not in ("state", "reason", *COST_COLUMNS)}


def _write(folder: Path, rows: list[dict[str, Any]]) -> None:
    study_folder.write_frame(folder / paths.CONFIRMED, pd.DataFrame(rows))
