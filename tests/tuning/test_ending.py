"""When a search ends before `--num-samples`, and trials of several seeds."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from study.artifacts.checkpoints import Progress
from study.durations import seconds_of
from study.errors import UserError
from study.methods import registry
from study.methods.method import TrialResult
from study.records.ledger import Ledger
from study.tuning.ending import Ending, last_without_gain
from study.tuning.repeats import STEP, mean_score, train_with_seeds

BOTH = {"val_accuracy": "max", "file_bytes": "min"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5h", 5400), ("1h30m", 5400), ("1d", 86_400)]
)
def test_a_duration(text: str, seconds: float) -> None:
    """Numbers with a unit each, added."""
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "2 h", "2x", "-1h", "0h", "1h 30m", "1e3s", "nan"])
def test_what_is_no_duration_is_one_line(text: str) -> None:
    """With the flag, and examples."""
    with pytest.raises(
        UserError, match=rf"^--time {text}: is no duration; give one such as 90s, 30m, 2h, 1h30m or 1d$"
    ):
        seconds_of(text)
    assert seconds_of(None) == math.inf


def trial(accuracy: float, size: float = 1000.0, state: str = "complete") -> dict[str, Any]:
    return {"state": state, "val_accuracy": accuracy, "file_bytes": size}


def test_a_search_stalls_when_nothing_new_comes() -> None:
    """After 20 trials, or a third of all, that bring nothing; stopped and failed ones count as trials."""
    best = {"val_accuracy": "max"}
    rising = [trial(50 + i) for i in range(20)]
    idle = [trial(60.0), trial(99.0, state="pruned")] * 10
    assert last_without_gain(rising + idle, best) == 20
    assert last_without_gain(rising + idle[:-1], best) == 0  # fewer than twice 20
    assert last_without_gain(rising + idle[:-1] + [trial(69.5)], best) == 0
    long = [trial(50 + i / 10) for i in range(100)]
    assert last_without_gain(long + idle, best) == 0  # a third is 40 by now
    assert last_without_gain(long + idle * 3, best) == 53


def test_several_objectives_stall_by_hypervolume() -> None:
    """A point that adds next to nothing does not count; one that extends the front does. Bytes count by order."""
    front = [trial(90 + i / 2, 100.0 * 2**i) for i in range(20)]
    inside = [trial(80.0, 1e6)] * 19
    assert last_without_gain([*front, *inside, trial(80.0, 1e6)], BOTH) == 20
    assert last_without_gain([*front, *inside, trial(90.0, 99.9)], BOTH) == 20
    assert last_without_gain([*front, *inside, trial(90.0, 10.0)], BOTH) == 0
    assert last_without_gain([*front, *inside, trial(89.0, 10.0)], BOTH, min_accuracy=89.5) == 20


def test_a_search_ends_after_its_time(tmp_path: Path) -> None:
    """And not before it."""
    settings = registry.default_settings("kd").changed(time="2h")
    ledger = Ledger.open(tmp_path)
    assert Ending(settings, ledger, BOTH, time.monotonic() + 60)() == ""
    assert Ending(settings, ledger, BOTH, time.monotonic())() == "--time 2h is over"


def test_the_score_of_several_seeds_is_their_mean() -> None:
    """Of what the luck of training is in; what says something of the network that stays is that of the first seed; and
    the spread has one less in its denominator."""
    luck = ("val_accuracy", "val_loss", "train_loss", "accuracy_drop", "unquantised_val_accuracy")
    network = ("file_bytes", "compression_ratio", "sparsity", "nonzero_ratio", "entropy_ratio", "codebook_values_used",
               "parameters", "weight_bytes", "anything_else")  # fmt: skip
    rows = [{**dict.fromkeys(luck, 90.0), **dict.fromkeys(network, 100), "words": "a"},
            {**dict.fromkeys(luck, 94.0), **dict.fromkeys(network, 103), "words": "b"}]  # fmt: skip
    mean = mean_score(rows)
    own = {**dict.fromkeys(network, 100), "words": "a", "first_val_accuracy": 90.0}
    assert mean == {**dict.fromkeys(luck, 92.0), **own, "val_accuracy_sd": 8**0.5}


def test_a_trial_of_several_seeds() -> None:
    """The same data and shared work, other seeds; the arrays, the file with its size and the epochs are the first's."""
    seeds: list[int] = []
    epochs: list[dict[str, Any]] = []
    alive: list[int] = []

    def run(values: Any, settings: Any, data: Any, shared: Any, on_epoch: Any, progress: Any) -> TrialResult:
        seeds.append(settings.seed)
        for epoch in (1, 2):
            on_epoch({"epoch": epoch, "phase": "train", "val_accuracy": 80.0 + 2 * len(seeds) + epoch})
        return TrialResult({"file_bytes": 10 * len(seeds)}, {"w": np.array([len(seeds)])}, b"%d" % len(seeds))

    settings = registry.default_settings("kd").changed(seed=7, seeds_per_trial=3)
    result = train_with_seeds(
        run, {}, settings, "data", None, epochs.append, Progress(on_epoch=lambda: alive.append(1))
    )
    assert seeds == [7, 7 + STEP, 7 + 2 * STEP] and len(epochs) == 2 and len(alive) == 4
    means = {"val_accuracy": 86.0, "first_val_accuracy": 84.0, "val_accuracy_sd": 2.0}
    assert result.metrics == {"file_bytes": 10, **means}
    assert result.file == b"1" and result.arrays["w"] == 1
    alone = train_with_seeds(run, {}, settings.changed(seeds_per_trial=None), "data", None, epochs.append, Progress())  # type: ignore[arg-type]
    assert alone.metrics == {"file_bytes": 40}
