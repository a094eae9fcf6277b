"""Importances, effects and interactions of functions whose decomposition is known."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from analysis.stats import functional_anova, importance
from analysis.stats.functional_anova import Array
from analysis.stats.importance import ANOVA, PED, TradeOffs, least_explained, trade_offs, with_inactive
from analysis.stats.search_space import from_unit, to_unit
from analysis.stats.targets import _target, fenced, targets
from study.records import paths, study_folder
from study.records.schema import upgrade
from study.records.study_folder import Study, load

LOG = {"type": "float", "low": 1e-3, "high": 1.0, "log": True}
UNIT = {"type": "float", "low": 0.0, "high": 1.0, "log": False}
SLACK = {"type": "float", "low": 1e-4, "high": 0.2, "log": True}


def made(
    response: Callable[[Array], Array],
    space: dict[str, dict[str, Any]],
    trials: int = 64,
    noise: float = 0.0,
    seed: int = 0,
    **extra: Any,
) -> Study:
    """A study whose accuracy is `response` of the hyperparameters on the unit cube, plus noise in its own unit."""
    rng = np.random.default_rng(seed)
    x = rng.random((trials, len(space)))
    columns = {name: from_unit(x[:, j], domain) for j, (name, domain) in enumerate(space.items())}
    frame = pd.DataFrame(
        {
            "trial_id": [f"t{i:03d}" for i in range(trials)],
            "state": "complete",
            "reason": "",
            "baseline": "",
            **columns,
            "val_accuracy": response(x) + rng.normal(0, noise, trials),
        }
    )
    empty = pd.DataFrame(columns=["trial_id", "epoch", "phase"])
    meta = {**synthetic.meta_of("kd", trials), "space": space, "objectives": {"val_accuracy": "max"}, **extra}
    return Study(Path("."), upgrade(meta), frame, empty, pd.DataFrame(columns=["trial_id", "baseline", "seed"]))


def shares(t: TradeOffs, measure: str = ANOVA, key: str = "val_accuracy") -> pd.DataFrame:
    frame = t.importances()
    return frame[(frame["target"] == key) & (frame["measure"] == measure)].set_index("hyperparameter")


@pytest.fixture(scope="module")
def sws(tmp_path_factory: pytest.TempPathFactory) -> TradeOffs:
    return trade_offs(load(synthetic.write_sws(tmp_path_factory.mktemp("sws"))))


def test_only_what_matters_is_important() -> None:
    """Where accuracy depends on one hyperparameter alone, that one has nearly all of it by both measures, and its
    interval lies above those of the others."""
    t = trade_offs(made(lambda x: 90 + 8 * x[:, 0], {"a": UNIT, "b": UNIT, "c": UNIT}, noise=0.5))
    anova, ped = shares(t), shares(t, PED)
    assert anova.loc["a", "share"] > 0.95 and anova["share"].drop("a").max() < 0.03
    assert anova.loc["a", "low"] > anova["high"].drop("a").max()
    assert ped.loc["a", "share"] > 0.7 and ped["share"].sum() == pytest.approx(1)
    assert ped.loc["a", "low"] > ped["share"].drop("a").max()


def test_shares_are_those_of_the_closed_form() -> None:
    """y = a + b / 2 has shares 4/5 and 1/5 and no interaction; y = (a − ½)(b − ½) is interaction alone."""
    additive = trade_offs(made(lambda x: 90 + 4 * x[:, 0] + 2 * x[:, 1], {"a": UNIT, "b": UNIT}, noise=0.1))
    assert shares(additive)["share"].tolist() == pytest.approx([0.8, 0.2], abs=0.03)
    together = additive.interaction("val_accuracy")
    assert together is not None and together["share"] < 0.01 and set(together["names"]) == {"a", "b"}
    crossed = trade_offs(made(lambda x: 90 + 9 * (x[:, 0] - 0.5) * (x[:, 1] - 0.5), {"a": UNIT, "b": UNIT}, noise=0.1))
    together = crossed.interaction("val_accuracy")
    assert together is not None and together["low"] > 0.85 and shares(crossed)["share"].max() < 0.05


@pytest.mark.parametrize("response", [lambda x: x[:, 0] + x[:, 0] * x[:, 1], lambda x: np.sin(6 * x[:, 0]) + x[:, 2]])
def test_shares_agree_with_optunas_fanova(response: Callable[[Array], Array]) -> None:
    """From many trials without noise, the shares are those of Optuna's fANOVA, a random forest, within 0.06."""
    optuna = pytest.importorskip("optuna")
    rng = np.random.default_rng(3)
    x = rng.random((150, 3))
    y = response(x)
    study = optuna.create_study()
    domain = dict.fromkeys("abc", optuna.distributions.FloatDistribution(0, 1))
    study.add_trials(
        [
            optuna.trial.create_trial(params=dict(zip("abc", row, strict=True)), distributions=domain, value=value)
            for row, value in zip(x, y, strict=True)
        ]
    )
    theirs = optuna.importance.FanovaImportanceEvaluator(n_trees=16, seed=0).evaluate(study)
    ours = functional_anova.fit(x, y).shares([(0,), (1,), (2,)])
    assert ours == pytest.approx([theirs[name] for name in "abc"], abs=0.06)


