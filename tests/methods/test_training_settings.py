"""Flags of ordinary training: what they train, what they refuse, and studies that were started before them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import tune

from study.artifacts.cache import LOGITS, SharedWork
from study.artifacts.checkpoints import Progress
from study.data import registry
from study.errors import UserError
from study.methods.common import pretrained
from study.methods.common.training_settings import SGD_RATE, TeacherTrainingSettings
from study.methods.kd import method as kd
from study.methods.kd.settings import KDSettings, StudentSettings
from study.methods.kd.student import Hparams
from study.methods.kd_sws import method as kd_sws
from study.methods.kd_sws.settings import KDSWSSettings
from study.methods.magnitude.settings import MagnitudeSettings
from study.methods.method import hparams_from
from study.methods.ptq.settings import PTQSettings
from study.methods.sws.settings import SWSSettings
from study.settings import Settings, contradiction, from_json, resolve
from study.training.network import build_network, state_arrays
from study.training.recipe import Recipe
from study.tuning.space import SearchSpace

KINDS = (KDSettings, SWSSettings, MagnitudeSettings, KDSWSSettings, PTQSettings)
NEW = (
    "optimizer", "momentum", "schedule", "milestones", "warmup_epochs", "clip_norm", "ema", "mixup", "label_smoothing",
    *TeacherTrainingSettings.TEACHER_FLAGS,
)  # fmt: skip
FILE = Path("teacher.safetensors")


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (KDSettings, {"optimizer": "nesterov", "momentum": 0.0}, "--momentum 0.0: nesterov needs a momentum above 0"),
        (KDSettings, {"schedule": "step", "milestones": "0.5,0.2"}, "--milestones 0.5,0.2: must be rising shares"),
        (SWSSettings, {"schedule": "step", "milestones": "150,180"}, "--milestones 150,180: must be rising shares"),
        (KDSettings, {"warmup_epochs": 40}, "--warmup-epochs 40: must be less than --epochs 40"),
        (KDSettings, {"warmup_epochs": 20}, "--warmup-epochs 20: must be less than --teacher-epochs 20"),
        (KDSettings, {"mixup": 0.2, "loss": "dkd"},
         "--mixup 0.2: does not go with --loss dkd, which needs the label of each image; leave out one of the two"),
        (KDSWSSettings, {"mixup": 1.0, "loss": "dkd"}, "--mixup 1: does not go with --loss dkd"),
        (KDSWSSettings, {"warmup_epochs": 20}, "--warmup-epochs 20: must be less than --epochs 20"),
        (MagnitudeSettings, {"warmup_epochs": 40}, "--warmup-epochs 40: must be less than --pretrain-epochs 40"),
        (PTQSettings, {"checkpoint": FILE, "finetune_epochs": 2, "warmup_epochs": 2},
         "--warmup-epochs 2: must be less than --finetune-epochs 2"),
        (SWSSettings, {"teacher": "lenet5", "teacher_epochs": 3, "warmup_epochs": 3},
         "--warmup-epochs 3: must be less than --teacher-epochs 3"),
        (KDSettings, {"teacher_checkpoint": FILE, "teacher_optimizer": "sgd"},
         "--teacher-optimizer sgd: means nothing with --teacher-checkpoint"),
        (SWSSettings, {"teacher_schedule": "step"}, "--teacher-schedule step: needs --teacher NETWORK"),
        (SWSSettings, {"teacher": "self", "teacher_weight_decay": 0.1}, "--teacher-weight-decay 0.1: needs --teacher"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(kind: type[Settings], values: dict[str, Any], message: str) -> None:
    """One line that names the flag, before anything starts."""
    with pytest.raises(UserError) as refused:
        resolve(kind.of(**values))
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (KDSettings, {"teacher_optimizer": "sgd", "momentum": 0.8}),
        (KDSettings, {"teacher_schedule": "step", "milestones": "0.5"}),
        (KDSettings, {"teacher_checkpoint": FILE, "warmup_epochs": 20}),
        (KDSWSSettings, {"optimizer": "sgd", "momentum": 0.0, "warmup_epochs": 3}),
        (SWSSettings, {"dataset": "mnist", "teacher_optimizer": "sgd", "momentum": 0.5}),
        (MagnitudeSettings, {"checkpoint": FILE, "warmup_epochs": 30}),
        (SWSSettings, {"teacher": "lenet5", "mixup": 0.2, "loss": "dkd"}),  # it mixes images before compression alone
    ],
)
def test_what_has_an_effect_on_some_network_is_taken(kind: type[Settings], values: dict[str, Any]) -> None:
    """A momentum or milestones of the teacher alone, and a warm-up longer than a training that there is not."""
    resolve(kind.of(**values))


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_from_before_these_flags_goes_on(kind: type[Settings]) -> None:
    """A study that records none of them is read as one with the defaults, and contradicts any other value."""
    settings = resolve(kind())
    recorded = {name: value for name, value in settings.defining().items() if name not in NEW}
    if not issubclass(kind, StudentSettings):
        recorded.pop("weight_decay")
    assert contradiction(settings, recorded) == ""
    again = from_json(kind, settings.kind, {**settings.operational(), **recorded})
    assert {name: again.flat().get(name) for name in NEW} == {name: settings.flat().get(name) for name in NEW}
    other = resolve(kind.of(optimizer="sgd", learning_rate=settings.flat()["learning_rate"]))
    assert contradiction(other, recorded) == "--optimizer sgd (the study has adamw)"


def test_each_optimiser_has_a_rate_of_its_own() -> None:
    """Without --learning-rate it is Adam's or SGD's; the teacher follows unless its optimiser is of the other kind."""

    def rates(kind: Any = KDSettings, **values: Any) -> tuple[float, float]:
        settings = resolve(kind.of(**values))
        networks = (kd if kind is KDSettings else pretrained).teacher_training(settings)
        own = kd.student_training(settings) if kind is KDSettings else pretrained.pretraining(settings)
        return own.learning_rate, networks.learning_rate

    assert rates() == (2e-3, 2e-3)
    assert rates(optimizer="nesterov") == (SGD_RATE, SGD_RATE)
    assert rates(optimizer="sgd", learning_rate=0.1) == (0.1, 0.1)
    assert rates(teacher_optimizer="sgd", learning_rate=1e-3) == (1e-3, SGD_RATE)
    assert rates(teacher_optimizer="adam", learning_rate=1e-3) == (1e-3, 1e-3)
    assert rates(optimizer="sgd", teacher_learning_rate=0.2) == (SGD_RATE, 0.2)
    assert rates(SWSSettings, teacher="lenet5") == (1e-3, 1e-3)
    assert rates(SWSSettings, teacher="lenet5", teacher_optimizer="sgd") == (1e-3, SGD_RATE)


def test_the_teacher_is_trained_as_its_own_flags_say() -> None:
    """Its optimiser, schedule and decay where given; the rest as the student's, without mixed images and smoothed
    labels. A network to be compressed has all of it."""
    flags = dict(
        optimizer="sgd", momentum=0.8, warmup_epochs=2, clip_norm=1.0, ema=0.99, mixup=0.2, label_smoothing=0.1
    )
    settings = resolve(KDSettings.of(**flags, teacher_schedule="step", teacher_weight_decay=1e-3))
    student, teacher = kd.student_training(settings), kd.teacher_training(settings)
    assert student.recipe == Recipe(**flags) and student.weight_decay == 5e-4  # type: ignore[arg-type]
    alike = {**flags, "mixup": 0.0, "label_smoothing": 0.0}
    assert teacher.recipe == Recipe(**alike, schedule="step") and teacher.weight_decay == 1e-3  # type: ignore[arg-type]
    compressing = resolve(MagnitudeSettings.of(**flags, teacher="lenet5", weight_decay=1e-4))
    network, other = pretrained.pretraining(compressing), pretrained.teacher_training(compressing)
    assert network.recipe == Recipe(**flags) and network.weight_decay == 1e-4  # type: ignore[arg-type]
    assert other and other.recipe == Recipe(**alike) and other.weight_decay == 5e-4  # type: ignore[arg-type]


def test_a_searched_recipe_is_the_students_alone() -> None:
    """What a trial searches overrides the flag, and the teacher keeps what the flag says."""
    settings = resolve(KDSettings.of(optimizer="sgd", ema=0.9))
    values = {"temperature": 2.0, "alpha": 0.5, "optimizer": "adam", "mixup": 0.3, "learning_rate": 1e-3}
    hparams = hparams_from(Hparams, settings, values)
    assert hparams.training.recipe == Recipe(optimizer="adam", ema=0.9, mixup=0.3)
    assert kd.teacher_training(settings).recipe == Recipe(optimizer="sgd", ema=0.9)


def test_images_are_mixed_while_a_student_is_distilled_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In `kd_sws` the teacher runs on mixed images, and clustering reads its stored logits."""
    digits = registry.load("digits", None, size=32)[0]
    settings = resolve(KDSWSSettings.of(mixup=0.2))
    teacher = build_network(kd.teacher_training(settings), digits)
    logits = np.zeros((1, len(digits.train), 10), dtype=np.float32)
    given: list[Any] = []

    def fit_student(hparams: Any, data: Any, targets: Any, *others: Any) -> Any:
        given.append(targets)
        return build_network(hparams.training, digits)

    def fit(model: Any, hparams: Any, data: Any, on_epoch: Any, targets: Any, progress: Any) -> Any:
        given.append(targets)
        raise InterruptedError

    monkeypatch.setattr(kd_sws.student, "fit_student", fit_student)
    monkeypatch.setattr(kd_sws.weight_sharing, "fit", fit)
    values = {"temperature": 4.0, "alpha": 0.5, "tau": 0.1, "components": 8, "pi_zero": 0.99}
    shared = SharedWork({**state_arrays(teacher), LOGITS: logits})
    with pytest.raises(InterruptedError):
        kd_sws.trial(values, settings, digits, shared, lambda row: None, Progress())
    distilling, clustering = given
    assert distilling.teacher is not None and clustering.teacher is None and clustering.logits is not None


