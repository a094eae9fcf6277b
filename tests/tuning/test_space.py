"""The search space: typed when it is read, and checked against the method and its flags before anything starts."""

from __future__ import annotations

import copy
import importlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from ray import tune
from ray.tune.search.sample import Categorical, Float, Quantized

from study import run
from study.errors import UserError
from study.methods import registry
from study.records import study_folder
from study.records.search_domains import Choice, Range, domain_from_json
from study.settings import resolve
from study.tuning.space import SearchSpace, file_of
from study.tuning.tune_domains import to_optuna

ACCURACY = {"val_accuracy": "max"}


def space(domains: dict[str, Any], kind: str = "sws", baselines: dict[str, Any] | None = None) -> SearchSpace:
    return SearchSpace.of(file_of(kind), domains, ACCURACY, baselines or {})


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        (tune.uniform(0.0, 1.0), Range(0.0, 1.0)),
        (tune.loguniform(1e-3, 0.3), Range(1e-3, 0.3, log=True)),
        (tune.quniform(0.0, 1.0, 0.25), Range(0.0, 1.0, step=0.25)),
        (tune.randint(4, 65), Range(4, 64, integer=True)),
        (tune.lograndint(4, 65), Range(4, 64, log=True, integer=True)),
        (tune.qrandint(4, 64, 4), Range(4, 64, step=4, integer=True)),
        (tune.quniform(-0.3, 0.6, 0.1), Range(-0.3, 0.6, step=0.1)),
        (tune.quniform(2, 8, 2), Range(2.0, 8.0, step=2.0)),
        (tune.quniform(0, 1, 1 / 3), Range(0.0, 0.9999999999999999, step=1 / 3)),  # as Optuna has it
        (tune.qrandint(3, 65, 4), Range(4, 64, step=4, integer=True)),  # multiples of the step, as Tune has them
        (tune.qrandint(0, 3, 4), Range(0, 0, step=4, integer=True)),
        (tune.qrandint(4, 65, 1), Range(4, 64, integer=True)),  # without a step, Tune's upper end is left out
        (tune.qrandint(4, 65), Range(4, 64, integer=True)),
        (tune.qlograndint(4, 65, 1), Range(4, 64, log=True, integer=True)),
        (tune.randint(np.int64(4), np.int32(65)), Range(4, 64, integer=True)),
        (tune.uniform(np.float32(0.5), np.float64(1)), Range(0.5, 1.0)),
        (tune.uniform(0, 1), Range(0.0, 1.0)),
        (tune.uniform(1.0, 1.0), Range(1.0, 1.0)),
        (tune.choice([np.int64(2), np.float32(0.5), np.str_("a"), np.bool_(True)]), Choice((2, 0.5, "a", True))),
        (tune.choice(("none",)), Choice(("none",))),
        (tune.choice([2, 4, 8]), Choice((2, 4, 8))),
        (tune.choice(["none", "flip"]), Choice(("none", "flip"))),
        (tune.choice([True, False]), Choice((True, False))),
    ],
)
def test_a_domain_of_tunes_is_one_of_ours(domain: Any, expected: Any) -> None:
    """Ends included, on the scale and with the step that Tune was given; and it survives `study.json`."""
    (own,) = space({"components": domain}).domains.values()
    assert own == expected and domain_from_json(json.loads(json.dumps(own.as_json()))) == expected
    assert str(own) and [type(v) for v in own.ends()] == [type(v) for v in expected.ends()]


DISCRETE = [
    tune.quniform(0.0, 1.0, 0.25),
    tune.quniform(-0.3, 0.6, 0.1),
    tune.quniform(0, 1, 1 / 3),
    tune.randint(4, 8),
    tune.randint(-2, 3),
    tune.qrandint(3, 18, 4),
    tune.qrandint(-7, 7, 3),
    tune.qrandint(4, 8, 1),
    tune.choice([2, 4.5, "a", True]),
]
SAMPLERS = {
    "random": optuna.samplers.RandomSampler(seed=0),
    "tpe": optuna.samplers.TPESampler(seed=0, n_startup_trials=2, multivariate=True),
    "nsga2": optuna.samplers.NSGAIISampler(seed=0, population_size=4),
}