def test_closed_forms_are_averages_of_the_response() -> None:
    """Marginals and shares of a fitted response are what averaging it over a dense grid gives, to 1e-9."""
    rng = np.random.default_rng(0)
    x = rng.random((30, 3))
    fitted = functional_anova.fit(x, np.sin(5 * x[:, 0]) * x[:, 1] + x[:, 2] ** 2)
    grid = functional_anova.GRID
    dense = np.stack(np.meshgrid(grid, grid, grid, indexing="ij"), axis=-1).reshape(-1, 3)
    kernel = np.exp(-0.5 * (((dense[:, None] - x) / fitted.scales) ** 2).sum(axis=2))
    f = (fitted.mean + kernel @ fitted.coefficients).reshape(40, 40, 40)
    assert np.allclose(fitted.marginal((1,), [grid]), f.mean(axis=(0, 2)), atol=1e-9)
    assert np.allclose(fitted.marginal((2, 0), [grid, grid]), f.mean(axis=1).T, atol=1e-9)
    expected = [f.mean(axis=(1, 2)).var() / f.var(), f.mean(axis=2).var() / f.var()]
    assert np.allclose(fitted.shares([(0,), (0, 1)]), expected, atol=1e-7)


def test_the_kernel_is_the_most_likely_one() -> None:
    """The gradient that its search follows is that of the likelihood, and it ends no worse than scikit-learn's."""
    process = pytest.importorskip("sklearn.gaussian_process")
    kernels = pytest.importorskip("sklearn.gaussian_process.kernels")
    rng = np.random.default_rng(1)
    x = rng.random((40, 2))
    z = np.sin(6 * x[:, 0]) + 0.3 * rng.normal(size=40)
    z = (z - z.mean()) / z.std()
    squares = np.stack([(x[:, j, None] - x[:, j]) ** 2 for j in range(2)])
    at = np.log([0.8, 0.4, 0.7, 0.2])
    steps = 1e-6 * np.eye(4)
    numeric = [
        (functional_anova._surprise(at + h, squares, z)[0] - functional_anova._surprise(at - h, squares, z)[0]) / 2e-6
        for h in steps
    ]
    assert functional_anova._surprise(at, squares, z)[1] == pytest.approx(numeric, rel=1e-5, abs=1e-6)
    kernel = kernels.ConstantKernel(1.0, functional_anova.VARIANCE) * kernels.RBF([0.5, 0.5], functional_anova.LENGTH)
    kernel += kernels.WhiteKernel(0.1, functional_anova.NOISE)
    theirs = process.GaussianProcessRegressor(kernel).fit(x, z).log_marginal_likelihood_value_
    assert -functional_anova._surprise(functional_anova.fit(x, z).kernel, squares, z)[0] >= theirs - 1e-3


