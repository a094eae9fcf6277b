"""The kinds of study, by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from study.compression.size_metrics import COUNTS_OVER
from study.methods.kd.method import KD_METHOD
from study.methods.kd_sws.method import distil_and_share, sized_teacher_key, train_sized_teacher
from study.methods.magnitude.method import prune_network
from study.methods.sws.method import SWS_METHOD
from study.models import registry
from study.training.network import Training

KINDS = {
    "kd": KD_METHOD,
    "sws": SWS_METHOD,
    "magnitude": replace(
        SWS_METHOD, search=prune_network, epochs=lambda s: s.epochs + s.codebook_epochs, clustered=lambda s: 0
    ),
    "kd_sws": replace(
        KD_METHOD,
        prepare=train_sized_teacher,
        search=distil_and_share,
        key=sized_teacher_key,
        epochs=lambda s: s.epochs + s.cluster_epochs + s.retrain_epochs + s.codebook_epochs,
        clustered=lambda s: s.cluster_epochs,
        before=lambda s: s.epochs,
        counts_over=COUNTS_OVER,
    ),
}


def searched_network(settings: Any) -> Training:
    """The network that a searched trial of these settings trains."""
    networks = KINDS[settings.kind].networks(settings)
    return networks.get("network") or networks["student"]


def trained_network(settings: Any, baseline: str) -> Training:
    """The network whose weights a finished trial, or a baseline, left behind."""
    return KINDS[settings.kind].networks(settings)["teacher"] if baseline == "teacher" else searched_network(settings)


def least_size(settings: Any) -> int:
    """Side that images must have for every network of the study, in pixels."""
    return max(registry.minimum_size(t.network) for t in KINDS[settings.kind].networks(settings).values())