def sampled(domain: Any, sampler: str, count: int) -> list[Any]:
    """What Optuna draws of a domain of Tune's, recorded and read again on the way."""
    own = space({"components": domain})
    recorded = json.loads(json.dumps(own.as_json()["space"]["components"]))
    distribution = to_optuna(domain_from_json(recorded))
    assert distribution == own.distributions()["components"]
    study = optuna.create_study(sampler=copy.deepcopy(SAMPLERS[sampler]))
    values = []
    for _ in range(count):
        trial = study.ask({"x": distribution})
        values.append(trial.params["x"])
        study.tell(trial, 0.0)
    return values


@pytest.mark.parametrize("domain", DISCRETE)
def test_optuna_samples_the_values_that_tune_would(domain: Any) -> None:
    """All of them and no other: ends, steps and choices."""
    tunes = domain.sample(size=400, random_state=0)
    ours = sampled(domain, "random", 120)
    assert {round(v, 9) if isinstance(v, float) else v for v in ours} == {
        round(v, 9) if isinstance(v, float) else v for v in tunes
    }
    assert {type(v) for v in ours} == {type(domain.cast(v)) for v in tunes}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("domain", [tune.quniform(0.0, 1.0, 0.25), tune.qrandint(3, 18, 4)])
def test_every_sampler_keeps_to_the_steps(domain: Any, sampler: str) -> None:
    """A stepped range never becomes a continuous one."""
    assert set(sampled(domain, sampler, 30)) <= set(domain.sample(size=400, random_state=0))


@pytest.mark.parametrize(
    "domain", [tune.uniform(2.0, 32.0), tune.loguniform(2.0, 32.0), tune.lograndint(2, 33), tune.randint(2, 33)]
)
def test_optuna_samples_on_the_scale_of_tune(domain: Any) -> None:
    """Within its ends, and as many of its values below their geometric mean."""
    tunes, ours = domain.sample(size=1000, random_state=0), sampled(domain, "random", 150)
    assert min(tunes) >= 2 and min(ours) >= 2 and max(ours) <= 32
    below = [sum(v < 8 for v in values) / len(values) for values in (tunes, ours)]
    assert below[0] == pytest.approx(below[1], abs=0.12)


@pytest.mark.parametrize(
    "domain",
    [
        0.5,
        "0.1 to 1",
        [1, 2],
        (0.1, 1.0),
        None,
        tune.grid_search([1, 2]),
        tune.randn(0.0, 1.0),
        tune.sample_from(lambda spec: 1.0),
        tune.qrandn(0.0, 1.0, 0.1),
        Float(0.0, None).normal(0.5, 0.1),
        Float(0.0, 1.0).normal(0.5, 0.1),  # a bounded range that is sampled otherwise
        Categorical([1, 2]).grid(),
        Quantized(Float._Uniform(), 0.1),
    ],
)
def test_what_cannot_be_searched_is_refused(domain: Any) -> None:
    """One line that names the file and the hyperparameter, and says what to give."""
    with pytest.raises(UserError) as refused:
        space({"tau": domain})
    line = str(refused.value)
    assert line.startswith("search_spaces/sws.py: tau in SPACE is ") and "; give tune.uniform, " in line
    assert "\n" not in line