def test_intervals_cover_about_as_often_as_they_say() -> None:
    """Over 20 studies of 40 trials, half noise, 95 % intervals hold the true shares in at least 85 % of cases (95 % of
    40, less three standard errors) and the true curve's points, which are not independent, in at least 80 %."""
    truth, at = np.array([0.8, 0.2]), np.array([0.2, 0.5, 0.8])
    inside, on_curve = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = rng.random((40, 2))
        y = 2 * x[:, 0] + x[:, 1] + rng.normal(0, 0.5, 40)
        members = functional_anova.resampled(x, y, halves=20, seed=seed)
        _, low, high = functional_anova.interval([member.shares([(0,), (1,)]) for member in members])
        inside.append((low <= truth) & (truth <= high))
        _, low, high = functional_anova.interval([member.marginal((0,), [at]) for member in members])
        on_curve.append((low <= 2 * at + 0.5) & (2 * at + 0.5 <= high))
        assert np.all(high - low < 1.5)  # of a range of 2: not so wide that they cannot miss
    assert np.mean(inside) >= 0.85 and np.mean(on_curve) >= 0.8


def test_noise_has_no_importance() -> None:
    """Where the hyperparameters explain nothing nothing is claimed, and a sentence says so."""
    t = trade_offs(made(lambda x: np.full(len(x), 95.0), {"a": UNIT, "b": UNIT}, noise=1.0))
    assert not t.targets and t.importances().empty and "explain" in t.notes[0]
    constant = trade_offs(made(lambda x: np.full(len(x), 95.0), {"a": UNIT, "b": UNIT}))
    assert not constant.targets and "explain 0%" in constant.notes[0]


@pytest.mark.parametrize("trials", [0, 1, 19])
def test_few_trials_have_no_importance(trials: int) -> None:
    """Below 20 complete trials nothing is returned but the reason."""
    t = trade_offs(made(lambda x: 90 + x[:, 0], {"a": UNIT, "b": UNIT}, trials))
    assert not t.targets and t.gain() is None and t.importances().empty
    assert f"{trials} complete trial" in t.notes[0] and "takes 20" in t.notes[0]


def test_only_complete_searched_trials_count() -> None:
    """A few pruned trials and any baselines change nothing, whatever their scores."""
    study = made(lambda x: 90 + x[:, 0], {"a": UNIT, "b": UNIT}, noise=0.1)
    other = study.trials.assign(val_accuracy=10.0)
    few = other.iloc[:3].assign(state="pruned")
    extra = pd.concat([study.trials, few, other.assign(baseline="teacher")], ignore_index=True)
    with_others = trade_offs(dataclasses.replace(study, trials=extra))
    pd.testing.assert_frame_equal(with_others.importances(), trade_offs(study).importances())


PLANE = {"temperature": {"type": "float", "low": 1.0, "high": 20.0, "log": True}, "alpha": UNIT}


def halved(seed: int = 0, trials: int = 192, **extra: Any) -> Study:
    """A KD study whose accuracy is 93 + 3 · (1 − (2u − 1)²) + noise, u the temperature on its scale, and half as high
    after the first of two epochs; all but the best third were stopped then. The student alone has 95, or 94 then."""
    full = made(lambda x: 93 + 3 * (1 - (2 * x[:, 0] - 1) ** 2), PLANE, trials, noise=0.6, seed=seed, **extra)
    best = full.trials["val_accuracy"] >= full.trials["val_accuracy"].quantile(2 / 3)
    alone = {"trial_id": "b000", "state": "complete", "reason": "", "baseline": "student alone", "val_accuracy": 95.0}
    frame = pd.concat(
        [full.trials.assign(state=np.where(best, "complete", "pruned")), pd.DataFrame([alone])], ignore_index=True
    )
    first = frame.assign(epoch=1, phase="train", val_accuracy=frame["val_accuracy"] - 1)
    second = frame[frame["state"] == "complete"].assign(epoch=2, phase="train")
    columns = ["trial_id", "epoch", "phase", "val_accuracy"]
    frame = frame.assign(val_accuracy=frame["val_accuracy"] - (frame["state"] == "pruned"))
    return dataclasses.replace(full, trials=frame, history=pd.concat([first, second])[columns])


