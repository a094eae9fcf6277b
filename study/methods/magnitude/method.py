"""Magnitude pruning as a kind of study: one pretrained network, pruned by each trial."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.compression.size_metrics import COUNTS_OVER
from study.data.splits import Splits
from study.methods.common import pack_trainer, packed_pinning, pretrained
from study.methods.common.pack_trainer import CompressionPacks
from study.methods.magnitude import pruning
from study.methods.magnitude.pruning import Hparams
from study.methods.magnitude.settings import MagnitudeSettings
from study.methods.method import Method, Packing, TrialResult, hparams_from
from study.settings import Values
from study.training.loop import Report


def hyperparameters(settings: MagnitudeSettings, values: Values) -> Hparams:
    """Of one trial."""
    return hparams_from(Hparams, settings, values, **pretrained.no_teacher(settings))


def trial(
    values: Values, settings: MagnitudeSettings, data: Splits, shared: SharedWork, on_epoch: Report, progress: Progress
) -> TrialResult:
    """Prune the pretrained network, cluster what is left, and train the codebook."""
    network, targets = pretrained.start(settings, data, shared)
    hparams = hyperparameters(settings, values)
    quantised, metrics = pruning.fit(network, hparams, data, on_epoch, targets, progress)
    return pretrained.compressed(network, quantised, metrics, settings, data, shared)


def packs(settings: MagnitudeSettings, data: Splits, shared: SharedWork) -> CompressionPacks:
    """Trains trials of one study as one program."""
    return CompressionPacks(settings, data, shared, partial(hyperparameters, settings), pruning.fit_pack)


def check_packing(settings: MagnitudeSettings, data: Splits, searched: Collection[str]) -> None:
    """See `pack_trainer.check_packing`."""
    same = packed_pinning.SAME_IN_A_PACK
    pack_trainer.check_packing(settings, data, searched, METHOD.search_space(settings), same)


METHOD = Method(
    title="Magnitude pruning",
    reference="uncompressed",
    hparams=Hparams,
    shared_work=pretrained.STAGE,
    trial=trial,
    epochs=lambda settings: settings.epochs + (0 if settings.quantised_training else settings.codebook_epochs),
    hyperparameters=hyperparameters,
    metrics=pretrained.METRICS,
    counts_over=COUNTS_OVER,
    without_effect=pretrained.without_effect,
    packing=Packing(check=check_packing, trainer=packs),
)
