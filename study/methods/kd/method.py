"""Knowledge distillation as a kind of study: a teacher for all trials, and one student a trial."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from functools import partial

import torch

from study.artifacts.cache import TEACHER, SharedWork, digest
from study.artifacts.checkpoints import Progress
from study.data.fingerprint import fingerprint, identity
from study.data.splits import Splits, subset_per_class
from study.methods.common.pack_trainer import refuse_common, try_packing
from study.methods.common.settings import loss_without_effect
from study.methods.kd import student
from study.methods.kd.packed import SAME_IN_A_PACK, StudentPacks
from study.methods.kd.settings import KDSettings, StudentSettings
from study.methods.kd.student import SIZES, Hparams, sizes
from study.methods.method import Arrays, Method, Packing, Stage, TrialResult, hparams_from, settings_with
from study.settings import Values
from study.training import distillation, network
from study.training.distillation import Targets
from study.training.loop import Report, evaluate
from study.training.network import (
    RECIPE,
    Training,
    custom_code_key,
    is_listed,
    load_network,
    normalisation_key,
    teacher_apart,
    width_option,
)


def student_training(settings: StudentSettings) -> Training:
    """How a student is trained."""
    return Training(
        network=settings.student,
        options=width_option(settings.student_width),
        epochs=settings.epochs or 0,
        batch_size=settings.batch_size or 0,
        learning_rate=settings.learning_rate or settings.default_rate(settings.optimizer),
        weight_decay=settings.weight_decay,
        augment=settings.augment or "none",
        seed=settings.seed,
        precision=settings.precision,
        recipe=settings.recipe(),
        contiguous=is_listed(settings.student, settings.contiguous),
    )


def teacher_training(settings: StudentSettings) -> Training:
    """How the teacher is trained: as a student is, but for its network, its epochs, its flags, and batches of 64 at
    least."""
    training = Training(
        network=settings.teacher,
        options=width_option(settings.teacher_width),
        epochs=0 if settings.teacher_checkpoint else settings.teacher_epochs or 0,
        batch_size=max(settings.batch_size or 0, 64),
        learning_rate=settings.teacher_rate(settings.learning_rate),
        weight_decay=settings.teacher_decay(),
        augment=settings.augment or "none",
        seed=settings.seed,
        precision=settings.precision,
        recipe=settings.teacher_recipe(),
        contiguous=is_listed(settings.teacher, settings.contiguous),
    )
    return teacher_apart(training, student_training(settings))


def students_data(settings: StudentSettings, data: Splits) -> Splits:
    """The splits with the training part that students see, fixed with the split. Normalisation stays the teacher's."""
    if not settings.student_examples:
        return data
    few = subset_per_class(data.train, settings.student_examples, data.split_seed)
    return Splits(**{**vars(data), "train": few})


def data_note(settings: StudentSettings) -> str:
    """What the report says of the students' data."""
    few = settings.student_examples
    return f"Students see {few} training images of each class, the teacher all." if few else ""


def train_teacher(
    values: Values,
    settings: StudentSettings,
    data: Splits,
    shared: SharedWork | None,
    on_epoch: Report,
    progress: Progress,
) -> TrialResult:
    """Train the teacher, or take the one that the user gave, and compute its logits of the students' data."""
    training = teacher_training(settings)
    initial = shared.part(TEACHER).tensors() if shared else None
    teacher = network.fit_teacher(training, data, on_epoch, progress, initial)
    score = evaluate(teacher, data.validation, data)
    logits = distillation.stored_logits(teacher, students_data(settings, data).train, data, training.augment)
    metrics = {"val_accuracy": score.accuracy, "val_loss": score.loss, **sizes(teacher)}
    return TrialResult(metrics, {**network.state_arrays(teacher), **logits})


