"""Which hyperparameter moves what: shares of variance with intervals, marginal effects, and the gain over a baseline.

Targets are the study's objectives, hypervolume, and accuracy among the networks of low cost. Two measures answer
different questions. The functional ANOVA (`analysis.stats.functional_anova`) says how much of a target's variance over
the complete search space a hyperparameter causes by itself. PED-ANOVA (Optuna's) says what the best quarter of trials
has in common.

A scheduler that stops trials by how they do leaves those that did well, which are no fair sample of the space. Where it
stopped many, accuracy is that of the last epoch that all of them reached. Other objectives, which mean nothing so
early, are then left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from analysis.formatting import counted, join_words
from analysis.stats.functional_anova import QUANTILE, Array, Response, interval, resampled
from analysis.stats.names import ACCURACY
from analysis.stats.search_space import Domain, from_unit, grid, levels, to_unit, varies
from analysis.stats.summary import Summary, counts_of, history_of, summarise
from analysis.stats.targets import Target, targets
from study.records.columns import column
from study.records.search_domains import domain_from_json, is_active
from study.records.study_folder import Study

MOST_STOPPED = 0.05
"""Share of trials that a scheduler may have stopped for the complete ones to stand for all."""
MOST_FAILED = 0.05
"""Share of trials that may have failed without a warning: nothing is known of where they are in the space."""
FEWEST = 20
"""Complete trials below which nothing is said: half of them must still show a response."""
MOST = 200
"""Trials beyond which a sample of so many, with a fixed seed, stands for all: more hardly narrow the intervals, and
the cost is cubic."""
LEAST_EXPLAINED = 0.2
"""Below this leave-one-out R² a target is left out; of few trials below 10 / trials, as `least_explained` has it. Pure
noise with two to four hyperparameters gets there in one study of twenty, or less: measured with 20 to 64 trials."""
BEST_SHARE = 0.25
"""PED-ANOVA's γ'; Watanabe et al. take 0.1, which of 20 trials leaves two. Optuna asks for at least five."""
Rows = TypeVar("Rows", pd.DataFrame, pd.Series)
ANOVA, PED = "functional ANOVA", "PED-ANOVA"


@dataclass(frozen=True)
class TradeOffs:
    """What a study's trials say about its hyperparameters.

    Attributes:
        names: the hyperparameters.
        trials: rows that the responses are fitted to.
        targets, responses: by key; a response is the estimate and its resamples, see `functional_anova.resampled`.
        ped: key → hyperparameter → share, the estimate first; {} without Optuna.
        epoch: after which accuracies are, see `comparable_trials`; 0 for those that trials ended with.
        level: validation accuracy (%) of the reference, after that epoch too; NaN without one.
        notes: sentences on what was left out, and why.
    """

    summary: Summary
    names: list[str]
    trials: pd.DataFrame
    targets: dict[str, Target]
    responses: dict[str, list[Response]]
    ped: dict[str, list[dict[str, float]]]
    notes: list[str]
    epoch: int = 0
    level: float = np.nan

    def importances(self) -> pd.DataFrame:
        """One row a target, measure and hyperparameter: `share` with its 95 % interval `low`, `high`, in [0, 1].

        Functional ANOVA: share of the target's variance from this hyperparameter alone; what is missing to 1 comes
        from several together. PED-ANOVA: shares sum to 1; one without effect still has a little.
        """
        rows = []
        for key, members in self.responses.items():
            alone = [member.shares([(j,) for j in range(len(self.names))]) for member in members]
            measures = {ANOVA: alone}
            if key in self.ped:
                measures[PED] = [np.array([share[name] for name in self.names]) for share in self.ped[key]]
            for measure, values in measures.items():
                bounds = [np.clip(end, 0, 1) for end in interval(values)]
                rows += [
                    {
                        "target": key,
                        "measure": measure,
                        "hyperparameter": name,
                        "share": share,
                        "low": low,
                        "high": high,
                    }
                    for name, share, low, high in zip(self.names, *bounds, strict=True)
                ]
        return pd.DataFrame(rows, columns=["target", "measure", "hyperparameter", "share", "low", "high"])

    def effect(self, key: str, name: str, points: int = 41) -> pd.DataFrame:
        """Mean of the target at values of one hyperparameter, all others averaged: `value`, `mean`, `low`, `high`.

        One row a choice, else over the complete range, or for `given` over that which its trials span. The mean is of
        logarithms where the target's scale is logarithmic.
        """
        j, members = self.names.index(name), self.responses[key]
        at = self._points(key, j, points)
        ends = interval([member.marginal((j,), [at]) for member in members])
        mean, low, high = (self.targets[key].shown(end) for end in ends)
        return pd.DataFrame({"value": self._value(name, at), "mean": mean, "low": low, "high": high})

    def interaction(self, key: str, points: int = 25) -> dict[str, Any] | None:
        """The two hyperparameters of the largest shares: `names`, the `share` of variance that only both together
        explain with `low` and `high`, and the target's mean over them, `surface` (len(y), len(x)) at `x` and `y`. None
        for a single hyperparameter."""
        if len(self.names) < 2:
            return None
        a, b = self._largest_two(key)
        members = self.responses[key]
        parts = [member.shares([(a, b), (a,), (b,)]) for member in members]
        share, low, high = (float(np.clip(end, 0, 1)) for end in interval([p[0] - p[1] - p[2] for p in parts]))
        return {"share": share, "low": low, "high": high, **self.plane(key, self.names[a], self.names[b], points)}

    def plane(self, key: str, across: str, up: str, points: int = 25) -> dict[str, Any]:
        """The target's mean over any two hyperparameters, all others averaged: their `names`, and `surface`
        (len(y), len(x)) at `x` and `y`."""
        a, b = self.names.index(across), self.names.index(up)
        at = [self._points(key, j, points) for j in (a, b)]
        surface = self.targets[key].shown(self.responses[key][0].marginal((a, b), at).T)
        return {"names": (across, up), "surface": surface, "x": self._value(across, at[0]), "y": self._value(up, at[1])}

    def by_importance(self) -> list[str]:
        """The hyperparameters, that of the largest share of any target's variance first."""
        shares = [members[0].shares([(j,) for j in range(len(self.names))]) for members in self.responses.values()]
        largest = np.max(shares, axis=0) if shares else np.zeros(len(self.names))
        return [self.names[j] for j in np.argsort(-largest, kind="stable")]

    def gain(self, points: int = 41) -> dict[str, Any] | None:
        """Accuracy over the two hyperparameters that move it most, others averaged, less that of the reference. Only of
        studies of accuracy alone: elsewhere a loss is part of the bargain.

        Returns: `names` of the two in the order of the search space, their values `x` and `y`, and, (len(y), len(x)),
            `gain` in points with its 95 % interval `low`, `high`. None without two hyperparameters, the reference or a
            response. The reference is one training, on the trials' validation images: the interval takes it to scatter
            as trials do about the surface where that was predicted without them.
        """
        known = len(self.names) > 1 and np.isfinite(self.level) and ACCURACY in self.responses
        if self.summary.has_cost or not known:
            return None
        members = self.responses[ACCURACY]
        js = sorted(self._largest_two(ACCURACY))
        at = [self._points(ACCURACY, j, points) for j in js]
        surfaces = [member.marginal(js, at).T for member in members]
        mean, low, high = (end - self.level for end in interval(surfaces))
        accuracies = _sample(self.targets[ACCURACY].values)
        own = QUANTILE * np.sqrt(1 - members[0].explained) * float(accuracies.std(ddof=0))
        return {
            "names": tuple(self.names[j] for j in js),
            "x": self._value(self.names[js[0]], at[0]),
            "y": self._value(self.names[js[1]], at[1]),
            "gain": mean,
            "low": mean - np.hypot(mean - low, own),
            "high": mean + np.hypot(high - mean, own),
        }

    def _largest_two(self, key: str) -> list[int]:
        """Which two hyperparameters have the largest shares of a target's variance, the largest first."""
        shares = self.responses[key][0].shares([(j,) for j in range(len(self.names))])
        return [int(j) for j in np.argsort(-shares, kind="stable")[:2]]

    def _points(self, key: str, j: int, points: int) -> Array:
        """Places in [0, 1] to show a response at, see `search_space.grid`; for `given` those between its trials."""
        places = grid(self._domain(self.names[j]), points)
        if key != "given":
            return places
        nodes = self.responses[key][0].nodes[j]
        low, high = float(nodes.min()), float(nodes.max())
        if self._domain(self.names[j]).get("values"):
            return places[(places >= low) & (places <= high)]
        return np.linspace(low, high, points)

    def _value(self, name: str, at: Array) -> Any:
        return from_unit(at, self._domain(name))

    def _domain(self, name: str) -> Domain:
        return self.summary.study.meta["space"][name]


