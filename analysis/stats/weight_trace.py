"""A trial's weights as frames, from its trace in the study folder; see `study.artifacts.weight_trace`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.special import logsumexp, ndtr

from analysis.stats.pareto_front import finished
from analysis.stats.summary import Summary, numeric
from study.records import study_folder
from study.records.columns import COLUMNS
from study.records.study_folder import Study

Trace = Mapping[str, np.ndarray]

EARLY = (0.25, 0.5, 0.75)
"""Shares of the compressing epochs after which a provisional value is compared with the final one."""
COMPRESSING = ("cluster", "prune", "quantise")
"""Phases of a history in which a network is compressed; what comes before or after leaves its zeros as they are."""


def traced(study: Study, trial_ids: list[str]) -> tuple[str, Trace]:
    """The first of these trials that left a trace, and its trace; ("", {}) if none did."""
    for trial_id in trial_ids:
        trace = study_folder.read_trace(study.folder, trial_id)
        if {"edges", "epoch", "phase", "occupancy"} <= trace.keys():
            return trial_id, trace
    return "", {}


def shown(s: Summary) -> tuple[str, Trace]:
    """The trial whose weights the report shows, and its trace: the headline trial of a study with a cost, or else the
    first of the front, or of all trials; ("", {}) if none left a trace."""
    answer = [str(s.best["trial_id"])] if s.best is not None and s.has_cost else []
    return traced(s.study, [*answer, *s.front["trial_id"], *s.searched["trial_id"]])


def moments(trace: Trace, most: int) -> list[int]:
    """Numbers of at most `most` frames, evenly spaced, with the first and the last."""
    count = len(trace["epoch"])
    return sorted({round(i) for i in np.linspace(0, count - 1, min(most, count))})


def title_of(trace: Trace, number: int) -> str:
    """What a frame shows, in two words."""
    phase, epoch = str(trace["phase"][number]), int(trace["epoch"][number])
    return phase if phase in ("before", "quantised") else f"{phase}, epoch {epoch}"


def histogram(trace: Trace, number: int) -> pd.DataFrame:
    """One row a bin: its middle `weight`, how many `weights` lie in it, how many are `expected` under the mixture (NaN
    without one)."""
    edges, counts = trace["edges"].astype(float), trace[f"counts/{number}"].astype(float)
    frame = pd.DataFrame({"weight": (edges[:-1] + edges[1:]) / 2, "weights": counts, "expected": np.nan})
    parts = mixture(trace, number)
    if len(parts):
        inner = edges.copy()
        inner[0], inner[-1] = -np.inf, np.inf  # what lies outside was counted in the outermost bins
        z = (inner[:, None] - parts["mean"].to_numpy()) / parts["sigma"].to_numpy()
        frame["expected"] = counts.sum() * (np.diff(ndtr(z), axis=0) @ parts["proportion"].to_numpy())
    return frame


def mixture(trace: Trace, number: int) -> pd.DataFrame:
    """One row a component: `mean`, `sigma`, `proportion`; no rows where the frame has no mixture."""
    if f"means/{number}" not in trace:
        return pd.DataFrame({"mean": [], "sigma": [], "proportion": []}, dtype=float)
    return pd.DataFrame(
        {
            "mean": trace[f"means/{number}"],
            "sigma": trace[f"sigmas/{number}"],
            "proportion": trace[f"proportions/{number}"],
        }
    ).astype(float)


def penalty(parts: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    """−log p(w) in nats of each weight under the mixture."""
    mean, sigma, proportion = (parts[c].to_numpy() for c in ("mean", "sigma", "proportion"))
    z = (weights[:, None] - mean) / sigma
    with np.errstate(divide="ignore"):
        return -logsumexp(np.log(proportion) - np.log(sigma * np.sqrt(2 * np.pi)) - 0.5 * z**2, axis=1)


def priors(trace: Trace, points: int = 401) -> pd.DataFrame:
    """What one weight costs, −log p(w) in nats, by `weight`: `l2`, a Gaussian at zero as wide as the trained weights;
    `first` and `last`, the mixture before clustering and at its end."""
    numbers = [i for i in range(len(trace["epoch"])) if len(mixture(trace, i))]
    if not numbers:
        return pd.DataFrame()
    before = histogram(trace, 0)
    width = np.sqrt((before["weight"] ** 2 * before["weights"]).sum() / before["weights"].sum())
    gaussian = pd.DataFrame({"mean": [0.0], "sigma": [width], "proportion": [1.0]})
    last = mixture(trace, numbers[-1])
    # Narrow components fall between even points: each has its own about its mean.
    near = (last["mean"].to_numpy()[:, None] + last["sigma"].to_numpy()[:, None] * np.linspace(-5, 5, 11)).ravel()
    low, high = float(trace["edges"][0]), float(trace["edges"][-1])
    at = np.unique(np.clip(np.concatenate([np.linspace(low, high, points), near]), low, high))
    return pd.DataFrame(
        {
            "weight": at,
            "l2": penalty(gaussian, at),
            "first": penalty(mixture(trace, numbers[0]), at),
            "last": penalty(last, at),
        }
    )


def followed(trace: Trace, number: int) -> pd.DataFrame:
    """The sampled weights `before` and `after`, that is at this frame."""
    return pd.DataFrame({"before": trace["sample/0"].astype(float), "after": trace[f"sample/{number}"].astype(float)})


def layers(trace: Trace) -> pd.DataFrame:
    """One row a shared tensor: `layer`, `weights`, `nonzero`, `sparsity` (%)."""
    weights, nonzero = trace["layer_weights"].astype(float), trace["layer_nonzero"].astype(float)
    return pd.DataFrame(
        {
            "layer": trace["layers"].astype(str),
            "weights": weights,
            "nonzero": nonzero,
            "sparsity": 100 * (1 - nonzero / np.maximum(weights, 1)),
        }
    )


def codebook(trace: Trace) -> pd.DataFrame:
    """One row a value that weights have: `value`, `weights`; the smallest value first."""
    frame = pd.DataFrame({"value": trace["codebook"].astype(float), "weights": trace["occupancy"].astype(int)})
    return frame[frame["weights"] > 0].sort_values("value", ignore_index=True)


def early_metric(study: Study) -> str:
    """The share of zeros, or its like, that every epoch reports and a finished trial has: the first metric declared on
    a complement scale that both tables have; "" without one."""
    names = [name for name, column in COLUMNS.items() if column.scale == "complement"]
    return next((name for name in names if name in study.history and name in study.trials), "")


def provisional(study: Study) -> pd.DataFrame:
    """How well early values of `early_metric` tell the final ones.

    Returns: a row a complete trial and share of `EARLY`: `trial_id`, `share`, and the metric then (`provisional`) and
        at the end (`final`), in its unit. Empty for a study without the metric, or without phases that compress.
    """
    metric = early_metric(study)
    if not metric:
        return pd.DataFrame(columns=pd.Index(["trial_id", "share", "provisional", "final"]))
    history = numeric(study.history, ["trial_id", "epoch", "phase", metric])
    final = finished(numeric(study.trials, [metric])).set_index("trial_id")[metric]
    counted = history["phase"].isin(COMPRESSING) & history[metric].notna()
    history = history[counted & history["trial_id"].isin(final.index)].sort_values("epoch", kind="stable")
    epochs = history.groupby("trial_id", sort=False)[metric]
    place, length = epochs.cumcount(), epochs.transform("size")  # no loop: a long study has 10,000 trials
    at = [(share, (share * length).round().clip(1) - 1) for share in EARLY]
    # Where that is the last epoch there is nothing early about it.
    early = [history[(place == then) & (then < length - 1)].assign(share=share) for share, then in at]
    rows = pd.concat(early).rename(columns={metric: "provisional"}).sort_values(["trial_id", "share"])
    rows["final"] = rows["trial_id"].map(final)
    return rows.reset_index(drop=True)[["trial_id", "share", "provisional", "final"]]
