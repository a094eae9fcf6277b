"""Defaults that depend on the data set, and settings that contradict a study."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from pathlib import Path
from typing import Any

import pytest

from study.errors import UserError
from study.methods.kd.settings import KDSettings
from study.methods.kd_sws.settings import KDSWSSettings
from study.methods.magnitude.settings import MagnitudeSettings
from study.methods.sws.settings import SWSSettings
from study.models import registry, zoo
from study.settings import OPERATIONAL, WITH_WIDTH, as_json, contradiction, resolve


@pytest.mark.parametrize("kind", [KDSettings, SWSSettings, MagnitudeSettings, KDSWSSettings])
@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10", "cifar100", "folder"])
def test_every_default_is_filled(kind: type, dataset: str) -> None:
    """After `resolve` only what may be absent is None, for every data set."""
    resolved = resolve(kind(dataset=dataset))
    absent = {f.name for f in dataclasses.fields(resolved) if getattr(resolved, f.name) is None}
    assert absent <= set("data_dir precision max_concurrent gpus_per_trial address teacher_checkpoint memory_per_trial "
                         "trial_timeout min_accuracy warm_start".split())  # fmt: skip


def test_a_flag_wins_over_the_default() -> None:
    """What the user gave stays, zero included."""
    resolved = resolve(KDSettings.of(epochs=7, student_examples=0))
    assert resolved.epochs == 7 and resolved.student_examples == 0 and resolved.teacher_epochs == 20


@pytest.mark.parametrize("name", ["../x", "a/b", "a\nb", "a\n", "a\x1b[2J", "a\x00", "..", " ", ".hidden", "-x"])
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    """A study's name is a plain folder name."""
    with pytest.raises(UserError, match="--name"):
        resolve(KDSettings.of(name=name))


def test_only_defining_settings_contradict() -> None:
    """More samples or fewer CPUs go with a study; another temperature schedule, seed or network does not."""
    begun = resolve(KDSettings()).defining()
    assert contradiction(resolve(KDSettings.of(num_samples=99, cpus_per_trial=2, verbose=True)), begun) == ""
    assert contradiction(resolve(KDSettings.of(seed=1)), begun) == "--seed 1 (the study has 0)"


def test_defaults_are_those_of_the_data_set() -> None:
    """Digits and CIFAR have their own values, anything else the common ones; the name says kind and data set."""
    digits, mnist, cifar = (resolve(KDSettings.of(dataset=name)) for name in ("digits", "mnist", "cifar100"))
    assert [s.epochs for s in (digits, mnist, cifar)] == [40, 20, 75]
    assert [s.augment for s in (digits, mnist, cifar)] == ["none", "none", "flip"]
    assert (digits.student_examples, mnist.student_examples, digits.batch_size) == (10, 0, 32)
    assert digits.name == "kd-digits" and digits.folder == Path("results/kd-digits")
    assert [resolve(SWSSettings.of(dataset=name)).precision_rate for name in ("digits", "mnist")] == [1e-2, 3e-3]
    assert [resolve(kind(dataset="cifar10")).augment for kind in (SWSSettings, MagnitudeSettings)] == ["flip", "flip"]
    assert resolve(SWSSettings.of(dataset="mnist")).augment == "none"


def test_a_default_width_is_for_networks_that_have_one() -> None:
    """On digits every network with a width has a quarter of it unless told, and every other one the width 1; those of
    `study.models.registry` that take one are exactly those that the settings know."""
    takes = {n for n, f in zoo.BUILDERS.items() if "width" in inspect.signature(f).parameters}
    assert takes == WITH_WIDTH
    for kind in (KDSettings, KDSWSSettings):
        for name in (*registry.NAMES, "resnet18", "own:build"):
            settings = resolve(kind(teacher=name, student=name))
            wanted = 0.25 if name in takes else 1.0
            assert (settings.teacher_width, settings.student_width) == (wanted, wanted), name
    assert resolve(KDSettings.of(student="lenet5", student_width=0.5)).student_width == 0.5