def test_nothing_to_search_and_nowhere_to_go_are_refused() -> None:
    """A space and an objective there must be, and every objective has a direction."""
    tau = {"tau": tune.uniform(0.1, 1.0)}
    for domains, objectives in (({}, ACCURACY), (tau, {})):
        with pytest.raises(UserError, match="^search_spaces/sws.py: SPACE and OBJECTIVES must name one thing or more$"):
            SearchSpace.of("search_spaces/sws.py", domains, objectives, {})
    with pytest.raises(UserError, match="objective sparsity is 'up'; give 'max' or 'min'$"):
        SearchSpace.of("search_spaces/sws.py", tau, {"val_accuracy": "max", "sparsity": "up"}, {})


@pytest.mark.parametrize("command", [*registry.names(), "sws --variant soft"])
def test_the_space_of_every_kind_is_fine(command: str) -> None:
    """What comes with the harness passes its own checks, and is read back from `study.json` as it was."""
    settings = resolve(run.parse(command.split()))
    loaded = SearchSpace.of_study(settings)
    loaded.check(registry.method(settings.kind), settings)
    assert {name: domain_from_json(d) for name, d in loaded.as_json()["space"].items()} == loaded.domains


@pytest.mark.parametrize(
    ("kind", "name", "near"),
    [("sws", "tua", "tau"), ("sws", "one_minus_pizero", "one_minus_pi_zero"), ("kd", "temprature", "temperature"),
     ("magnitude", "densty", "density"), ("kd_sws", "student_witdh", "student_width"),
     ("ptq", "bits_per_wieght", "bits_per_weight")],
)  # fmt: skip
def test_a_misspelt_name_is_refused_with_the_near_one(kind: str, name: str, near: str) -> None:
    """In SPACE and in a baseline, in one line with the file."""
    wrong = space({name: tune.uniform(0.1, 1.0)}, kind)
    with pytest.raises(UserError) as refused:
        wrong.check(registry.method(kind))
    assert str(refused.value) == (
        f"search_spaces/{kind}.py: {name} in SPACE: no such hyperparameter; did you mean {near}?"
    )
    wrong = space({near: tune.uniform(0.1, 1.0)}, kind, {"mine": {name: 0.1}})
    with pytest.raises(UserError) as refused:
        wrong.check(registry.method(kind))
    assert f"{name} in baseline 'mine': no such hyperparameter; did you mean {near}?" in str(refused.value)


def test_a_name_like_no_other_is_refused_with_all_there_are() -> None:
    """So is a setting that no trial depends on, and the seed, of which a study has one."""
    for name in ("xyzzy", "num_samples", "seed"):
        with pytest.raises(UserError, match=f"{name} in SPACE: no such hyperparameter; ") as refused:
            space({name: tune.randint(1, 9)}, "kd").check(registry.method("kd"))
        assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="give some of .*temperature"):
        space({"xyzzy": tune.randint(1, 9)}, "kd").check(registry.method("kd"))


@pytest.mark.parametrize(
    ("kind", "name", "domain", "line"),
    [
        ("magnitude", "alpha", tune.uniform(0.0, 1.5), "alpha of 1.5 in SPACE: must be between 0 and 1"),
        ("magnitude", "alpha", tune.choice([0.5, -0.1]), "alpha of -0.1 in SPACE: must be between 0 and 1"),
        ("kd", "epochs", tune.randint(0, 9), "epochs of 0 in SPACE: must be 1 or more"),
        ("kd", "learning_rate", tune.uniform(-1e-3, 1e-2), "learning_rate of -0.001 in SPACE: must be above 0"),
        ("kd", "student_width", tune.uniform(0.5, 32.0), "student_width of 32 in SPACE: must be 16 or less"),
        ("sws", "sigma", tune.uniform(0.0, 1.0), "sigma of 0 in SPACE: must be above 0"),
        ("sws", "anneal", tune.quniform(0.0, 2.0, 0.5), "anneal of 2 in SPACE: must be between 0 and 1"),
    ],
)  # fmt: skip
def test_values_that_their_flag_would_not_take_are_refused(kind: str, name: str, domain: Any, line: str) -> None:
    """Either end of a range, and any choice: a trial would fail by it after hours."""
    wrong, settings = space({name: domain}, kind), resolve(registry.default_settings(kind))
    with pytest.raises(UserError) as refused:
        wrong.check(registry.method(kind), settings)
    assert str(refused.value) == f"search_spaces/{kind}.py: {line}"


