"""Defaults that depend on the data set, and settings that contradict a study."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import subprocess
import sys
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest

from study.errors import UserError
from study.methods.common.settings import CompressionSettings
from study.methods.kd.settings import KDSettings
from study.methods.kd_sws.settings import KDSWSSettings
from study.methods.magnitude.settings import MagnitudeSettings
from study.methods.ptq.settings import PTQSettings
from study.methods.sws.settings import SWSSettings
from study.models import registry, zoo
from study.setting_bounds import Above, AtLeast, BelowOne, Bound, Percentage, Within
from study.settings import (
    WITH_WIDTH,
    Settings,
    as_json,
    bounds_of,
    contradiction,
    flag,
    flag_with_value,
    from_json,
    resolve,
)
from study.settings_groups import FIXED, OPERATIONAL, SpaceFlags, Tracking

ROOT = Path(__file__).parents[1]
KINDS = (KDSettings, SWSSettings, MagnitudeSettings, KDSWSSettings, PTQSettings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10", "cifar100", "folder"])
def test_every_default_is_filled(kind: type, dataset: str) -> None:
    """After `resolve` only what may be absent is None, for every data set."""
    resolved = resolve(kind(dataset=dataset))
    absent = {name for name, value in resolved.flat().items() if value is None}
    assert absent <= set("data_dir precision max_concurrent gpus_per_trial address teacher_checkpoint memory_per_trial "
                         "trial_timeout min_accuracy warm_start skip contiguous checkpoint weights reinit normalise "
                         "finetune_epochs finetune_rate image_size test_fraction latency_batch momentum milestones "
                         "teacher_optimizer teacher_schedule teacher_learning_rate "
                         "teacher_weight_decay space time until seeds_per_trial".split())  # fmt: skip


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
    recorded = resolve(KDSettings()).defining()
    assert contradiction(resolve(KDSettings.of(num_samples=99, cpus_per_trial=2, verbose=True)), recorded) == ""
    assert contradiction(resolve(KDSettings.of(seed=1)), recorded) == "--seed 1 (the study has 0)"


def test_defaults_are_those_of_the_data_set() -> None:
    """Digits and CIFAR have their own values, anything else the common ones; the name says kind and data set."""
    digits, mnist, cifar = (resolve(KDSettings.of(dataset=name)) for name in ("digits", "mnist", "cifar100"))
    assert [s.epochs for s in (digits, mnist, cifar)] == [40, 20, 75]
    assert [s.augment for s in (digits, mnist, cifar)] == ["none", "none", "flip"]
    assert (digits.student_examples, mnist.student_examples, digits.batch_size) == (10, 0, 32)
    assert digits.files.name == "kd-digits" and digits.folder == Path("results/kd-digits")
    assert [resolve(SWSSettings.of(dataset=name)).precision_rate for name in ("digits", "mnist")] == [1e-2, 3e-3]
    assert [resolve(kind(dataset="cifar10")).augment for kind in (SWSSettings, MagnitudeSettings)] == ["flip", "flip"]
    hard, soft = (resolve(SWSSettings.of(dataset="mnist", variant=variant)) for variant in ("hard", "soft"))
    assert [(s.augment, s.teacher) for s in (hard, soft)] == [("shift1", "lenet5"), ("none", "none")]
    assert resolve(SWSSettings.of(dataset="mnist", teacher="none", augment="none")).teacher == "none"
    assert resolve(MagnitudeSettings.of(dataset="mnist")).teacher == "none"


def test_a_default_width_is_for_networks_that_have_one() -> None:
    """On digits every network with a width has a quarter of it unless given one, and every other one the width 1; those
    of `study.models.registry` that take one are exactly those that the settings know."""
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
    assert resolve(once) == once and once.files.name == "my study"


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
def test_values_that_cannot_be_meant_name_their_flag(kind: type[Settings], values: dict[str, Any]) -> None:
    """Zero, negative, infinite, NaN and huge values that no run can use give one line that begins with the flag."""
    (name,) = values
    with pytest.raises(UserError) as refused:
        resolve(kind.of(**values))
    assert str(refused.value).startswith(f"--{name.replace('_', '-')} ") and "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_operational_setting_may_differ(kind: type[Settings]) -> None:
    """Settings of how much and where never contradict, one by one and all together."""
    started = resolve(kind())
    now: dict[str, object] = {}
    for name, value in started.operational().items():
        if name in FIXED:  # see `test_what_is_measured_is_fixed_for_a_study`
            continue
        text = name in ("name", "address")
        path = name.endswith("_dir") or name == "warm_start"
        now[name] = not value if isinstance(value, bool) else Path("x") if path else "x" if text else 3.5
    changed = started.changed(**now)
    assert all(changed.flat()[name] != started.flat()[name] for name in now)
    assert contradiction(changed, started.defining()) == ""
    for name, value in now.items():
        assert contradiction(started.changed(**{name: value}), started.defining()) == ""


def test_what_may_differ_follows_from_the_group() -> None:
    """Budget, files, resources, watching and measuring say how much and where; all other settings say what. Trackers
    are not recorded at all."""
    groups = {f.name for group in OPERATIONAL for f in dataclasses.fields(group)}
    # The search space is recorded, not what it was made from.
    unrecorded = {f.name for group in (SpaceFlags, Tracking) for f in dataclasses.fields(group)}
    groups -= unrecorded
    for kind in KINDS:
        settings = resolve(kind())
        assert settings.operational().keys() == groups | {"pack"} & settings.flat().keys()
        assert settings.operational().keys() | settings.defining().keys() == settings.flat().keys() - unrecorded
        assert settings.defining().keys() >= {"searcher", "scheduler", "min_accuracy", "dataset", "seed", "precision"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_defining_setting_contradicts(kind: type[Settings]) -> None:
    """Any other setting that differs is named with both values, and those that agree are not."""
    settings = resolve(kind())
    for name, value in settings.defining().items():
        difference = f"{flag_with_value(name, value)} (the study has other)"
        assert contradiction(settings, {**settings.defining(), name: "other"}) == difference


def test_studies_without_a_precision_are_in_float32() -> None:
    """Those that were started before there was one go on in float32, and in no other."""
    recorded = {k: v for k, v in resolve(KDSettings()).defining().items() if k != "precision"}
    assert contradiction(resolve(KDSettings.of(precision="float32")), recorded) == ""
    assert (
        contradiction(resolve(KDSettings.of(precision="bfloat16")), recorded)
        == "--precision bfloat16 (the study has float32)"
    )
    assert from_json(KDSettings, "kd", recorded).precision == "float32"


@pytest.mark.parametrize("kind", [KDSettings, KDSWSSettings, SWSSettings, MagnitudeSettings])
def test_studies_without_a_loss_have_hintons(kind: type[Settings]) -> None:
    """Those that were started before there was a choice go on as they are, and with no other loss."""
    new = ("loss", "dkd_beta", "dist_gamma")
    recorded = {k: v for k, v in resolve(kind()).defining().items() if k not in new}
    assert contradiction(resolve(kind()), recorded) == ""
    assert contradiction(resolve(kind.of(loss="dist")), recorded) == "--loss dist (the study has kd)"
    assert from_json(kind, "any", recorded).flat()["loss"] == "kd"


def test_settings_agree_with_themselves_through_json() -> None:
    """What `study.json` holds is read back as the same settings, paths included."""
    settings = resolve(KDSettings.of(teacher_checkpoint=Path("a/b.safetensors"), learning_rate=1e-3, num_samples=7))
    settings = settings.changed(warm_start=Path("other"), data_dir=Path("images").resolve(), precision="bfloat16")
    recorded = json.loads(json.dumps(as_json(settings)))
    assert contradiction(settings, json.loads(json.dumps(settings.defining()))) == ""
    assert recorded["teacher_checkpoint"] == str(Path("a/b.safetensors").resolve())
    assert from_json(KDSettings, "kd", recorded) == settings


def test_a_teachers_file_is_one_wherever_it_is_named_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path and the absolute one are the same teacher, also where an older study recorded the relative one;
    another file contradicts."""
    monkeypatch.chdir(tmp_path)
    relative, absolute = (resolve(KDSettings.of(teacher_checkpoint=p)) for p in (Path("t.pt"), tmp_path / "t.pt"))
    assert relative == absolute and absolute.defining()["teacher_checkpoint"] == str((tmp_path / "t.pt").resolve())
    assert contradiction(absolute, {**relative.defining(), "teacher_checkpoint": "t.pt"}) == ""
    assert contradiction(absolute, {**absolute.defining(), "teacher_checkpoint": "u.pt"}).endswith(
        "(the study has u.pt)"
    )


