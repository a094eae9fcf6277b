"""The last stage of a study: the front and the baselines meet the test part, once each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from study import codebook, kd, results
from study.cache import Shared, read_arrays, write_arrays
from study.data import Part, Splits
from study.files import write_bytes
from study.results import COLUMNS, Ledger
from study.trainables import ARRAYS, FILE, searched_network, trained_network
from study.training import evaluate


def keep_weights(folder: Path, trial_id: str) -> Path | None:
    """Copy what a trial's last checkpoint holds to `models/`; None if it left no checkpoint."""
    path = folder / results.MODELS / f"{trial_id}.safetensors"
    if not path.exists():
        found = sorted((folder / results.RAY / results.trial_folder(trial_id)).glob(f"checkpoint_*/{ARRAYS}"))
        if not found:
            return None
        compressed = found[-1].with_name(FILE)
        if compressed.exists():
            write_bytes(path.with_suffix(codebook.SUFFIX), compressed.read_bytes())
        write_arrays(path, read_arrays(found[-1]))
    return path


def kept_network(settings: Any, path: Path, baseline: str, data: Splits) -> nn.Module:
    """The network that a trial left: decoded from its compressed file where there is one, and then that is tested."""
    compressed = path.with_suffix(codebook.SUFFIX)
    if compressed.exists():
        name = searched_network(settings).network
        model = codebook.load(compressed, custom=name if codebook.is_custom(name) else None)
        return model.to(data.train.images.device)
    return kd.load(Shared(read_arrays(path)).tensors(), trained_network(settings, baseline), data)


def confirm(
    settings: Any, folder: Path, ledger: Ledger, best: list[str], data: Splits, test: Part
) -> dict[str, dict[str, Any]]:
    """Evaluate every baseline and every member of the front on the test part, once each; write `confirmed.csv`.

    Args:
        best: trial ids of the front. Their weights are kept in `models/`, all others' are removed.
    Returns: rows of `confirmed.csv` by trial id.
    """
    frame = results.read_frame(folder / results.CONFIRMED, results.CONFIRMED_COLUMNS)
    rows: dict[str, dict[str, Any]] = {r["trial_id"]: r for r in frame.to_dict("records")}
    baselines = [r["trial_id"] for r in ledger.of_state("complete", baseline=True)]
    for trial_id in (*baselines, *best):
        path, row = keep_weights(folder, trial_id), ledger.trials[trial_id]
        if path is None or trial_id in rows:
            continue
        score = evaluate(kept_network(settings, path, row["baseline"], data), test, data)
        known = {k: v for k, v in row.items() if k in COLUMNS and k not in ("state", "reason", "seconds", "epochs")}
        rows[trial_id] = {**known, "seed": settings.seed, "test_accuracy": score.accuracy, "test_loss": score.loss}
    results.write_frame(folder / results.CONFIRMED, pd.DataFrame(list(rows.values())))
    for checkpoint in (folder / results.RAY).glob("*/checkpoint_*"):
        shutil.rmtree(checkpoint, ignore_errors=True)
    return rows
