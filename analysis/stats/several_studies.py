"""Several studies on one plane, validation accuracy against bytes of the file, and the front of them all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.stats.epsilon import Epsilon, epsilon_between, resampled_fronts
from analysis.stats.names import ACCURACY, FILE_SIZE
from analysis.stats.pareto_front import pareto_front
from analysis.stats.summary import Summary, summarise
from analysis.stats.uncertainty import probability_by_images
from study.errors import UserError
from study.records.study_folder import Study

OBJECTIVES = {ACCURACY: "max", FILE_SIZE: "min"}
"""The plane on which studies are compared, whatever their own objectives are: every network has both."""

SAME = {
    "name": "data set",
    "title": "data set",
    "classes": "classes",
    "train": "number of training images",
    "validation": "number of validation images",
    "test": "number of test images",
    "split_seed": "seed of the split",
}
"""What of `study.json`'s data must be equal: accuracies on other images do not compare."""

FLOAT_BYTES = 4
"""Bytes of a parameter of a dense network, as float32."""


@dataclass(frozen=True)
class StudyEntry:
    """One study among several.

    Attributes:
        name: its own name, or its folder where two have the same.
        trials: complete trials that may answer and have a size: told apart from guessing, on test data too where those
            were read, and within the study's constraint. `trial_id` is unique among all studies, as in "digits/t003";
            `study` is `name`.
        baselines: complete baselines that have a size and are told apart from guessing, likewise.
        front: those of `trials` that none of them beats.
        guesses: how many complete trials are left out since they are not told apart from guessing.
    """

    name: str
    summary: Summary
    trials: pd.DataFrame
    baselines: pd.DataFrame
    front: pd.DataFrame
    guesses: int

    @property
    def without_size(self) -> int:
        """How many trials that may answer have no size on record."""
        s = self.summary
        return int((~s.feasible["trial_id"].isin(s.guesses_on_test)).sum()) - len(self.trials)

    @property
    def meta(self) -> dict[str, Any]:
        return self.summary.study.meta


@dataclass(frozen=True)
class MergedStudies:
    """All studies together.

    Attributes:
        front: trials of any study that no trial of any study beats, the smallest last, with `probability`, see
            `uncertainty.probability_by_images`.
        ranges: see `size_ranges_won`.
        epsilons: (name of a, name of b) → see `epsilon.epsilon`.
        images: in the validation part.
    """

    entries: list[StudyEntry]
    front: pd.DataFrame
    ranges: pd.DataFrame
    epsilons: dict[tuple[str, str], Epsilon]
    images: int


def merge_studies(studies: Sequence[Study]) -> MergedStudies:
    """Compare studies on one plane.

    Raises:
        UserError: two of them have other data or another split, or are the same folder.
    """
    check(studies)
    images = int(studies[0].meta.get("data", {}).get("validation") or 0)
    entries = [_entry(study, name) for study, name in zip(studies, _names(studies), strict=True)]
    trials = pd.concat([entry.trials for entry in entries], ignore_index=True)
    trials = trials.assign(probability=probability_by_images(trials, OBJECTIVES, images))
    front = pareto_front(trials, OBJECTIVES).sort_values(
        [FILE_SIZE, ACCURACY], ascending=False, kind="stable", ignore_index=True
    )
    fronts = {entry.name: resampled_fronts(entry.trials, images, seed) for seed, entry in enumerate(entries)}
    epsilons = {(a, b): epsilon_between(fronts[a], fronts[b]) for a in fronts for b in fronts if a != b}
    return MergedStudies(entries, front, size_ranges_won(front, float(trials[FILE_SIZE].max())), epsilons, images)