def test_trials_that_were_stopped_are_not_forgotten() -> None:
    """Where the worse two thirds were stopped, the share of the temperature and the gain over the student alone are
    those of all trials after the epoch that all reached, not of the survivors."""
    inside = []
    for seed in range(3):
        t = trade_offs(halved(seed))
        assert t.epoch == 1 and t.level == 94.0 and len(t.targets["val_accuracy"].values) == 192
        assert "stopped 128 of 192 trials" in t.notes[0] and "after epoch 1" in t.targets["val_accuracy"].title
        assert 0.9 < shares(t).loc["temperature", "share"] <= 1
        plane = t.gain()
        assert plane is not None
        true = (93 - 95 + 3 * (1 - (2 * to_unit(plane["x"], PLANE["temperature"]) - 1) ** 2))[None, :]
        assert abs(float((plane["gain"] - true).mean())) < 0.2
        inside.append(((plane["low"] <= true) & (true <= plane["high"])).mean())
    assert np.mean(inside) > 0.9


def test_sizes_of_survivors_are_left_out() -> None:
    """With a size among the objectives nothing is said: early sizes mean nothing, and the survivors are biased."""
    study = halved(objectives={"val_accuracy": "max", "file_bytes": "min"})
    t = trade_offs(dataclasses.replace(study, trials=study.trials.assign(file_bytes=1000.0)))
    assert not t.targets and len(t.notes) == 1 and "no fair sample" in t.notes[0]


@pytest.mark.parametrize("domain", [LOG, SLACK, UNIT, {"type": "int", "low": 4, "high": 64, "log": False}])
def test_scales_go_there_and_back(domain: dict[str, Any]) -> None:
    """The ends of a range are 0 and 1 on the scale of its search, and every value comes back."""
    values = np.linspace(domain["low"], domain["high"], 7)
    unit = to_unit(values, domain)
    assert unit[[0, -1]] == pytest.approx([0, 1]) and np.all(np.diff(unit) > 0)
    assert from_unit(unit, domain) == pytest.approx(values)


def test_the_middle_of_a_logarithmic_range_is_its_geometric_mean() -> None:
    """1e-3 to 1 has its middle at √1e-3; 1 − π₀ from 1e-4 to 0.2 at √(0.2 · 1e-4); 0 to 1 at 0.5."""
    middles = [float(from_unit(np.array(0.5), domain)) for domain in (LOG, SLACK, UNIT)]
    assert middles == pytest.approx([1e-3**0.5, (0.2 * 1e-4) ** 0.5, 0.5])


def test_ped_anova_asks_about_the_better_end() -> None:
    """Where one hyperparameter makes the best quarter and another orders the rest, the first matters for "max" and
    the second for "min"."""
    x = np.random.default_rng(0).random((80, 2))
    y = np.where(x[:, 0] > 0.75, 10.0, x[:, 1])
    best, worst = (importance.ped_anova(x, y, ["a", "b"], direction, 0)[0] for direction in ("max", "min"))
    assert best["a"] > 0.8 and worst["b"] > 0.6


