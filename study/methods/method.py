"""What a kind of study is: its shared work, its trials, and what the other rooms need to know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.data.splits import Splits
from study.training.loop import Report
from study.training.network import Training

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class TrialResult:
    """What a trial leaves behind: its final metrics, its arrays, and the compressed file if it wrote one."""

    metrics: dict[str, Any]
    arrays: Arrays
    file: bytes = b""


TrialFunction = Callable[[dict[str, Any], Any, Splits, SharedWork | None, Report, Progress], TrialResult]
"""One trial: searched values, settings, data, shared work, what hears of every epoch, and where the trial stands."""


def shift_epochs(epochs: int, on_epoch: Report) -> Report:
    """Reports what comes after so many epochs."""
    return lambda row: on_epoch({**row, "epoch": epochs + int(row["epoch"])})


# --- the kinds of study


@dataclass(frozen=True)
class Method:
    """One kind of study, as the tuner runs it.

    Attributes:
        first: name of the shared work, which is also the name of its baseline row.
        prepare, search: the two stages; `trial` makes trainables of them.
        key: what determines the shared work.
        networks: role → training, of every network in the study.
        trial_data: the splits as the searched trials see them.
        epochs: most epochs that a searched trial reports.
        clustered: those of them under a mixture prior.
        before: those of them before the network begins to be compressed.
    """

    first: str
    prepare: Callable[..., TrialResult]
    search: Callable[..., TrialResult]
    key: Callable[[Any, Splits, SharedWork | None], dict[str, Any]]
    networks: Callable[[Any], dict[str, Training]]
    trial_data: Callable[[Any, Splits], Splits]
    epochs: Callable[[Any], int]
    clustered: Callable[[Any], int] = lambda s: 0
    before: Callable[[Any], int] = lambda s: 0
    counts_over: str = ""