def check(studies: Sequence[Study]) -> None:
    """Refuse what does not compare.

    Raises:
        UserError: one line with both folders and what differs.
    """
    first = studies[0]
    folders = Counter(study.folder.resolve() for study in studies)
    for study in studies:
        if folders[study.folder.resolve()] > 1:
            raise UserError(f"{study.folder}: given twice; give each study once")
        mine, other = first.meta.get("data", {}), study.meta.get("data", {})
        differ = [
            f"{what} {_short(mine.get(key))} and {_short(other.get(key))}"
            for key, what in SAME.items()
            if mine.get(key) != other.get(key)
        ]
        # Images are enlarged for some networks, and then they are other numbers.
        prints = [data.get("fingerprints") for data in (mine, other)]
        if mine.get("shape") == other.get("shape") and all(prints) and prints[0] != prints[1]:
            differ.append("their images or labels are not the same")
        if differ:
            raise UserError(
                f"{first.folder} and {study.folder} do not compare: {differ[0]}; give studies of one data set and split"
            )


def size_ranges_won(front: pd.DataFrame, largest: float) -> pd.DataFrame:
    """Which study gives the most accurate network at which sizes.

    Args:
        front: merged, see `MergedStudies`.
        largest: bytes at which the range of sizes ends.
    Returns: `study` (two joined by " and " where they tie), `low` and `high` (bytes: the first size at which it does,
        and that at which the next one takes over; infinite for the last), `share` (%) of the range of sizes from the
        smallest member of the front to `largest`, in orders of magnitude; in the order of size.
    """
    owners = front.groupby(FILE_SIZE, sort=True)["study"].agg(lambda names: " and ".join(dict.fromkeys(names)))
    runs = owners[owners != owners.shift()].rename_axis("low").rename("study").reset_index()
    ends = runs["low"].shift(-1)
    runs = runs.assign(high=ends.fillna(np.inf))
    span = np.log(largest / front[FILE_SIZE].min()) if len(front) else 0.0
    parts = np.log(ends.fillna(largest) / runs["low"])
    return runs.assign(share=100 * parts / span if span > 0 else 100.0)


def _entry(study: Study, name: str) -> StudyEntry:
    s = summarise(study)
    allowed = s.feasible[~s.feasible["trial_id"].isin(s.guesses_on_test)]
    trials, baselines = (_sized(s, rows, name) for rows in (allowed, s.baselines[s.told(s.baselines)]))
    front = pareto_front(trials, OBJECTIVES).sort_values(FILE_SIZE, ascending=False)
    return StudyEntry(name, s, trials, baselines, front, len(s.guesses) + len(s.feasible) - len(allowed))


def _sized(s: Summary, rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rows that have an accuracy and a size, under names that no other study has.

    Those of which the study says that they are dense networks have the size of their parameters as float32: their own,
    where their row has it, since a study may search the network.
    """
    models, roles = s.study.meta.get("models", {}), s.study.meta["dense"]
    parameters = [models.get(roles.get(baseline), {}).get("parameters") or np.nan for baseline in rows["baseline"]]
    own = rows.reindex(columns=["weight_bytes", "parameters"]).astype(float)
    own_bytes = own["weight_bytes"].fillna(FLOAT_BYTES * own["parameters"]).where(rows["baseline"].isin(list(roles)))
    dense = own_bytes.fillna(FLOAT_BYTES * pd.Series(parameters, rows.index, dtype=float))
    rows = rows.assign(
        **{FILE_SIZE: dense.fillna(rows.reindex(columns=[FILE_SIZE])[FILE_SIZE]).astype(float)},
        own_id=rows["trial_id"],
        trial_id=name + "/" + rows["trial_id"],
        study=name,
    )
    return rows[np.isfinite(rows[ACCURACY]) & np.isfinite(rows[FILE_SIZE]) & (rows[FILE_SIZE] > 0)]


def _names(studies: Sequence[Study]) -> list[str]:
    names = [str(study.meta.get("name") or study.folder.name) for study in studies]
    often = Counter(names)
    return [name if often[name] == 1 else str(study.folder) for name, study in zip(names, studies, strict=True)]


def _short(value: Any) -> str:
    text = f"{len(value)} ({', '.join(map(str, value))})" if isinstance(value, list) else str(value)
    return text if len(text) < 80 else text[:79] + "…"