def unbounded(kind: type[Settings]) -> set[str]:
    """Names of the numbers among the settings that have no bound."""
    numbers = {name for name, hint in hints_of(kind).items() if {int, float} & set(parts(hint))}
    return numbers - bounds_of(kind).keys()


def hints_of(kind: type) -> dict[str, object]:
    """Setting → its type, those of the groups included."""
    declared, hints = typing.get_type_hints(kind, include_extras=True), dict[str, object]()
    for name in (f.name for f in dataclasses.fields(kind)):
        hint = declared[name]
        hints |= hints_of(hint) if dataclasses.is_dataclass(hint) else {name: hint}
    return hints


def parts(hint: object) -> list[object]:
    """A type and all that it is made of."""
    return [hint, *(part for inner in typing.get_args(hint) for part in parts(inner))]


@pytest.mark.parametrize("kind", [*KINDS, CompressionSettings, Settings])
def test_every_number_has_a_bound(kind: type[Settings]) -> None:
    """A numeric setting without a bound would take −3 or infinity without a word; every one has one, optional ones and
    those of the groups too."""
    assert unbounded(kind) == set()
    assert len(bounds_of(kind)) >= 10


def test_a_new_number_without_a_bound_is_noticed() -> None:
    """What the test above looks for, of each form that a field can have; a bound is found in each form."""

    @dataclass(frozen=True)
    class Careless(Settings):
        plain: int = 1
        optional: float | None = None
        fine: Annotated[int, AtLeast(1)] = 1
        fine_optional: Annotated[float, AtLeast(0)] | None = None
        fine_inside: Annotated[float | None, AtLeast(2)] = None
        words: str = ""

    assert unbounded(Careless) == {"plain", "optional"}
    bounds = {name: bounds_of(Careless)[name] for name in ("fine", "fine_optional", "fine_inside")}
    assert bounds == {"fine": AtLeast(1), "fine_optional": AtLeast(0), "fine_inside": AtLeast(2)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_bound_refuses_what_no_run_can_use(kind: type[Settings]) -> None:
    """−3, infinity and NaN are refused for every numeric setting, by its flag."""
    for name in bounds_of(kind):
        for value in (-3, math.inf, -math.inf, math.nan):
            with pytest.raises(UserError, match=f"^--{name.replace('_', '-')} "):
                resolve(kind.of(**{name: value}))


@pytest.mark.parametrize(
    ("bound", "value", "problem"),
    [
        (AtLeast(1), 0, "1 or more"),
        (AtLeast(0, 2**32 - 1), 2**32, "4294967295 or less"),
        (AtLeast(0), math.inf, "a finite number"),
        (AtLeast(0), math.nan, "0 or more"),
        (AtLeast(1), 1, ""),
        (Above(0, 16), 0, "above 0"),
        (Above(0, 16), 17, "16 or less"),
        (Above(0, 16), 16, ""),
        (Within(0, 1), 1.5, "between 0 and 1"),
        (Within(0, 1), math.nan, "between 0 and 1"),
        (Within(0, 1), 1, ""),
        (BelowOne(), 1, "0 or more and below 1"),
        (BelowOne(), math.nan, "0 or more and below 1"),
        (BelowOne(), 0, ""),
        (Percentage(), 100, "a percentage, 0 or more and below 100"),
        (Percentage(), 99.9, ""),
    ],
)
def test_a_bound_says_what_a_value_must_be(bound: Bound, value: float, problem: str) -> None:
    """In words that follow "must be"; nothing where the value is fine."""
    assert bound.problem(value) == problem


def test_names_are_unique_over_the_groups() -> None:
    """`of`, `changed` and `flat` take every setting by its name alone, and no name that there is not."""
    for kind in KINDS:
        default = kind()
        fields = [f.name for f in dataclasses.fields(default) if not dataclasses.is_dataclass(getattr(default, f.name))]
        groups = [getattr(default, f.name) for f in dataclasses.fields(default) if f.name not in fields]
        names = [*fields, *(f.name for group in groups for f in dataclasses.fields(group))]
        assert len(names) == len(set(names)) and set(names) - {"kind"} == default.flat().keys()
        for name, value in default.flat().items():
            assert default.changed(**{name: value}) == default
    with pytest.raises(TypeError, match="KDSWSSettings has no setting network, pack$"):
        KDSWSSettings.of(pack=2, network="lenet5", epochs=2)


def test_settings_load_no_torch() -> None:
    """The flags of a method are a file without torch, which takes seconds to import."""
    modules = ", ".join(f"study.methods.{kind}.settings" for kind in ("kd", "sws", "magnitude", "kd_sws", "ptq"))
    code = f"import sys, study.settings, study.run, {modules}; print({{'torch', 'ray', 'pandas'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_each_variant_has_its_flags_epochs_and_search_space() -> None:
    """The paper's variant is as it always was; the other prunes by a score, in epochs of its own, and searches density.
    What is for one of them alone is refused with the other."""
    from study.methods import registry as registry_of_methods
    from study.tuning.space import SearchSpace

    soft, hard = (resolve(SWSSettings.of(kind="sws", dataset="mnist", variant=v)) for v in ("soft", "hard"))
    assert (soft.epochs, hard.epochs, resolve(SWSSettings.of(variant="hard")).epochs) == (20, 38, 70)
    assert resolve(SWSSettings.of(variant="hard", epochs=7)).epochs == 7
    assert SearchSpace.of_study(soft).domains.keys() == {"tau", "components", "one_minus_pi_zero"}
    assert SearchSpace.of_study(hard).domains.keys() == {"density", "components"}
    assert SearchSpace.of_study(hard).objectives == {"val_accuracy": "max", "file_bytes": "min"}
    for settings in (soft, hard):
        SearchSpace.of_study(settings).check(registry_of_methods.method("sws"), settings)
    refused = {
        "--score-power 0.5: is for --variant hard; give that, or leave it out": {"variant": "soft", "score_power": 0.5},
        "--no-quantised-training: is for --variant hard": {"variant": "soft", "quantised_training": False},
        "--anneal 0.5: is for --variant soft; give that, or leave it out": {"variant": "hard", "anneal": 0.5},
        "--retrain-epochs 4: is for --variant soft": {"variant": "hard", "retrain_epochs": 4},
        "--layer-scales: is for --variant soft": {"variant": "hard", "layer_scales": True},
        "--precision-rate 0.1: is for --variant soft": {"variant": "hard", "precision_rate": 0.1},
        "--teacher-checkpoint .*t.pt: needs --teacher NETWORK": {
            "variant": "hard",
            "dataset": "mnist",
            "teacher_checkpoint": Path("t.pt"),
        },
        "--pack 4: does not go with --trial-timeout": {"variant": "hard", "pack": 4, "trial_timeout": 9.0},
        "--epochs 1: must be 2 or more, one for pruning and one": {"variant": "hard", "epochs": 1},
    }
    for message, values in refused.items():
        with pytest.raises(UserError, match=f"^{message}") as error:
            resolve(SWSSettings.of(**values))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_every_trial_would_refuse_is_refused_before(kind: type[Settings]) -> None:
    """At the end of its bound a setting is refused by its flag, or a trial takes it; no study is of trials that all
    fail."""
    from study.methods import registry
    from study.methods.method import hparams_from
    from study.methods.sws import hard, weight_sharing
    from study.tuning.space import SearchSpace

    method = registry.method(kind().kind)
    variants: list[dict[str, Any]] = [{"variant": "soft"}, {"variant": "hard"}] if kind is SWSSettings else [{}]
    if kind is MagnitudeSettings:
        variants = [{"quantised_training": False}, {"quantised_training": True}]
    for variant in variants:
        for field, bound in bounds_of(kind).items():
            if field not in kind.of().own() or not isinstance(bound, AtLeast | Within):
                continue
            least = bound.least if isinstance(bound, AtLeast) else bound.low
            number = int(least) if int in parts(typing.get_type_hints(kind)[field]) else float(least)
            try:
                settings = resolve(kind.of(**variant, **{field: number}))
            except UserError as error:
                assert str(error).startswith(flag(field))
                continue
            space = SearchSpace.of_study(settings)
            values = {name: domain.ends()[0] for name, domain in space.domains.items()}
            of_variant = {"soft": weight_sharing.Hparams, "hard": hard.Hparams}
            hparams_from(of_variant.get(variant.get("variant", ""), method.hparams), settings, values)


def test_a_study_of_the_other_variant_is_one_word() -> None:
    """Its other defaults were typed by nobody, and are not named."""
    soft, hard = (resolve(SWSSettings.of(kind="sws", dataset="mnist", variant=variant)) for variant in ("soft", "hard"))
    assert contradiction(hard, as_json(soft)) == "--variant hard (the study has soft)"


def test_what_is_typed_of_a_switch() -> None:
    """A switch has no value on a command line."""
    assert [flag_with_value("layer_scales", value) for value in (True, False)] == [
        "--layer-scales",
        "--no-layer-scales",
    ]
    assert flag_with_value("num_samples", 8) == "--num-samples 8"
    other = resolve(SWSSettings.of(kind="sws", variant="soft", layer_scales=True))
    recorded = as_json(resolve(SWSSettings.of(kind="sws", variant="soft")))
    assert contradiction(other, recorded) == "--layer-scales (the study has False)"
    assert (
        contradiction(from_json(SWSSettings, "sws", recorded), as_json(other))
        == "--no-layer-scales (the study has True)"
    )


def test_a_search_of_the_other_variants_hyperparameter_is_refused() -> None:
    """It would have no effect, and the message says with which variant."""
    from ray import tune

    from study.methods import registry
    from study.tuning.space import SearchSpace

    for variant, name in (("soft", "density"), ("hard", "tau"), ("hard", "one_minus_pi_zero"), ("soft", "ramp")):
        space = SearchSpace.of("sws", {name: tune.uniform(0.1, 0.2)}, {"val_accuracy": "max"}, {})
        with pytest.raises(UserError, match=f"{name} in SPACE: has no effect with --variant {variant}"):
            space.check(registry.method("sws"), resolve(SWSSettings.of(variant=variant)))


@pytest.mark.parametrize("kind", ["sws", "magnitude"])
def test_a_study_that_is_older_than_the_hard_variant_goes_on(kind: str) -> None:
    """Without the new settings its record means what it meant: the soft variant, and magnitude's score."""
    settings = resolve(
        MagnitudeSettings.of(kind=kind) if kind == "magnitude" else SWSSettings.of(kind=kind, variant="soft")
    )
    new = ("variant", "ramp", "score_power", "quantised_training")
    older = {name: value for name, value in as_json(settings).items() if name not in new}
    assert contradiction(settings, older) == ""
    assert from_json(type(settings), kind, older) == settings
    if kind == "sws":
        assert "--variant hard (the study has soft)" in contradiction(settings.changed(variant="hard"), older)
    else:
        assert "--score-power 1.0 (the study has 0.0)" in contradiction(settings.changed(score_power=1.0), older)