def test_hyperparameters_stand_on_the_scale_of_their_search() -> None:
    """What is linear in log tau and in log(1 − π₀) comes out as 1/2 and 1/2, and each effect as a straight line on
    its scale."""
    t = trade_offs(made(lambda x: 90 + 3 * x[:, 0] + 3 * x[:, 1], {"tau": LOG, "one_minus_pi_zero": SLACK}, noise=0.05))
    assert shares(t)["share"].tolist() == pytest.approx([0.5, 0.5], abs=0.05)
    for name, domain in (("tau", LOG), ("one_minus_pi_zero", SLACK)):
        rows = t.effect("val_accuracy", name)
        assert rows["value"].iloc[[0, -1]].tolist() == pytest.approx([domain["low"], domain["high"]])
        line = 91.5 + 3 * to_unit(rows["value"].to_numpy(), domain)
        assert np.abs(rows["mean"] - line).max() < 0.1 and (rows["low"] <= rows["mean"]).all()


def test_one_collapsed_trial_is_not_all_the_variance() -> None:
    """Values far outside are pulled to Tukey's fences, so three networks at chance do not hide the effect."""

    def broken(x: Array) -> Array:
        return np.where(np.arange(len(x)) < 3, 10.0, 90 + 4 * x[:, 0])

    t = trade_offs(made(broken, {"a": UNIT, "b": UNIT}, noise=0.1))
    assert t.targets["val_accuracy"].pulled == 3 and shares(t).loc["a", "share"] > 0.6
    assert fenced(pd.Series([1.0, 2.0, 3.0, 4.0, 100.0])).tolist() == [1, 2, 3, 4, 7]  # quartiles 2 and 4


def test_level_line_is_where_the_surface_crosses_the_baseline() -> None:
    """KD: with accuracy known over the plane, the gain is zero where that equals the baseline and its interval holds
    the true gain nearly everywhere."""
    space = {"temperature": {"type": "float", "low": 1.0, "high": 20.0, "log": True}, "alpha": UNIT}

    def true(x: Array) -> Array:
        return np.asarray(93 + 4 * x[..., 0] * (1 - x[..., 0]) + 2 * x[..., 1])

    study = made(true, space, trials=80, noise=0.1)
    alone = {"trial_id": "b000", "state": "complete", "reason": "", "baseline": "student alone", "val_accuracy": 94.5}
    plane = trade_offs(dataclasses.replace(study, trials=pd.concat([study.trials, pd.DataFrame([alone])]))).gain()
    assert plane is not None
    unit = to_unit(plane["x"], space["temperature"])
    gain = true(np.stack(np.meshgrid(unit, plane["y"]), axis=-1)) - 94.5
    assert np.abs(plane["gain"] - gain).max() < 0.25
    crossing = [np.interp(0, column, plane["y"]) for column in plane["gain"].T]  # alpha at which each T breaks even
    assert np.abs(crossing - (1.5 - 4 * unit * (1 - unit)) / 2).max() < 0.08
    assert ((plane["low"] <= gain) & (gain <= plane["high"])).mean() > 0.9


def test_no_baseline_no_gain(sws: TradeOffs) -> None:
    """Without temperature and alpha, or without the student alone, there is no plane."""
    assert sws.gain() is None
    kd = trade_offs(made(lambda x: 90 + x[:, 0], {"temperature": LOG, "alpha": UNIT}, noise=0.1))
    assert kd.targets and kd.gain() is None


def test_targets_of_a_compression_study(sws: TradeOffs) -> None:
    """Both objectives, the box of each trial alone over chance accuracy and no sparsity, and accuracy among the
    sparser half."""
    assert list(sws.targets) == ["val_accuracy", "sparsity", "hypervolume", "given"] and not sws.notes
    rows = sws.trials
    box = ((rows["val_accuracy"] - 10) * rows["sparsity"]).rename(None)
    volume = sws.targets["hypervolume"].values
    assert np.allclose(volume, fenced(box)) and "10 %" in sws.targets["hypervolume"].detail
    small = rows[rows["sparsity"] >= rows["sparsity"].median()]
    assert set(sws.targets["given"].values.index) == set(small.index)
    chosen = {t.key: t for t in targets(sws.summary, rows, bound=90.0)}["given"]
    assert len(chosen.values) == (rows["sparsity"] >= 90).sum() and "≥ 90.00 %" in chosen.title
    assert shares(sws, key="sparsity")["share"].idxmax() == "tau"


