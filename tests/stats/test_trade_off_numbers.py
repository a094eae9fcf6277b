"""What the trade-offs, the prior's curves and small helpers say, number by number."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from analysis.stats import weight_trace
from analysis.stats.functional_anova import interval
from analysis.stats.importance import TradeOffs, trade_offs
from analysis.stats.search_space import from_unit
from analysis.stats.standard_error import half_width
from study.records.schema import upgrade
from study.records.study_folder import Study, read_trace

UNIT = {"type": "float", "low": 0.0, "high": 1.0, "log": False}
CHOICES = {"type": "choice", "values": [32, 64, 256]}


def made(weights: dict[str, float], noise: float, alone: float = 91.0) -> Study:
    """A KD study of 40 trials whose accuracy is 90 plus a weighted sum, and its student alone."""
    rng = np.random.default_rng(5)
    x = rng.random((40, len(weights)))
    accuracy = 90 + x @ np.array(list(weights.values())) + rng.normal(0, noise, 40)
    frame = pd.DataFrame({"trial_id": [f"t{i:03d}" for i in range(40)], "baseline": "", "val_accuracy": accuracy})
    searched = frame.assign(**dict(zip(weights, x.T, strict=True)))
    reference = pd.DataFrame([{"trial_id": "b", "baseline": "student alone", "val_accuracy": alone}])
    space: dict[str, Any] = dict.fromkeys(weights, UNIT)
    meta = {**synthetic.meta_of("kd", 40), "space": space, "objectives": {"val_accuracy": "max"}}
    empty = pd.DataFrame(columns=["trial_id", "epoch", "phase"])
    trials = pd.concat([searched, reference], ignore_index=True).assign(state="complete", reason="")
    return Study(Path("."), upgrade(meta), trials, empty, pd.DataFrame(columns=["trial_id", "baseline", "seed"]))


@pytest.fixture(scope="module")
def three() -> TradeOffs:
    """`c` matters most, then `a`; `b` does nothing."""
    return trade_offs(made({"a": 3.0, "b": 0.0, "c": 6.0}, noise=0.8))


def test_shares_and_their_intervals_are_shares(three: TradeOffs) -> None:
    """None is below 0 or above 1, not even the end of an interval about a share of nothing."""
    table = three.importances()[["share", "low", "high"]].to_numpy()
    assert table.min() >= 0 and table.max() <= 1


def test_the_two_that_matter_most_are_shown_together(three: TradeOffs) -> None:
    """The gain is over them in the order of the search space, the interaction with the larger first; its surface is
    that of the fit to all trials."""
    gain, together = three.gain(), three.interaction("val_accuracy", points=5)
    assert gain is not None and gain["names"] == ("a", "c") and gain["gain"].shape == (41, 41)
    assert together is not None and together["names"] == ("c", "a")
    places = np.linspace(0, 1, 5)
    expected = three.responses["val_accuracy"][0].marginal((2, 0), [places, places]).T
    np.testing.assert_allclose(together["surface"], three.targets["val_accuracy"].shown(expected))


def test_the_gain_is_as_uncertain_as_the_reference_is(three: TradeOffs) -> None:
    """Its interval joins, as independent errors, that of the mean and 1.96 times the spread of one training about the
    surface, which is what the fit to all trials leaves unexplained."""
    gain, members = three.gain(points=3), three.responses["val_accuracy"]
    assert gain is not None
    places = [np.linspace(0, 1, 3)] * 2
    mean, low, high = interval([member.marginal([0, 2], places).T for member in members])
    accuracies = three.summary.study.trials["val_accuracy"][:40]
    own = 1.96 * np.sqrt(1 - members[0].explained) * accuracies.std(ddof=0)
    np.testing.assert_allclose(gain["gain"], mean - 91.0)
    np.testing.assert_allclose(gain["gain"] - gain["low"], np.sqrt((mean - low) ** 2 + own**2), rtol=1e-3)
    np.testing.assert_allclose(gain["high"] - gain["gain"], np.sqrt((high - mean) ** 2 + own**2), rtol=1e-3)


def test_a_target_that_is_left_out_says_how_little_is_explained() -> None:
    """The percent in the sentence is less than what it asks for."""
    (note, *_) = trade_offs(made({"a": 0.0, "b": 0.0}, noise=1.0)).notes
    explained, least = map(int, re.findall(r"(\d+)%", note))
    assert 0 <= explained < least == 25


def test_every_component_of_the_prior_has_points_of_its_own(tmp_path: Path) -> None:
    """However narrow: at its mean and to five standard deviations on both sides, where these are in the figure."""
    folder = synthetic.write_sws(tmp_path / "sws")
    synthetic.write_trace(folder, "t001")
    trace = read_trace(folder, "t001")
    last = max(i for i in range(len(trace["epoch"])) if f"means/{i}" in trace)
    at = weight_trace.priors(trace)["weight"].to_numpy()
    low, high = trace["edges"][0], trace["edges"][-1]
    for mean, sigma in weight_trace.mixture(trace, last)[["mean", "sigma"]].to_numpy():
        for wanted in mean + sigma * np.arange(-5, 6):
            assert not low <= wanted <= high or np.abs(at - wanted).min() < 1e-9


def test_beyond_the_ends_of_a_choice_are_its_ends() -> None:
    """A place outside [0, 1], as a search may round to, is the first or the last choice."""
    for choice in (CHOICES, {"type": "choice", "values": [1, 2]}, {"type": "choice", "values": [1, 2, 3, 4]}):
        ends = from_unit(np.array([-0.9, 1.9]), choice).tolist()
        assert ends == [choice["values"][0], choice["values"][-1]]  # type: ignore[index]


def test_equal_means_equal_but_for_rounding() -> None:
    """Two scores that differ by 1e-9, or by 1e-9 of their size where they are large, are the same; others are not."""
    t1 = np.tan(0.475 * np.pi)
    assert np.isnan(half_width(pd.Series([0.0, 0.9e-9]))) and np.isnan(half_width(pd.Series([100.0, 100 + 0.9e-7])))
    for a, b in ((0.0, 1.5e-9), (100.0, 100 + 1.5e-7)):
        assert half_width(pd.Series([a, b])) == pytest.approx(t1 * (b - a) / 2, rel=1e-5)


def test_one_hyperparameter_has_neither_interaction_nor_gain() -> None:
    """It takes two."""
    single = trade_offs(made({"a": 4.0}, noise=0.3))
    assert list(single.targets) == ["val_accuracy"] and single.interaction("val_accuracy") is None
    assert single.gain() is None


def test_without_the_reference_there_is_no_gain(three: TradeOffs) -> None:
    """Nothing is known of what it would be compared with."""
    study: Any = three.summary.study
    without = dataclasses.replace(study, trials=study.trials[study.trials["baseline"] == ""])
    assert trade_offs(without).gain() is None
