"""Soft weight-sharing as a kind of study: one pretrained network, clustered anew by each trial."""

from __future__ import annotations

from typing import Any

from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.compression.size_metrics import COUNTS_OVER
from study.data.splits import Splits
from study.methods.common.pretrained import (
    compressed,
    compressing_networks,
    network_key,
    pretrain_network,
    pretraining,
    start,
    teaching,
)
from study.methods.method import Method, TrialResult
from study.methods.sws import weight_sharing
from study.methods.sws.settings import SWSSettings, WeightSharingSettings
from study.methods.sws.weight_sharing import Hparams
from study.training.loop import Report


def share_weights(
    values: dict, s: SWSSettings, data: Splits, shared: SharedWork, on_epoch: Report, progress: Progress
) -> TrialResult:
    network, targets = start(s, data, shared)
    hparams = sharing(s, values, epochs=s.epochs or 0, **teaching(s))
    quantised, metrics = weight_sharing.fit(network, hparams, data, on_epoch, targets, progress)
    return compressed(network, quantised, metrics, pretraining(s), data, shared)


def sharing(s: WeightSharingSettings, values: dict[str, Any], **others: Any) -> Hparams:
    """The hyperparameters of soft weight-sharing from the settings and a trial's searched values."""
    searched = {k: v for k, v in values.items() if k != "one_minus_pi_zero"}
    return Hparams(
        pi_zero=1 - values["one_minus_pi_zero"],
        batch_size=s.batch_size or 0,  # type: ignore[attr-defined]
        weight_rate=s.weight_rate,
        precision_rate=s.precision_rate or 0.0,
        sigma=s.sigma,
        pi_zero_strength=s.pi_zero_strength,
        anneal=s.anneal,
        merge=s.merge,
        layer_scales=s.layer_scales,
        retrain_epochs=s.retrain_epochs or 0,
        codebook_epochs=s.codebook_epochs or 0,
        codebook_rate=s.codebook_rate,
        augment=s.augment or "none",  # type: ignore[attr-defined]
        seed=s.seed,
        precision=s.precision,
        **others,
        **searched,
    )


SWS_METHOD = Method(
    first="uncompressed",
    prepare=pretrain_network,
    search=share_weights,
    key=network_key,
    networks=compressing_networks,
    trial_data=lambda s, data: data,
    epochs=lambda s: s.epochs + s.retrain_epochs + s.codebook_epochs,
    clustered=lambda s: s.epochs,
    counts_over=COUNTS_OVER,
)