def test_configurations_survive_a_table(tmp_path: Path) -> None:
    """Rows of a CSV file are the configurations that were searched, with their types; other columns are left out."""
    searched = space({
        "tau": tune.loguniform(1e-3, 1.0),
        "components": tune.qrandint(4, 64, 4),
        "anneal": tune.quniform(0.0, 1.0, 0.25),
        "augment": tune.choice(["none", "flip"]),
        "layer_scales": tune.choice([True, False]),
        "batch_size": tune.choice([32, 64]),
    })  # fmt: skip
    first = {"tau": 0.1 + 0.2, "components": 8, "anneal": 0.25, "augment": "flip", "layer_scales": False,
             "batch_size": 32}  # fmt: skip
    second = {**first, "tau": 1 / 3, "augment": "none", "layer_scales": True, "batch_size": 64}
    rows = [{"trial_id": "uncompressed"}, {"trial_id": "t001", **first}, {"trial_id": "t002", **second}]
    study_folder.write_frame(tmp_path / "trials.csv", pd.DataFrame(rows))
    table = study_folder.read_frame(tmp_path / "trials.csv", ["trial_id"]).to_dict("records")
    for row, values in zip(table[1:], (first, second), strict=True):
        own = searched.configuration(row)
        assert own == values and [type(v) for v in own.values()] == [type(v) for v in values.values()]


def test_optuna_suggests_within_the_space() -> None:
    """Steps, integers, ends and choices are Optuna's too, and what it suggests is a value of the domain."""
    searched = space({
        "tau": tune.loguniform(1e-3, 1.0),
        "components": tune.randint(4, 6),
        "anneal": tune.quniform(0.0, 1.0, 0.25),
        "augment": tune.choice(["none", "flip"]),
        "epochs": tune.qrandint(10, 50, 10),
    })  # fmt: skip
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    suggested = [study.ask(searched.distributions()).params for _ in range(60)]
    seen = {name: {row[name] for row in suggested} for name in searched.domains}
    assert seen["components"] == {4, 5} and seen["augment"] == {"none", "flip"}
    assert seen["anneal"] == {0.0, 0.25, 0.5, 0.75, 1.0} and seen["epochs"] == {10, 20, 30, 40, 50}
    assert all(1e-3 <= tau <= 1.0 for tau in seen["tau"]) and len(seen["tau"]) == 60
    assert all(searched.configuration(row) == row for row in suggested)


def test_the_largest_trial_has_the_largest_of_every_number() -> None:
    """Settings that are searched, at their upper ends; hyperparameters that are no setting, and choices, stay out."""
    settings = resolve(registry.default_settings("sws"))
    searched = space({"epochs": tune.randint(5, 90), "tau": tune.uniform(0.1, 1.0), "augment": tune.choice(["flip"])})
    assert searched.largest(settings) == settings.changed(epochs=89)


