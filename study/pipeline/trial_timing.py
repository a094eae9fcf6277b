"""How long a trial trains: it is run here, from its beginning to its end, on a small part of its images."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import torch

from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.data.splits import Splits
from study.errors import TrialFailed
from study.methods.method import Method, settings_with
from study.methods.registry import method as method_of
from study.records.search_domains import Value
from study.settings import Settings
from study.tuning.scored_epochs import scored_epochs
from study.tuning.space import SearchSpace

FEW, MORE = 1024, 4096
"""Training images of two runs, where there are more: what the second takes longer is what images cost."""

BEFORE = ("teacher_epochs", "pretrain_epochs")
"""Settings that say how long the shared work trains, which is no part of a trial."""


def seconds_of_trial(
    settings: Settings, space: SearchSpace, data: Splits, networks: Mapping[str, Value]
) -> float | None:
    """Seconds of one trial, without its reports, on as many threads as torch has now.

    Every hyperparameter is in the middle of its range, widths and numbers of epochs are at their largest. All phases of
    the trial are in it, and what it does after each epoch. What all trials share is not trained.

    Args:
        data: of the study, on the device of the trials.
        networks: searched role → the network to take.
    Returns: None where it cannot be run like this, such as where students see many images, but not all of the study's.
    """
    method = method_of(settings.kind)
    values = {**typical_values(settings, space), **networks}
    settings = settings_with(settings, values)
    before = settings.changed(**{name: 0 for name in BEFORE if name in settings.flat()})
    whole = len(method.trial_data(settings, data).train)
    some_of_them = len(data.train) > whole
    if some_of_them and whole > MORE:
        return None
    runs: list[tuple[int, float]] = []
    try:
        for images in (FEW, MORE) if whole > MORE else (whole,):
            few = data if some_of_them else replace(data, train=data.train[torch.arange(images)])
            work = method.shared_work.run({}, before, few, None, lambda row: None, Progress())
            shared = SharedWork(work.arrays, {"metrics": dict(work.metrics), "history": []})
            seconds = _seconds(method, values, settings, method.trial_data(settings, few), shared, whole)
            runs.append((images, seconds))
    except Exception:  # whatever a method does not do with a network that nobody trained
        return None
    return extrapolated(runs, whole)


def extrapolated(runs: list[tuple[int, float]], images: int) -> float:
    """Seconds with so many images, on the line through what one or two runs took."""
    *first, (most, seconds) = runs
    if not first:
        return seconds
    ((fewer, before),) = first
    return seconds + max(0.0, seconds - before) * (images - most) / (most - fewer)


def typical_values(settings: Settings, space: SearchSpace) -> dict[str, Value]:
    """What is timed: the middle of each range, and the largest of what decides on the work."""
    values = {name: domain.middle() for name, domain in space.domains.items()}
    largest = {name: value for name, value in space.largest(settings).flat().items() if name in values}
    return {**values, **{name: value for name, value in largest.items() if name.endswith(("epochs", "width"))}}


def _seconds(
    method: Method, values: dict[str, Value], settings: Settings, data: Splits, shared: SharedWork, whole: int
) -> float:
    """Of a trial on these data, scored as often as it is with `whole` training images.

    Raises:
        ZeroDivisionError: it failed before its first epoch.
    """
    progress, reported = Progress(), [0]
    epochs = method.epochs(settings)
    progress.is_scored = scored_epochs(epochs, whole, len(data.validation))
    torch.manual_seed(settings.seed)
    start, share = time.perf_counter(), 1.0
    try:
        method.trial(values, settings, data, shared, lambda row: reported.append(int(row["epoch"])), progress)
    except TrialFailed:  # an untrained network may be pruned whole; most epochs have passed by then
        share = max(reported) / epochs
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / share