def test_resolving_twice_changes_nothing() -> None:
    """Resolved settings are a fixed point."""
    once = resolve(SWSSettings.of(name="my study"))
    assert resolve(once) == once and once.name == "my study"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (KDSettings, {"num_samples": 0}),
        (KDSettings, {"epochs": 0}),
        (KDSettings, {"batch_size": -1}),
        (KDSettings, {"teacher_epochs": 0}),
        (KDSettings, {"max_concurrent": 0}),
        (KDSettings, {"seed": -1}),
        (KDSettings, {"seed": 2**32}),
        (KDSettings, {"trial_timeout": 1e10}),
        (KDSettings, {"student_examples": -1}),
        (KDSettings, {"gpus_per_trial": -0.5}),
        (KDSettings, {"weight_decay": math.nan}),
        (KDSettings, {"cpus_per_trial": 0}),
        (KDSettings, {"learning_rate": math.inf}),
        (KDSettings, {"learning_rate": math.nan}),
        (KDSettings, {"teacher_width": 0}),
        (KDSettings, {"student_width": -1}),
        (SWSSettings, {"pretrain_epochs": -1}),
        (SWSSettings, {"codebook_epochs": -1}),
        (SWSSettings, {"weight_rate": 0}),
        (SWSSettings, {"codebook_rate": 0}),
        (SWSSettings, {"precision_rate": -1e-3}),
        (SWSSettings, {"sigma": 0}),
        (SWSSettings, {"network_width": math.inf}),
        (SWSSettings, {"retrain_epochs": -1}),
        (SWSSettings, {"pi_zero_strength": -1.0}),
        (SWSSettings, {"pi_zero_strength": math.inf}),
        (KDSettings, {"weight_decay": math.inf}),
        (SWSSettings, {"anneal": 1.5}),
        (SWSSettings, {"merge": math.nan}),
        (SWSSettings, {"alpha": -0.1}),
        (MagnitudeSettings, {"temperature": 0.0}),
        (MagnitudeSettings, {"weight_rate": -1.0}),
        (KDSWSSettings, {"cluster_epochs": 0}),
    ],
)
def test_values_that_cannot_be_meant_name_their_flag(kind: type, values: dict[str, Any]) -> None:
    """Zero, negative, infinite, NaN and huge values that no run can use give one line that begins with the flag."""
    (name,) = values
    with pytest.raises(UserError) as refused:
        resolve(kind(**values))
    assert str(refused.value).startswith(f"--{name.replace('_', '-')} ") and "\n" not in str(refused.value)


def test_every_operational_setting_may_differ() -> None:
    """Settings of how much and where never contradict; every one of them exists."""
    begun, now = resolve(SWSSettings()), {}
    for name in OPERATIONAL:
        value = getattr(begun, name)
        now[name] = not value if isinstance(value, bool) else Path("x") if "dir" in name else "x" if name in (
            "name", "address", "warm_start") else 3.5  # fmt: skip
    changed = dataclasses.replace(begun, **now)
    assert all(getattr(changed, name) != getattr(begun, name) for name in OPERATIONAL)
    assert contradiction(changed, begun.defining()) == ""


def test_every_defining_setting_contradicts() -> None:
    """Any other setting that differs is named with both values, and those that agree are not."""
    for settings in (
        resolve(KDSettings()),
        resolve(SWSSettings()),
        resolve(MagnitudeSettings()),
        resolve(KDSWSSettings()),
    ):
        for name, value in settings.defining().items():
            flag = f"--{name.replace('_', '-')} {value} (the study has other)"
            assert contradiction(settings, {**settings.defining(), name: "other"}) == flag


def test_studies_without_a_precision_are_in_float32() -> None:
    """Those that were begun before there was one go on in float32, and in no other."""
    begun = {k: v for k, v in resolve(KDSettings()).defining().items() if k != "precision"}
    assert contradiction(resolve(KDSettings.of(precision="float32")), begun) == ""
    assert (
        contradiction(resolve(KDSettings.of(precision="bfloat16")), begun)
        == "--precision bfloat16 (the study has float32)"
    )


def test_settings_agree_with_themselves_through_json() -> None:
    """What `study.json` holds is read back as the same settings, paths included."""
    settings = resolve(KDSettings.of(teacher_checkpoint=Path("a/b.safetensors"), learning_rate=1e-3))
    assert contradiction(settings, json.loads(json.dumps(settings.defining()))) == ""
    assert json.loads(json.dumps(as_json(settings)))["teacher_checkpoint"] == str(Path("a/b.safetensors").resolve())


def test_a_teachers_file_is_one_wherever_it_is_named_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path and the whole one are the same teacher, also where an older study recorded the relative one;
    another file contradicts."""
    monkeypatch.chdir(tmp_path)
    relative, whole = (resolve(KDSettings.of(teacher_checkpoint=p)) for p in (Path("t.pt"), tmp_path / "t.pt"))
    assert relative == whole and whole.defining()["teacher_checkpoint"] == str((tmp_path / "t.pt").resolve())
    assert contradiction(whole, {**relative.defining(), "teacher_checkpoint": "t.pt"}) == ""
    assert contradiction(whole, {**whole.defining(), "teacher_checkpoint": "u.pt"}).endswith("(the study has u.pt)")