def test_accuracy_given_size_averages_where_its_trials_are(sws: TradeOffs) -> None:
    """The effect among sparse networks is shown only over the values that those have."""
    rows = sws.trials.loc[sws.targets["given"].values.index]
    effect = sws.effect("given", "tau")
    assert effect["value"].iloc[[0, -1]].tolist() == pytest.approx([rows["tau"].min(), rows["tau"].max()])


def test_file_sizes_are_judged_by_their_logarithm() -> None:
    """A size that is exponential in a hyperparameter has no interaction with another that multiplies it."""
    study = made(
        lambda x: 90 + x[:, 0] - x[:, 1],
        {"density": UNIT, "codebook_size": UNIT},
        noise=0.05,
        objectives={"val_accuracy": "max", "file_bytes": "min"},
    )
    sized = study.trials.assign(file_bytes=1000 * 20 ** study.trials["density"] * 3 ** study.trials["codebook_size"])
    t = trade_offs(dataclasses.replace(study, trials=sized))
    assert list(t.targets) == ["val_accuracy", "file_bytes", "hypervolume", "given"]
    together = t.interaction("file_bytes")
    assert together is not None and together["share"] < 0.01 and 1000 < together["surface"].min() < 1300
    assert t.effect("file_bytes", "density")["mean"].iloc[-1] == pytest.approx(20_000 * 3**0.5, rel=0.05)
    assert "≤" in t.targets["given"].title


@pytest.mark.filterwarnings("error")
def test_a_size_of_zero_has_no_logarithm() -> None:
    """Such a trial, and one without a number, does not count for a size; on a linear scale zero is a number."""
    values = pd.Series([100.0, 0.0, 1000.0, np.nan, 10.0, -1.0])
    assert _target("k", "", "min", values, log=True).values.to_dict() == pytest.approx({0: 2.0, 2: 3.0, 4: 1.0})
    assert list(_target("k", "", "min", values).values.index) == [0, 1, 2, 4, 5]
    target = _target("k", "", "min", pd.Series([1.0, 2.0, 3.0, 2.0, 99.0, np.inf]))
    assert target.pulled == 1 and target.values.max() < 5 and target.shown(np.array([2.0])).tolist() == [2.0]
    assert _target("k", "", "min", values, log=True).shown(np.array([2.0])).tolist() == [100.0]


def test_what_is_explained_is_that_of_trials_left_out() -> None:
    """The share of variance that predictions explain, each from a fit of the same kernel to all other trials, one by
    one; noise alone is not explained, and of a constant there is nothing to explain."""
    rng = np.random.default_rng(4)
    x = rng.random((30, 2))
    for response, least, most in ((x @ [1.0, 2.0], 0.8, 1.0), (rng.normal(0, 1, 30), -0.5, 0.3)):
        y = 50 + 3 * (response + rng.normal(0, 0.1, 30))
        fitted = functional_anova.fit(x, y)
        z, (variance, *lengths, noise) = (y - y.mean()) / y.std(), np.exp(fitted.kernel)
        covariance = variance * np.exp(-0.5 * (((x[:, None] - x) / lengths) ** 2).sum(axis=2))
        errors = []
        for i in range(30):
            others = np.delete(np.arange(30), i)
            weights = np.linalg.solve(covariance[np.ix_(others, others)] + noise * np.eye(29), z[others])
            errors.append(z[i] - covariance[i, others] @ weights)
        assert fitted.explained == pytest.approx(1 - np.sum(np.square(errors)) / np.sum(z**2), rel=1e-6)
        assert least < fitted.explained <= most
    assert functional_anova.fit(x, np.full(30, 7.0)).explained == 1.0


