"""How a network was pruned, as frames from its trace: what survives of each layer, and what the score decided on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.stats.weight_trace import Trace

ALL = ""
"""In place of a layer's name: all layers together."""
SURVIVOR_COLUMNS = ["layer", "epoch", "phase", "weights", "survivors", "share"]


@dataclass(frozen=True)
class Scores:
    """The weights that a score w² v̂ᵖ decided on, with the magnitude and gradient that each had at that time.

    Attributes:
        frame: a sample; one row a weight: its magnitude as `weight`, its `gradient` √v̂, and whether it `survives`.
        power: p.
        threshold: the smallest score of a survivor.
        magnitude_threshold: the smallest magnitude of those that magnitude would keep at the same density.
        survivors, pruned: how many of all weights.
        disputed: survivors that magnitude would have pruned.
        hidden: of all weights, those that a logarithmic axis has no place for, since one of both is zero.
    """

    frame: pd.DataFrame
    power: float
    threshold: float
    magnitude_threshold: float
    survivors: int
    pruned: int
    disputed: int
    hidden: int


def survivors(trace: Trace) -> pd.DataFrame:
    """What is not zero of each layer, epoch by epoch, and at the end.

    Returns: one row a layer and recorded epoch: `layer` (`ALL` for all together), `epoch`, `phase`, `weights`,
        `survivors`, and their `share` (%). Empty where no weight is at zero before it is quantised.
    """
    numbers = [i for i in range(len(trace["epoch"])) if f"nonzero/{i}" in trace]
    counts = [(i, trace[f"nonzero/{i}"]) for i in numbers]
    sizes = trace["layer_weights"].astype(int)
    if not any((count < sizes).any() for _, count in counts):
        return pd.DataFrame(columns=pd.Index(SURVIVOR_COLUMNS))
    counts.append((len(trace["epoch"]) - 1, trace["layer_nonzero"]))
    names = [ALL, *trace["layers"].astype(str)]
    rows = [
        (name, int(trace["epoch"][i]), str(trace["phase"][i]), int(weights), int(nonzero))
        for i, count in counts
        for name, weights, nonzero in zip(names, [sizes.sum(), *sizes], [count.sum(), *count], strict=True)
    ]
    frame = pd.DataFrame(rows, columns=pd.Index(SURVIVOR_COLUMNS[:-1]))
    return frame.assign(share=100 * frame["survivors"] / frame["weights"])


def scores(trace: Trace) -> Scores | None:
    """What the score decided on; None where weights were pruned by their magnitude, or not at all, and where no weight
    has a place on logarithmic axes."""
    if "score_counts" not in trace:
        return None
    kept, pruned, disputed, hidden = (int(count) for count in trace["score_counts"])
    threshold, magnitude_threshold = (float(value) for value in trace["score_thresholds"])
    columns = {"weight": "score_magnitude", "gradient": "score_gradient", "survives": "score_survives"}
    frame = pd.DataFrame({name: trace[key] for name, key in columns.items()})
    if frame.empty:
        return None
    power = float(trace["score_power"])
    return Scores(frame, power, threshold, magnitude_threshold, kept, pruned, disputed, hidden)


def boundary(scored: Scores, gradients: np.ndarray) -> np.ndarray:
    """The magnitude at which a weight of this gradient has the threshold's score: √threshold / √v̂ᵖ."""
    return np.sqrt(scored.threshold) * gradients**-scored.power