def test_a_file_that_lacks_a_part_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file at all, one without BASELINES, and one whose SPACE is no dict are one line that names the file."""
    monkeypatch.setattr("search_spaces.__path__", [str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # files of one second and one length follow each other
    with pytest.raises(UserError, match="^search_spaces/lottery.py: there is none "):
        SearchSpace.load("lottery")
    for text, part in (("SPACE = {}\nOBJECTIVES = {}\n", "BASELINES"), ("SPACE = 3\n", "SPACE")):
        (tmp_path / "lottery.py").write_text(text)
        monkeypatch.delitem(sys.modules, "search_spaces.lottery", raising=False)
        with pytest.raises(UserError, match=f"^search_spaces/lottery.py: {part} is missing, or no dict"):
            SearchSpace.load("lottery")
    monkeypatch.delitem(sys.modules, "search_spaces.lottery", raising=False)


@pytest.mark.parametrize(
    ("kind", "name", "domain", "line"),
    [
        ("sws", "epochs", tune.uniform(5.0, 20.0), "epochs of 5 in SPACE: must be a whole number"),
        ("sws", "layer_scales", tune.uniform(0.0, 1.0), "layer_scales of 0 in SPACE: must be True or False"),
        ("sws", "tau", tune.choice(["a", "b"]), "tau of a in SPACE: must be a number"),
        ("sws", "augment", tune.choice(["flop"]), "augment of flop in SPACE: must be none, flip, shift1, shift, "
         "crop, resized-crop or resized-crop-jitter"),
        ("kd", "precision", tune.choice(["bf16"]), "precision of bf16 in SPACE: must be float32 or bfloat16"),
        ("kd", "student", tune.choice([1, 2]), "student of 1 in SPACE: must be a word"),
        ("sws", "one_minus_anneal", tune.uniform(0.5, 5.0), "one_minus_anneal of 5 in SPACE: must be between 0 and 1"),
        ("sws", "one_minus_augment", tune.uniform(0.5, 5.0),
         "one_minus_augment of 0.5 in SPACE: must be a number, of a hyperparameter that is one"),
        ("sws", "alpha", tune.uniform(0.0, 1.0),
         "alpha in SPACE: has no effect without --teacher; leave it out"),
        ("sws", "loss", tune.choice(["kd", "dkd"]), "loss in SPACE: has no effect without --teacher; leave it out"),
        ("kd", "loss", tune.choice(["kd", "mae"]),
         "loss of mae in SPACE: must be kd, kd-standardised, dkd, dist, ttm, wttm or mse"),
        ("kd", "dkd_beta", tune.uniform(-1.0, 8.0), "dkd_beta of -1 in SPACE: must be 0 or more"),
        ("kd", "dkd_beta", tune.uniform(0.0, 8.0), "dkd_beta in SPACE: has no effect without --loss dkd; leave it out"),
    ],
)  # fmt: skip
def test_values_of_the_wrong_kind_are_refused(kind: str, name: str, domain: Any, line: str) -> None:
    """A type, a word or a hyperparameter that a trial could do nothing with is refused before anything starts."""
    wrong, settings = space({name: domain}, kind), resolve(registry.default_settings(kind))
    with pytest.raises(UserError) as refused:
        wrong.check(registry.method(kind), settings)
    assert str(refused.value) == f"search_spaces/{kind}.py: {line}"


def test_what_one_of_the_searched_losses_has_may_be_searched() -> None:
    """`dkd_beta` where the search may choose dkd, whatever `--loss` is; not where it cannot."""
    settings, method = resolve(registry.default_settings("kd")), registry.method("kd")
    options = {"alpha": tune.uniform(0.1, 0.9), "dkd_beta": tune.uniform(0.5, 8.0),
               "augment": tune.choice(["none", "flip"])}  # fmt: skip
    space({**options, "loss": tune.choice(["kd", "dkd"])}, "kd").check(method, settings)
    for others in (settings, settings.changed(loss="dkd")):
        with pytest.raises(UserError, match="dkd_beta in SPACE: has no effect without --loss dkd"):
            space({**options, "loss": tune.choice(["kd", "dist"])}, "kd").check(method, others)


@pytest.mark.parametrize("kind", ["kd", "kd_sws"])
def test_squared_error_has_no_temperature_to_search(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--loss mse` it is left out of the search; where the loss is searched as well, it stays."""
    settings = resolve(registry.default_settings(kind).changed(loss="mse"))
    searched = SearchSpace.of_study(settings)
    assert "temperature" not in searched.domains and "alpha" in searched.domains
    searched.check(registry.method(kind), settings)
    module = importlib.import_module(f"search_spaces.{kind}")
    monkeypatch.setattr(module, "SPACE", {**module.SPACE, "loss": tune.choice(["kd", "mse"])})
    assert "temperature" in SearchSpace.of_study(settings).domains


