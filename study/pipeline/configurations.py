"""Which configuration a tested row and a stored network belong to: checked before a study goes on, and stored with it.

An id is not enough: where `trials.csv` was replaced, another trial may have it.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping
from pathlib import Path

from study.artifacts import checkpoints
from study.artifacts.cache import read_metadata
from study.compression import compressed_file
from study.errors import UserError
from study.records import paths, study_folder
from study.records.columns import CONFIGURATION, CONFIRMED_COLUMNS, TRIAL_COLUMNS, Row
from study.records.identity import check_same_values, configuration_hash
from study.records.ledger import Ledger
from study.records.search_domains import Value
from study.records.tables import read_frame
from study.settings import Settings
from study.tuning.space import SearchSpace

CODEBOOK = "codebook"
"""Of the metadata of a network: the checksum of its compressed file."""


def values_of(space: SearchSpace, row: Mapping[str, object]) -> Mapping[str, Value]:
    """The hyperparameters of a row of `trials.csv`: searched, or the baseline's own."""
    return space.baselines.get(str(row["baseline"]), {}) if row["baseline"] else space.configuration(row)


def configuration_of(settings: Settings, space: SearchSpace, row: Mapping[str, object], seed: int) -> str:
    """Hash of the configuration of a row of `trials.csv`, trained with this seed.

    Of a study that an older version started, over the settings that it had then: those that came later are as they
    were before there was a choice, and its rows and files have the hash without them.
    """
    values = values_of(space, row)
    defining = settings.defining()
    if (settings.folder / paths.STUDY).exists():
        recorded = _recorded_settings(settings.folder, (settings.folder / paths.STUDY).stat().st_mtime_ns)
        defining = {name: value for name, value in defining.items() if name in recorded}
    return configuration_hash(settings.kind, defining, str(row["baseline"]), values, seed)


@functools.lru_cache(maxsize=1)  # it is asked for every row and every network of a study
def _recorded_settings(folder: Path, written: int) -> frozenset[str]:
    """Names of the settings that `study.json` has, which was written at this time."""
    return frozenset(study_folder.read_meta(folder)["settings"])


def check_results(settings: Settings, space: SearchSpace, folder: Path, ledger: Ledger) -> None:
    """Refuse tested rows and networks of another configuration than the trial has under whose id they are.

    Those of older studies say nothing of it, but for the hyperparameters in a tested row.

    Raises:
        UserError: with the file and the trial.
    """
    table = folder / paths.CONFIRMED
    confirmed = read_frame(table, CONFIRMED_COLUMNS)
    trials = read_frame(folder / paths.TRIALS, TRIAL_COLUMNS)
    check_same_values(table, confirmed, trials, space.domains)
    for row in confirmed.to_dict("records"):
        _check(settings, space, ledger, table, row["trial_id"], int(row["seed"]), row.get(CONFIGURATION) or "")
    for trial_id in ledger.trials:
        path = paths.model_of(folder, trial_id)
        if path.exists():
            metadata = read_metadata(path)
            _check(settings, space, ledger, path, trial_id, settings.seed, metadata.get(CONFIGURATION, ""))
            if checkpoints.weights_of(checkpoints.path_of(folder, trial_id)).exists():
                continue  # the file that it left replaces this one
            _check_codebook(path.with_suffix(compressed_file.SUFFIX), metadata.get(CODEBOOK, ""))
    _check_retrained(space, folder, ledger)


def _check(
    settings: Settings, space: SearchSpace, ledger: Ledger, path: Path, trial_id: str, seed: int, recorded: str
) -> None:
    if recorded and recorded != configuration_of(settings, space, ledger.trials[trial_id], seed):
        raise UserError(
            f"{path}: what it has of {trial_id} is of another configuration than {paths.TRIALS} says; restore both "
            "from one copy"
        )


def _check_codebook(path: Path, recorded: str) -> None:
    if recorded and path.exists() and checksum_of(path.read_bytes()) != recorded:
        raise UserError(f"{path}: is not the file that its trial left; restore it from a copy")


def _check_retrained(space: SearchSpace, folder: Path, ledger: Ledger) -> None:
    """The trainings with fresh seeds have a table of their own."""
    path = folder / paths.CONFIRM / paths.TRIALS
    for row in Ledger.open(path.parent).trials.values():
        original: Row = ledger.trials.get(row["baseline"], {})
        values = values_of(space, original) if original else {}
        other = [name for name, value in values.items() if name in row and not _same(row[name], value)]
        if other:
            raise UserError(
                f"{path}: {row['trial_id']} has another {other[0]} than in {folder / paths.TRIALS}; restore both from "
                "one copy"
            )


def _same(cell: object, value: Value) -> bool:
    numbers = isinstance(cell, int | float) and isinstance(value, int | float)
    return cell == value if numbers else str(cell) == str(value)


def checksum_of(content: bytes) -> str:
    """Of a compressed file, by which the network next to it knows its own."""
    return f"{zlib.crc32(content):08x}"