def trade_offs(study: Study, bound: float | None = None) -> TradeOffs:
    """Fit every target; a second or two. Reads searched trials alone, see `comparable_trials`.

    Args:
        bound: what trials of the target `given` reach in `Summary.cost`; without it the trials' median.
    """
    s = summarise(study)
    names = [name for name, domain in study.meta["space"].items() if varies(domain) and _is_usable(s, name)]
    with np.errstate(invalid="ignore", divide="ignore"):  # a value that its scale does not have, mistyped or infinite
        rows, epoch, level, note = comparable_trials(s)
        rows, conditional = with_inactive(rows, study.meta["space"])
        placed = [np.isfinite(to_unit(rows[name].to_numpy(), study.meta["space"][name])) for name in names]
    rows = rows[np.all(placed, axis=0)] if names else rows
    effects = TradeOffs(s, names, _sample(rows), {}, {}, {}, [note] if note else [], epoch, level)
    if conditional:
        effects.notes.append(
            f"Trials without {join_words(conditional)} count as in the middle of its range, where it changes nothing."
        )
    if note and rows.empty:
        return effects
    if len(rows) < FEWEST:
        effects.notes.append(
            f"Which hyperparameter moves what is not said: "
            f"{counted(len(rows), 'trial' if epoch else 'complete trial')}, and it takes {FEWEST}."
        )
        return effects
    if not names:
        effects.notes.append("Which hyperparameter moves what is not said: none was searched over several values.")
        return effects
    counts = counts_of(s)
    broken, tried = counts["failed"], sum(counts.values()) - counts["running"]
    if broken > MOST_FAILED * tried:
        effects.notes.append(
            f"{broken} of {tried} trials failed and are left out: where they are in the space, what is said is a guess."
        )
    for target in targets(s, rows, bound, epoch):
        _add(effects, rows, target)
    return effects


