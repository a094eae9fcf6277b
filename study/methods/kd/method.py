"""Knowledge distillation as a kind of study: a teacher for all trials, and one student a trial."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from study.artifacts.cache import SharedWork, digest
from study.artifacts.checkpoints import Progress
from study.data.fingerprint import fingerprint, identity
from study.data.splits import Splits, subset_per_class
from study.methods.kd import student
from study.methods.kd.settings import KDSettings
from study.methods.kd.student import Hparams
from study.methods.method import Method, TrialResult
from study.training import distillation, network
from study.training.loop import Report, evaluate
from study.training.network import RECIPE, Training, custom_code_key, teacher_apart, width_option

# --- knowledge distillation


def teacher_training(s: KDSettings) -> Training:
    training = Training(s.teacher, width_option(s.teacher_width), s.teacher_epochs or 0, max(s.batch_size or 0, 64),
                           s.learning_rate, s.weight_decay, s.augment or "none", s.seed, s.precision)  # fmt: skip
    return teacher_apart(training, student_training(s))


def student_training(s: KDSettings) -> Training:
    return Training(s.student, width_option(s.student_width), s.epochs or 0, s.batch_size or 0,
                       s.learning_rate, s.weight_decay, s.augment or "none", s.seed, s.precision)  # fmt: skip


def student_hparams(s: KDSettings) -> dict[str, Any]:
    """The student and its training, as `Hparams` takes them."""
    training = {k: v for k, v in vars(student_training(s)).items() if k not in ("network", "options")}
    return {"student": s.student, "student_width": s.student_width or 1.0, **training}


def students_data(s: KDSettings, data: Splits) -> Splits:
    """The splits with the training part that students see, fixed with the split. Normalisation stays the teacher's."""
    if not s.student_examples:
        return data
    return Splits(**{**vars(data), "train": subset_per_class(data.train, s.student_examples, data.split_seed)})


def train_teacher(
    values: dict, s: KDSettings, data: Splits, given: SharedWork | None, on_epoch: Report, progress: Progress
) -> TrialResult:
    training = teacher_training(s)
    if given is None:
        teacher = network.fit_teacher(training, data, on_epoch, progress)
    else:
        teacher = network.load_network(given.tensors(), training, data)
    score = evaluate(teacher, data.validation, data)
    logits = distillation.stored_logits(teacher, students_data(s, data).train, data, training.augment)
    return TrialResult(
        {"val_accuracy": score.accuracy, "val_loss": score.loss}, {**network.state_arrays(teacher), **logits}
    )


def _distil(
    values: dict, s: KDSettings, data: Splits, shared: SharedWork, on_epoch: Report, progress: Progress
) -> TrialResult:
    hparams = Hparams(**(student_hparams(s) | values))
    targets = distillation.targets_from(shared, teacher_training(s), data, hparams.augment)
    return TrialResult({}, network.state_arrays(student.fit_student(hparams, data, targets, on_epoch, progress)))


def teacher_key(s: KDSettings, data: Splits, given: SharedWork | None) -> dict[str, Any]:
    weights = [hashlib.sha256(v.tobytes()).hexdigest() for v in given.arrays.values()] if given else None
    return {
        "training": vars(teacher_training(s)),
        "given": digest(weights),
        "data": identity(data),
        "transfer": fingerprint(students_data(s, data).train),
        "torch": torch.__version__,
        "recipe": RECIPE,
        **custom_code_key(data, teacher_training(s)),
    }


KD_METHOD = Method(
    first="teacher",
    prepare=train_teacher,
    search=_distil,
    key=teacher_key,
    networks=lambda s: {"teacher": teacher_training(s), "student": student_training(s)},
    trial_data=students_data,
    epochs=lambda s: s.epochs,
)
