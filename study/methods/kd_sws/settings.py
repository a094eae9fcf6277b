"""Flags of distillation followed by soft weight-sharing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from study.flag_marks import Common, Rare
from study.methods.kd.settings import StudentSettings
from study.methods.sws.settings import WeightSharingSettings
from study.setting_bounds import AtLeast
from study.settings import Epochs, Values


@dataclass(frozen=True)
class KDSWSSettings(WeightSharingSettings, StudentSettings):
    """Distillation, then soft weight-sharing of the student, both under the same teacher; searches the student's
    width, temperature, alpha, tau, components and pi_zero."""

    kind: Annotated[str, tyro.conf.Suppress] = "kd_sws"

    epochs: Epochs | None = None
    """Epochs of distillation. Default: 20 on digits, 75 on CIFAR, otherwise 20."""
    cluster_epochs: Annotated[Epochs | None, Common(heading="Training")] = None
    """Epochs of clustering, after --epochs of distillation. Default: 40 on digits, otherwise 20."""
    codebook_epochs: Annotated[int | None, AtLeast(0), Rare()] = None
    """Epochs of the codebook alone, after quantising. Default: 10 on digits, otherwise 4."""
    student_examples: Annotated[int | None, AtLeast(0)] = None
    """Training images of each class that students see; 0 for all. Default: 0."""

    DEFAULTS: ClassVar[Mapping[str, Values]] = {
        **StudentSettings.DEFAULTS,
        "digits": {
            **StudentSettings.DEFAULTS["digits"],
            "epochs": 20,
            "student_examples": 0,
            "cluster_epochs": 40,
            "codebook_epochs": 10,
            "precision_rate": 1e-2,
        },
        "": {
            **StudentSettings.DEFAULTS[""],
            "scheduler": "none",
            "cluster_epochs": 20,
            "codebook_epochs": 4,
            "retrain_epochs": 0,
            "precision_rate": 3e-3,
        },
    }


SETTINGS = KDSWSSettings