def teacher_key(settings: StudentSettings, data: Splits, initial_weights: SharedWork | None) -> Mapping[str, object]:
    """What determines the teacher, as JSON values."""
    given = initial_weights.part(TEACHER).arrays if initial_weights else {}
    weights = [hashlib.sha256(v.tobytes()).hexdigest() for v in given.values()] or None
    return {
        "training": teacher_training(settings).key(),
        "given": digest(weights),
        "data": identity(data),
        "transfer": fingerprint(students_data(settings, data).train),
        "torch": torch.__version__,
        "recipe": RECIPE,
        "sizes": sorted(SIZES),
        **normalisation_key(data),
        **custom_code_key(data, teacher_training(settings)),
    }


def teacher_trace(settings: StudentSettings, data: Splits, shared: SharedWork) -> Arrays:
    """What the report shows of the teacher: its dark knowledge."""
    teacher = load_network(shared.weights().tensors(), teacher_training(settings), data)
    return student.dark_knowledge(teacher, data)


def networks(settings: StudentSettings) -> dict[str, Training]:
    """Role → training, of all that the shared work trains."""
    return {"teacher": teacher_training(settings)}


def without_effect(settings: StudentSettings) -> dict[str, str]:
    """Hyperparameters that do nothing with these settings, and why; see `Method.without_effect`."""
    return {**settings.without_effect(), **loss_without_effect(settings)}


def fixed(settings: StudentSettings) -> dict[str, str]:
    """What is not searched: see `Method.fixed`."""
    return {"temperature": "--loss mse has no temperature"} if settings.loss == "mse" else {}


def hyperparameters(settings: KDSettings, values: Values) -> Hparams:
    """Of one trial; its learning rate is that of its own optimiser, where nothing says another."""
    return hparams_from(Hparams, settings_with(settings, values).with_rate(), values)


def trial(
    values: Values, settings: KDSettings, data: Splits, shared: SharedWork, on_epoch: Report, progress: Progress
) -> TrialResult:
    """Train one student under the teacher."""
    hparams = hyperparameters(settings, values)
    targets = targets_of(hparams, settings, data, shared)
    # Known before the first epoch, and reported with each: halving judges a trial by all objectives.
    size = sizes(network.build_network(hparams.training, data))
    trained = student.fit_student(hparams, data, targets, lambda row: on_epoch({**row, **size}), progress)
    return TrialResult(size, network.state_arrays(trained))


def targets_of(hparams: Hparams, settings: KDSettings, data: Splits, shared: SharedWork) -> Targets:
    """What the teacher says to a student with these hyperparameters."""
    return distillation.targets_from(shared, teacher_training(settings), data, hparams.augment, hparams.mixup)


def packs(settings: KDSettings, data: Splits, shared: SharedWork) -> StudentPacks:
    """Trains trials of one study as one program."""
    targets = partial(targets_of, settings=settings, data=data, shared=shared)
    return StudentPacks(settings.seed, data, partial(hyperparameters, settings), targets)


def check_packing(settings: KDSettings, data: Splits, searched: Collection[str]) -> None:
    """See `pack_trainer.refuse_common` and `pack_trainer.try_packing`, whose errors it raises."""
    refuse_common(searched, METHOD.search_space(settings), SAME_IN_A_PACK)
    try_packing(student_training(settings), data)


STAGE = Stage(
    name="teacher", run=train_teacher, key=teacher_key, networks=networks, role="teacher", trace=teacher_trace
)

METHOD = Method(
    title="Knowledge distillation",
    subject="the distilled student",
    reference="student alone",
    hparams=Hparams,
    shared_work=STAGE,
    trial=trial,
    epochs=lambda settings: settings.epochs,
    hyperparameters=hyperparameters,
    student=student_training,
    trial_data=students_data,
    data_note=data_note,
    replaced=("teacher",),
    metrics=("val_accuracy", "val_loss", "train_loss", *SIZES),
    without_effect=without_effect,
    fixed=fixed,
    dense={"": "student", "student alone": "student", "label smoothing": "student", "teacher": "teacher"},
    packing=Packing(check=check_packing, trainer=packs),
)
