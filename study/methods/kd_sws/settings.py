"""Flags of distillation followed by soft weight-sharing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from study.methods.kd.settings import KDSettings
from study.methods.sws.settings import WeightSharingSettings
from study.settings import Scheduler


@dataclass(frozen=True)
class KDSWSSettings(WeightSharingSettings, KDSettings):
    """Distillation, then soft weight-sharing of the student, both under the same teacher; searches the student's
    width, temperature, alpha, tau, components and pi_zero."""

    kind: ClassVar[str] = "kd_sws"

    epochs: int | None = None
    """Epochs of distillation. Default: 20 on digits, 75 on CIFAR, otherwise 20."""
    cluster_epochs: int | None = None
    """Epochs of clustering, after --epochs of distillation. Default: 40 on digits, otherwise 20."""
    codebook_epochs: int | None = None
    """Epochs in which the codebook's values alone are trained after quantising. Default: 10 on digits, otherwise 4."""
    student_examples: int | None = None
    """Training images of each class that students see; 0 for all, which is the default."""
    scheduler: Scheduler = "none"
    """asha stops trials that fall behind by non-dominated rank over the objectives (see study.tuning.halving). none
    lets every trial finish."""

    DEFAULTS: ClassVar[dict[str, dict[str, Any]]] = {
        **KDSettings.DEFAULTS,
        "digits": KDSettings.DEFAULTS["digits"]
        | dict(epochs=20, student_examples=0, cluster_epochs=40, codebook_epochs=10, precision_rate=1e-2),
        "": KDSettings.DEFAULTS[""] | dict(cluster_epochs=20, codebook_epochs=4, retrain_epochs=0, precision_rate=3e-3),
    }