def test_a_baseline_is_checked_as_the_space_is() -> None:
    """Its values have the type, the words and the bounds of their flags."""
    wrong = space({"tau": tune.uniform(0.1, 1.0)}, "sws", {"mine": {"epochs": -3}})
    with pytest.raises(UserError, match="epochs of -3 in baseline 'mine': must be 1 or more$"):
        wrong.check(registry.method("sws"), resolve(registry.default_settings("sws")))


@pytest.mark.parametrize(
    ("domain", "problem"),
    [
        (tune.qloguniform(0.1, 10.0, 0.1), "has steps on a logarithmic scale; "),
        (tune.qlograndint(4, 64, 4), "has steps on a logarithmic scale; "),
        (tune.randint(5, 5), "is empty; "),
        (tune.qrandint(5, 5, 1), "is empty; "),
        (tune.qrandint(1, 3, 4), "is empty; "),
        (tune.uniform(1.0, 0.0), "is empty; "),
        (tune.quniform(0.0, 1.0, -0.25), "has the step -0.25; give one above 0"),
        (tune.qrandint(0, 4, 0), "has the step 0; give one above 0"),
        (tune.quniform(0.0, 0.0, math.inf), "has a step of inf; give finite numbers"),
        (tune.qrandint(0, 10, 2.5), "has a step of 2.5; give whole numbers"),  # type: ignore[arg-type]
        (tune.randint(1.5, 4), "has ends of 1.5; give whole numbers"),  # type: ignore[arg-type]
        (tune.randint(0, 2**60), "has ends of 1.15292e+18; give whole numbers, of at most 2**53"),
        (tune.randint("1", "5"), "has ends of 1; give finite numbers"),  # type: ignore[arg-type]
        (tune.randint(False, True), "has ends of False; give finite numbers"),
        (tune.uniform(-1e308, 1e308), "has ends too far apart; "),
        (tune.quniform(0.0, 1.0, 0.1).quantized(0.25), "is <ray.tune.search.sample.Float object at "),
        (tune.choice([]), "is an empty choice; "),
        (tune.choice([[1], [2]]), "has the choice [1]; give tune.uniform, or a choice of numbers or words"),
        (tune.choice([None, 1]), "has the choice None; "),
        (tune.choice([1, 2, 1]), "has the choice 1 twice; "),
        (tune.choice([1, 1.0]), "has the choice 1.0 twice; "),
        (tune.choice([1, True]), "has the choice True twice; "),
        (tune.choice(["a", "a"]), "has the choice 'a' twice; "),
        (tune.choice([math.nan, 1.0]), "has the choice nan; give finite numbers"),
        (tune.choice([2**60, 1]), "has the choice 1152921504606846976; give finite numbers"),
        (tune.choice(["1", "2"]), "has the choice '1'; give the number, without quotes"),
        (tune.choice(["1e3", "x"]), "has the choice '1e3'; give the number, without quotes"),
        (tune.choice(["nan", "x"]), "has the choice 'nan'; give words of printable letters"),
        (tune.choice(["", "x"]), "has the choice ''; give words of printable letters"),
        (tune.choice(["a\nb", "x"]), "has the choice 'a\\nb'; give words of printable letters"),
        (tune.choice(["true", "x"]), "has the choice 'true'; give True and False, without quotes"),
    ],
)
def test_what_would_be_recorded_as_another_domain_is_refused(domain: Any, problem: str) -> None:
    """By a study, a table or Optuna: one line with the file, the name, and what is wrong."""
    with pytest.raises(UserError) as refused:
        space({"components": domain})
    line = str(refused.value)
    assert line.startswith(f"search_spaces/sws.py: components in SPACE {problem}") and line.isprintable()