def test_the_same_trials_give_the_same_numbers(sws: TradeOffs) -> None:
    """Fitted again, every share and interval is the same."""
    again = trade_offs(sws.summary.study)
    pd.testing.assert_frame_equal(again.importances(), sws.importances())


def test_thousands_of_trials_are_sampled(tmp_path: Path) -> None:
    """10,000 trials take less than twice the processor time of 600, since 200 of them stand for all."""
    took = []
    for trials in (600, 10_000):
        study = load(synthetic.write_sws(tmp_path / str(trials), trials=trials, epochs=1, confirm=False))
        start = time.process_time()
        t = trade_offs(study)
        t.importances()
        took.append(time.process_time() - start)
        assert len(t.trials) == len(t.responses["given"][0].x) == importance.MOST
    assert took[1] < 2 * took[0]


def test_without_optuna_the_rest_remains(sws: TradeOffs, monkeypatch: pytest.MonkeyPatch) -> None:
    """PED-ANOVA is left out with a sentence, once; the functional ANOVA is the same."""
    monkeypatch.setitem(sys.modules, "optuna", None)
    t = trade_offs(sws.summary.study)
    assert len(t.notes) == 1 and "Optuna" in t.notes[0] and set(t.importances()["measure"]) == {ANOVA}
    pd.testing.assert_frame_equal(shares(t), shares(sws))


def test_nothing_heavy_is_imported() -> None:
    """Importing the module loads none of torch, Ray, Optuna and scikit-learn; using it neither torch nor Ray."""
    code = (
        "import sys, analysis.stats.importance, analysis.figures.importance\n"
        "heavy = {'torch', 'ray', 'optuna', 'sklearn'} & set(sys.modules)\n"
        "import optuna.importance, numpy\n"
        "analysis.stats.importance.ped_anova(numpy.random.rand(20, 1), numpy.arange(20.0), ['a'], 'max', 2)\n"
        "print(sorted(heavy), {'torch', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] set()"


def test_trials_that_failed_are_told_of(tmp_path: Path) -> None:
    """Where they are nobody knows what happens, and the figures go there all the same."""
    folder = synthetic.write_sws(tmp_path / "sws", epochs=2)
    assert not any("failed" in note for note in trade_offs(load(folder)).notes)
    trials = load(folder).trials
    far = (trials["baseline"] == "") & (trials["tau"] > trials["tau"].quantile(0.85))
    study_folder.write_frame(folder / paths.TRIALS, trials.assign(state=trials["state"].where(~far, "failed")))
    (note,) = (note for note in trade_offs(load(folder)).notes if "failed" in note)
    broken = (load(folder).trials["state"] == "failed").sum()
    assert broken >= far.sum() and note.startswith(f"{broken} of 64 trials failed")


def test_few_trials_must_explain_more() -> None:
    """Noise explains some of itself, the more the fewer trials there are."""
    assert [round(least_explained(n), 3) for n in (20, 40, 64, 10_000)] == [0.5, 0.25, 0.2, 0.2]


def test_a_conditional_hyperparameter_leaves_no_trial_out() -> None:
    """Trials that did not have it count as in the middle of its range; those that had it keep theirs."""
    space = {
        "student": {"type": "choice", "values": ["lenet5", "minivgg"]},
        "width": {"type": "float", "low": 0.1, "high": 0.5, "log": False, "when": {"student": ["minivgg"]}},
    }
    rows = pd.DataFrame({"student": ["lenet5", "minivgg", "minivgg"], "width": [np.nan, 0.2, np.nan]})
    filled, names = with_inactive(rows, space)
    assert filled["width"].tolist()[:2] == [0.3, 0.2] and np.isnan(filled["width"].iloc[2])  # lost, and not inactive
    assert names == ["width"] and np.isnan(rows["width"].iloc[0])
    assert with_inactive(rows.iloc[1:], space)[1] == []
