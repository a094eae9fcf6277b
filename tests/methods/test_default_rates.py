"""The default learning rate of trials whose optimiser is searched, and of studies that were started before it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ray import tune

from study import run
from study.methods import registry
from study.methods.common.training_settings import SGD_RATE
from study.methods.kd import method as kd
from study.methods.kd.settings import KDSettings
from study.methods.method import settings_with
from study.pipeline import preflight
from study.records import study_folder
from study.settings import Settings, Values, as_json, resolve
from study.tuning.space import SearchSpace

LOSS: Values = {"temperature": 4.0, "alpha": 0.5, "tau": 0.1, "components": 9, "pi_zero": 0.99}
"""Of a trial of either kind."""


def study_of(command: str, folder: Path) -> tuple[Settings, SearchSpace]:
    """What a command searches, and its settings once it is known whether it continues a study."""
    settings = resolve(run.parse([*command.split(), "--results-dir", str(folder)]))
    space = SearchSpace.of_study(settings)
    return preflight.resume(settings, space)[0], space


def rate_of(settings: Settings, values: Values) -> float:
    """The learning rate of a trial, which its network's training in the report has as well."""
    method = registry.method(settings.kind)
    assert method.hyperparameters is not None
    of_kind = LOSS if settings.kind == "kd_sws" else {k: v for k, v in LOSS.items() if k in ("temperature", "alpha")}
    training = method.hyperparameters(settings, {**of_kind, **values}).training  # type: ignore[attr-defined]
    assert method.searched_network(settings_with(settings, values)).learning_rate == training.learning_rate
    return training.learning_rate


@pytest.mark.parametrize("kind", ["kd", "kd_sws"])
def test_a_trial_has_the_default_rate_of_its_own_optimiser(kind: str, tmp_path: Path) -> None:
    """Searched or fixed; what is given or searched itself stays, and the teacher keeps the rate of --optimizer."""
    settings, _ = study_of(f"{kind} --choice optimizer=adamw,nesterov", tmp_path)
    assert rate_of(settings, {"optimizer": "adamw"}) == 2e-3
    assert rate_of(settings, {"optimizer": "nesterov"}) == SGD_RATE
    assert rate_of(settings, {"optimizer": "nesterov", "learning_rate": 0.3}) == 0.3
    assert kd.teacher_training(settings).learning_rate == 2e-3  # type: ignore[arg-type]

    fixed, space = study_of(f"{kind} --fix optimizer=sgd", tmp_path)
    assert rate_of(fixed, {"optimizer": "sgd"}) == SGD_RATE
    assert all(rate_of(fixed, values) == SGD_RATE for values in space.baselines.values())

    for rate in (2e-3, 1e-2):  # also where it is the default of another optimiser
        given, _ = study_of(f"{kind} --fix optimizer=sgd --learning-rate {rate}", tmp_path)
        assert rate_of(given, {"optimizer": "sgd"}) == rate


def test_a_baseline_has_the_default_rate_of_its_own_optimiser(tmp_path: Path) -> None:
    """Also where nothing but that baseline has another optimiser."""
    settings = resolve(KDSettings.of(kind="kd", results_dir=tmp_path))
    baselines = {"sgd": {"temperature": 4.0, "alpha": 0.0, "optimizer": "sgd"}}
    domains = {"temperature": tune.uniform(1.0, 9.0), "alpha": tune.uniform(0.0, 1.0)}
    space = SearchSpace.of("mine.py", domains, {"val_accuracy": "max"}, baselines)
    settings, _ = preflight.resume(settings, space)
    assert (rate_of(settings, baselines["sgd"]), rate_of(settings, {})) == (SGD_RATE, 2e-3)


def test_the_teacher_is_the_same_in_a_cache(tmp_path: Path) -> None:
    """Its training does not depend on whether the trials' optimiser is searched."""
    for flags in ("", "--optimizer sgd", "--teacher-optimizer nesterov", "--learning-rate 0.01"):
        plain, _ = study_of(f"kd {flags}", tmp_path)
        searching, _ = study_of(f"kd {flags} --choice optimizer=adamw,nesterov", tmp_path)
        assert kd.teacher_training(plain).key() == kd.teacher_training(searching).key()  # type: ignore[arg-type]


@pytest.mark.parametrize("flags", ["", "--choice optimizer=adamw,nesterov", "--optimizer sgd"])
def test_an_older_study_goes_on_with_the_rate_it_recorded(flags: str, tmp_path: Path) -> None:
    """Studies recorded the default of --optimizer for all trials; the same command continues them with it."""
    settings, space = study_of(f"kd {flags}", tmp_path)
    expected = SGD_RATE if "sgd" in flags else 2e-3
    recorded = {**as_json(settings), "learning_rate": expected}
    settings.folder.mkdir()
    meta = {"kind": "kd", "settings": recorded, "data": {}, **space.as_json()}
    (settings.folder / "study.json").write_text(json.dumps(meta))
    patched = pytest.MonkeyPatch()
    with patched.context() as patch:
        patch.setattr(study_folder, "read_meta", lambda folder: json.loads((folder / "study.json").read_text()))
        continued, _ = study_of(f"kd {flags}", tmp_path)
    assert continued.flat()["learning_rate"] == expected
    assert rate_of(continued, {"optimizer": "nesterov"}) == expected


def test_what_is_recorded_is_what_was_given(tmp_path: Path) -> None:
    """A study records its rate, and none where each trial has its own."""
    assert as_json(study_of("kd", tmp_path)[0])["learning_rate"] == 2e-3
    assert as_json(study_of("kd --choice optimizer=adamw,sgd", tmp_path)[0])["learning_rate"] is None
    assert as_json(study_of("kd --fix optimizer=sgd --learning-rate 0.1", tmp_path)[0])["learning_rate"] == 0.1
    assert as_json(study_of("sws --optimizer sgd", tmp_path)[0])["learning_rate"] == SGD_RATE
