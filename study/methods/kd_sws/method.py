"""Distillation followed by soft weight-sharing of the student, as a kind of study."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.data.splits import Splits
from study.methods.common.pretrained import compressed, uncompressed
from study.methods.kd.method import student_hparams, student_training, teacher_key, teacher_training, train_teacher
from study.methods.kd.student import Hparams, fit_student
from study.methods.kd_sws.settings import KDSWSSettings
from study.methods.method import TrialResult, shift_epochs
from study.methods.sws import weight_sharing
from study.methods.sws.method import sharing
from study.training import distillation, network
from study.training.loop import Report

# --- distillation, then soft weight-sharing


def train_sized_teacher(
    values: dict, s: KDSWSSettings, data: Splits, given: SharedWork | None, on_epoch: Report, progress: Progress
) -> TrialResult:
    """The teacher, with its size: here size is an objective, which a plain KD study does not have."""
    left = train_teacher(values, s, data, given, on_epoch, progress)
    return replace(left, metrics={**left.metrics, **uncompressed(network.build_network(teacher_training(s), data))})


def sized_teacher_key(s: KDSWSSettings, data: Splits, given: SharedWork | None) -> dict[str, Any]:
    return {**teacher_key(s, data, given), "sized": True}


def distil_and_share(
    values: dict, s: KDSWSSettings, data: Splits, shared: SharedWork, on_epoch: Report, progress: Progress
) -> TrialResult:
    searched = dict(values)
    s = replace(s, student_width=searched.pop("student_width", s.student_width))
    training = student_training(s)
    teaching = {"temperature": searched.pop("temperature", 1.0), "alpha": searched.pop("alpha")}
    targets = distillation.targets_from(shared, teacher_training(s), data, training.augment)
    student = fit_student(Hparams(**student_hparams(s), **teaching), data, targets, on_epoch, progress)
    hparams = sharing(s, searched, epochs=s.cluster_epochs or 0, **teaching)
    progress.trace.before = training.epochs
    quantised, metrics = weight_sharing.fit(
        student, hparams, data, shift_epochs(training.epochs, on_epoch), targets, progress
    )
    return compressed(student, quantised, metrics, training, data, shared)