@pytest.mark.parametrize(
    ("space", "flags", "message"),
    [
        ({"warmup_epochs": tune.randint(0, 41)}, {}, "warmup_epochs 40 must be fewer than"),
        ({"epochs": tune.choice([5, 40])}, {"warmup_epochs": 5}, "warmup_epochs 5 must be fewer"),
        ({"milestones": tune.choice(["0.5,0.7", "0.7,0.5"])}, {"schedule": "step"}, "milestones 0.7,0.5"),
        ({"momentum": tune.choice([0.0, 0.9])}, {"optimizer": "nesterov"}, "nesterov needs"),
    ],
)
def test_a_searched_value_is_refused_before_a_trial(space: dict, flags: dict[str, Any], message: str) -> None:
    """What a trial would refuse is refused where the command starts, by the file that searches it."""
    space = {"temperature": tune.uniform(1.0, 9.0), "alpha": tune.uniform(0.0, 1.0), **space}
    settings = resolve(KDSettings.of(kind="kd", teacher_epochs=50, **flags))
    with pytest.raises(UserError) as refused:
        SearchSpace.of("mine.py", space, {"val_accuracy": "max"}, {}).check(kd.METHOD, settings)
    assert str(refused.value).startswith("mine.py: ") and f"no trial takes it ({message}" in str(refused.value)


def test_a_searched_recipe_is_taken() -> None:
    """Optimisers with and without a momentum in one space: those without leave it alone."""
    space = {
        "temperature": tune.uniform(1.0, 9.0),
        "alpha": tune.uniform(0.0, 1.0),
        "optimizer": tune.choice(["adamw", "adam", "sgd", "nesterov"]),
        "momentum": tune.uniform(0.5, 0.95),
        "schedule": tune.choice(["cosine", "step", "constant"]),
        "warmup_epochs": tune.randint(0, 6),
        "ema": tune.choice([0.0, 0.99]),
        "mixup": tune.uniform(0.0, 0.4),
        "clip_norm": tune.choice([0.0, 1.0]),
        "label_smoothing": tune.uniform(0.0, 0.2),
    }
    settings = resolve(KDSettings.of(kind="kd"))
    searched = SearchSpace.of("kd", space, {"val_accuracy": "max"}, {})
    searched.check(kd.METHOD, settings)