def with_inactive(rows: pd.DataFrame, space: Mapping[str, Domain]) -> tuple[pd.DataFrame, list[str]]:
    """Trials with the middle of its domain for every hyperparameter that they did not have, since its condition did not
    hold; and the names of these, as people read them."""
    rows, filled = rows.copy(), []
    for name, domain in space.items():
        if "when" not in domain or name not in rows:
            continue
        inactive = [not is_active(domain, row) for row in rows.to_dict("records")]
        if any(inactive):
            rows.loc[inactive, name] = domain_from_json(domain).middle()
            filled.append(column(name).label)
    return rows, filled


def _is_usable(s: Summary, name: str) -> bool:
    """Whether a hyperparameter's values are what its domain says: choices, or numbers."""
    return bool(s.study.meta["space"][name].get("values")) or pd.api.types.is_numeric_dtype(s.trials[name])


def comparable_trials(s: Summary) -> tuple[pd.DataFrame, int, float, str]:
    """Trials that stand for the complete space, the epoch after which their accuracy is (0: at their end), that of the
    reference, and a sentence where trials were stopped for how they did; without rows where none stand for it."""
    level = np.nan if s.reference is None else float(s.reference[ACCURACY])
    stopped = s.trials[(s.trials["baseline"] == "") & (s.trials["state"] == "pruned")]
    every = pd.concat([s.searched, stopped])
    if len(stopped) <= MOST_STOPPED * len(every):
        return s.searched, 0, level, ""
    note = (
        f"The scheduler stopped {len(stopped)} of {len(every)} trials for how they did, so the others are no fair "
        "sample"
    )
    history = history_of(s.study)
    history = history[history[ACCURACY].notna()]
    last = history[history["trial_id"].isin(every["trial_id"])].groupby("trial_id")["epoch"].max()
    epoch = 0 if last.empty else int(last.min())
    if list(s.study.objectives) != [ACCURACY] or not epoch:
        return every.iloc[:0], 0, level, f"Which hyperparameter moves what is not said: {note[0].lower()}{note[1:]}."
    then = history[history["epoch"] == epoch].drop_duplicates("trial_id").set_index("trial_id")[ACCURACY]
    if s.reference is not None:
        level = float(then.get(s.reference["trial_id"], np.nan))
    early = every.assign(**{ACCURACY: every["trial_id"].map(then)}).dropna(subset=[ACCURACY])
    return early, epoch, level, f"{note}: here accuracy is that after epoch {epoch}, which all of them reached."


