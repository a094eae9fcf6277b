"""Which networks are not told apart from guessing: those that are no answer, no knee and no winner, and that stretch no
axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import bdtrik

from analysis.stats.names import ACCURACY, TEST_ACCURACY

LEVEL = 0.05
"""How probable it may be that the best of all guessing trials of a study passes for one that learned something."""


def chance(meta: Mapping[str, Any], part: str = "validation") -> float:
    """Accuracy (%) of the best guess without a look at the image: always the most frequent class, or one of equally
    frequent ones. NaN where the classes are not recorded.

    Args:
        meta: `study.json`; studies from before `largest_class` was recorded count as balanced.
        part: "validation" or "test".
    """
    data = meta.get("data", {})
    classes, images = len(data.get("classes", [])), int(data.get(part) or 0)
    if not classes:
        return np.nan
    largest = (data.get("largest_class") or {}).get(part) or 0
    return 100 * max(1 / classes, min(1.0, largest / images) if images else 0.0)


def guessing_bound(meta: Mapping[str, Any], tries: int, part: str = "validation") -> float:
    """Accuracy (%) that guessing exceeds with a probability of at most `LEVEL`, the best of so many tries taken.

    The number of images that a guess gets right is binomial; the level is divided by the number of tries (Bonferroni),
    since the best of many is looked at. NaN where classes or images are not recorded.
    """
    images, share = int(meta.get("data", {}).get(part) or 0), chance(meta, part) / 100
    if not images or not np.isfinite(share):
        return np.nan
    if share >= 1:
        return 100.0
    return float(100 * min(np.ceil(bdtrik(1 - LEVEL / max(1, tries), images, share)), images) / images)


def told_from_guessing(
    accuracies: pd.Series, meta: Mapping[str, Any], tries: int | None = None, part: str = "validation"
) -> pd.Series:
    """Which accuracies lie above `guessing_bound`. A missing one does not; every one does where there is no bound.

    Args:
        accuracies: in percent, on `part`.
        tries: how many networks the best is taken of; by default those that have an accuracy here.
    """
    scores = pd.to_numeric(accuracies, errors="coerce").astype(float)
    bound = guessing_bound(meta, int(scores.notna().sum()) if tries is None else tries, part)
    if not np.isfinite(bound):
        return pd.Series(True, index=accuracies.index)
    # Half an image more: tables round an accuracy.
    return scores > bound + 50 / int(meta["data"][part])


def may_answer(rows: pd.DataFrame, meta: Mapping[str, Any]) -> pd.Series:
    """Which rows of a table of trials may answer a question: those of which neither validation nor test data say that
    they guess.

    Args:
        rows: with `val_accuracy` and `test_accuracy`, in percent, or without.
    """
    scores = rows.reindex(columns=[ACCURACY, TEST_ACCURACY])
    told = scores[ACCURACY].isna() | told_from_guessing(scores[ACCURACY], meta)
    return told & (scores[TEST_ACCURACY].isna() | told_from_guessing(scores[TEST_ACCURACY], meta, 1, "test"))
