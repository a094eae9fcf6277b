"""Distillation followed by soft weight-sharing of the student, as a kind of study."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from study.artifacts.cache import STUDENT, SharedWork, arrays_digest
from study.artifacts.checkpoints import Progress
from study.compression.quantised_weights import leave_out, names_in
from study.compression.size_metrics import COUNTS_OVER
from study.data.splits import Splits
from study.methods.common.pretrained import METRICS, compressed_result, counted_key, uncompressed_sizes
from study.methods.kd import method as distillation_study
from study.methods.kd import student
from study.methods.kd_sws.settings import KDSWSSettings
from study.methods.method import Method, TrialResult, hparams_from, settings_with, shift_epochs
from study.methods.sws import weight_sharing
from study.records.search_domains import Value
from study.settings import Values
from study.training import distillation
from study.training.loop import Report
from study.training.network import build_network

HparamsT = TypeVar("HparamsT")


@dataclass(frozen=True, kw_only=True)
class Hparams(weight_sharing.Hparams, student.Hparams):
    """One trial: those of the student, whose training has `epochs`, and those of its clustering.

    Attributes:
        cluster_epochs: of clustering, after those of distillation.
    """

    cluster_epochs: int = 20


def part_of(hparams: Hparams, cls: type[HparamsT], **others: Value) -> HparamsT:
    """The hyperparameters of one of the two phases."""
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return cls(**{name: others[name] if name in others else getattr(hparams, name) for name in names})


def train_teacher(
    values: Values,
    settings: KDSWSSettings,
    data: Splits,
    shared: SharedWork | None,
    on_epoch: Report,
    progress: Progress,
) -> TrialResult:
    """The teacher, with its size: here size is an objective, which a plain KD study does not have. The weights that
    the user gave of a student are handed on to the trials."""
    result = distillation_study.train_teacher(values, settings, data, shared, on_epoch, progress)
    network = build_network(distillation_study.teacher_training(settings), data)
    students = {k: v for k, v in (shared.arrays if shared else {}).items() if k.startswith(STUDENT)}
    return replace(
        result, metrics={**result.metrics, **uncompressed_sizes(network)}, arrays={**result.arrays, **students}
    )


def teacher_key(settings: KDSWSSettings, data: Splits, initial_weights: SharedWork | None) -> Mapping[str, object]:
    """What determines the teacher, and the weights of a student that are stored with it, as JSON values."""
    counted = counted_key(distillation_study.teacher_training(settings), (), data)
    key = {**distillation_study.teacher_key(settings, data, initial_weights), "sized": True, **counted}
    students = initial_weights.part(STUDENT).arrays if initial_weights else {}
    return {**key, "student": arrays_digest(students)} if students else key


def fixed(settings: KDSWSSettings) -> dict[str, str]:
    """What is not searched: see `Method.fixed`."""
    reason = "the weights that the student starts from have one width"
    width = {"student_width": reason} if settings.checkpoint or settings.weights else {}
    return {**width, **distillation_study.fixed(settings)}


def hyperparameters(settings: KDSWSSettings, values: Values) -> Hparams:
    """Of one trial; see `kd.method.hyperparameters`."""
    return hparams_from(Hparams, settings_with(settings, values).with_rate(), values)


def trial(
    values: Values, settings: KDSWSSettings, data: Splits, shared: SharedWork, on_epoch: Report, progress: Progress
) -> TrialResult:
    """Distil a student, then cluster and quantise it, both under the same teacher."""
    hparams = hyperparameters(settings, values)
    teacher = distillation_study.teacher_training(settings)
    targets = distillation.targets_from(shared, teacher, data, hparams.augment)
    mixed = (
        distillation.targets_from(shared, teacher, data, hparams.augment, hparams.mixup) if hparams.mixup else targets
    )
    distilled = part_of(hparams, student.Hparams)
    skip = names_in(settings.skip)
    initial = shared.part(STUDENT).tensors()
    network = leave_out(student.fit_student(distilled, data, mixed, on_epoch, progress, initial), skip)
    progress.trace.before = hparams.epochs
    quantised, metrics = weight_sharing.fit(
        network,
        part_of(hparams, weight_sharing.Hparams, epochs=hparams.cluster_epochs),
        data,
        shift_epochs(hparams.epochs, on_epoch),
        targets,
        progress,
    )
    return compressed_result(network, quantised, metrics, distilled.training, data, shared, skip)


METHOD = Method(
    title="Distillation, then soft weight-sharing",
    subject="the compressed student",
    reference="teacher",
    hparams=Hparams,
    shared_work=replace(distillation_study.STAGE, run=train_teacher, key=teacher_key),
    trial=trial,
    epochs=lambda settings: (
        settings.epochs + settings.cluster_epochs + settings.retrain_epochs + settings.codebook_epochs
    ),
    hyperparameters=hyperparameters,
    student=distillation_study.student_training,
    trial_data=distillation_study.students_data,
    data_note=distillation_study.data_note,
    epochs_before=lambda settings: settings.epochs,
    replaced=("teacher",),
    dense={"teacher": "teacher"},
    headings={
        "compression_ratio": "compression ratio against its own uncompressed student (file bytes, ×)",
        "accuracy_drop": "accuracy below the teacher's (points)",
    },
    metrics=METRICS,
    counts_over=COUNTS_OVER,
    without_effect=distillation_study.without_effect,
    fixed=fixed,
)
