"""Magnitude pruning as a kind of study: one pretrained network, pruned anew by each trial."""

from __future__ import annotations

from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.data.splits import Splits
from study.methods.common.pretrained import compressed, pretraining, start, teaching
from study.methods.magnitude import pruning
from study.methods.magnitude.pruning import Hparams
from study.methods.magnitude.settings import MagnitudeSettings
from study.methods.method import TrialResult
from study.training.loop import Report


def prune_network(
    values: dict, s: MagnitudeSettings, data: Splits, shared: SharedWork, on_epoch: Report, progress: Progress
) -> TrialResult:
    network, targets = start(s, data, shared)
    hparams = Hparams(
        epochs=s.epochs or 0,
        batch_size=s.batch_size or 0,
        weight_rate=s.weight_rate,
        codebook_epochs=s.codebook_epochs or 0,
        codebook_rate=s.codebook_rate,
        augment=s.augment or "none",
        seed=s.seed,
        precision=s.precision,
        **teaching(s),
        **values,
    )
    quantised, metrics = pruning.fit(network, hparams, data, on_epoch, targets, progress)
    return compressed(network, quantised, metrics, pretraining(s), data, shared)