def least_explained(trials: int) -> float:
    """Leave-one-out R² from which on a target of so many trials is shown."""
    return max(LEAST_EXPLAINED, 10 / trials)


def _add(effects: TradeOffs, rows: pd.DataFrame, target: Target) -> None:
    """Fit one target, or note why not."""
    values = _sample(target.values)
    used, y = rows.loc[values.index], values.to_numpy()
    if len(used) < FEWEST:
        effects.notes.append(f"{target.title}: left out, {len(used)} trials are too few; it takes {FEWEST}.")
        return
    domains = [effects.summary.study.meta["space"][name] for name in effects.names]
    x = np.stack([to_unit(used[name].to_numpy(), d) for name, d in zip(effects.names, domains, strict=True)], axis=1)
    # Networks of low cost fill a corner of the space: there averages are over the values that they have.
    nodes = list(x.T) if target.key == "given" else [levels(domain) for domain in domains]
    members = resampled(x, y, nodes) if np.ptp(y) else []
    if not members or members[0].explained < least_explained(len(used)):
        explained = max(0.0, members[0].explained) if members else 0.0
        effects.notes.append(
            f"{target.title}: left out, the hyperparameters explain {explained:.0%} of its variance "
            f"(leave-one-out R²), less than {least_explained(len(used)):.0%}."
        )
        return
    effects.targets[target.key], effects.responses[target.key] = target, members
    try:
        effects.ped[target.key] = ped_anova(x, y, effects.names, target.direction, len(members) - 1)
    except ImportError:
        missing = "PED-ANOVA is left out: Optuna is not installed here."
        if missing not in effects.notes:
            effects.notes.append(missing)


def ped_anova(x: Array, y: Array, names: list[str], direction: str, halves: int) -> list[dict[str, float]]:
    """Optuna's PED-ANOVA: how much the best quarter of trials differs from all of them in each hyperparameter's
    distribution, as shares; first of all trials, then of random halves as in `functional_anova.resampled`.

    Reference: Watanabe et al. 2023, IJCAI, https://arxiv.org/abs/2304.10255.
    """
    import optuna  # the report needs it for this alone

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distribution: dict[str, Any] = dict.fromkeys(names, optuna.distributions.FloatDistribution(0.0, 1.0))
        frozen = [
            optuna.trial.create_trial(
                params=dict(zip(names, np.clip(row, 0, 1).tolist(), strict=True)),
                distributions=distribution,
                value=float(value),
            )
            for row, value in zip(x, y, strict=True)
        ]
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)  # it announces every study
        study = optuna.create_study(direction="maximize" if direction == "max" else "minimize")
        optuna.logging.set_verbosity(level)
        study.add_trials(frozen)
        everything = study.get_trials()
        rng = np.random.default_rng(0)
        samples = [np.arange(len(y)), *(rng.permutation(len(y))[: len(y) // 2] for _ in range(halves))]
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
        shares = []
        for sample in samples:
            # A study for each sample would cost more than all the rest.
            study.get_trials = lambda *_, sample=sample, **__: [everything[i] for i in sample]  # type: ignore[method-assign]
            importances = optuna.importance.get_param_importances(study, evaluator=evaluator)
            shares.append({name: float(importances.get(name, 0.0)) for name in names})
    return shares


def _sample(rows: Rows) -> Rows:
    return rows if len(rows) <= MOST else rows.sample(MOST, random_state=0).sort_index()
