"""Soft weight-sharing as a kind of study: one pretrained network, clustered by each trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.compression.size_metrics import COUNTS_OVER
from study.data.splits import Splits
from study.methods.common import pack_trainer, packed_pinning, pinning, pretrained
from study.methods.common.pack_trainer import CompressionPacks
from study.methods.method import Method, Packing, TrialResult, hparams_from
from study.methods.sws import hard, packed, weight_sharing
from study.methods.sws.settings import NOT_PACKABLE, SWSSettings
from study.methods.sws.weight_sharing import Hparams
from study.settings import Values
from study.training.loop import Report


@dataclass(frozen=True, kw_only=True)
class EitherHparams(weight_sharing.Hparams, hard.Hparams):
    """What can be searched: the hyperparameters of both variants."""


def without_effect(settings: SWSSettings) -> dict[str, str]:
    """Hyperparameters that do nothing with these settings, and why; see `Method.without_effect`."""
    names = {
        variant: {f.name for f in dataclasses.fields(cls)}
        for variant, cls in (("soft", weight_sharing.Hparams), ("hard", hard.Hparams))
    }
    of_other = names["hard" if settings.variant == "soft" else "soft"] - names[settings.variant]
    return {
        **pretrained.without_effect(settings),
        **dict.fromkeys(sorted(of_other), f"with --variant {settings.variant}"),
    }


def epochs(settings: SWSSettings) -> int:
    """Most epochs that a trial reports."""
    if settings.variant == "soft":
        return (settings.epochs or 0) + (settings.retrain_epochs or 0) + (settings.codebook_epochs or 0)
    return (settings.epochs or 0) + (0 if settings.quantised_training else settings.codebook_epochs or 0)


def hyperparameters(settings: SWSSettings, values: Values) -> Hparams:
    """Of one trial of the soft variant."""
    return hparams_from(Hparams, settings, values, **pretrained.no_teacher(settings))


def hard_hyperparameters(settings: SWSSettings, values: Values) -> hard.Hparams:
    """Of one trial of the hard variant."""
    return hparams_from(hard.Hparams, settings, values, **pretrained.no_teacher(settings))


def of_either_variant(settings: SWSSettings, values: Values) -> Hparams | hard.Hparams:
    """Of one trial."""
    return (hyperparameters if settings.variant == "soft" else hard_hyperparameters)(settings, values)


def trial(
    values: Values, settings: SWSSettings, data: Splits, shared: SharedWork, on_epoch: Report, progress: Progress
) -> TrialResult:
    """Cluster the pretrained network under a mixture prior, or by the prior's hard limit, and quantise it."""
    network, targets = pretrained.start(settings, data, shared)
    if settings.variant == "hard":
        hard_hparams = hard_hyperparameters(settings, values)
        quantised, metrics = pinning.fit(network, hard_hparams, data, on_epoch, targets, progress)
    else:
        hparams = hyperparameters(settings, values)
        quantised, metrics = weight_sharing.fit(network, hparams, data, on_epoch, targets, progress)
    return pretrained.compressed(network, quantised, metrics, settings, data, shared)


def packs(settings: SWSSettings, data: Splits, shared: SharedWork) -> CompressionPacks:
    """Trains trials of one study as one program."""
    if settings.variant == "hard":
        return CompressionPacks(settings, data, shared, partial(hard_hyperparameters, settings), packed_pinning.fit)
    return CompressionPacks(settings, data, shared, partial(hyperparameters, settings), packed.fit)


def check_packing(settings: SWSSettings, data: Splits, searched: Collection[str]) -> None:
    """See `pack_trainer.check_packing`."""
    soft = settings.variant == "soft"
    same = (*packed.SAME_IN_A_PACK, *NOT_PACKABLE) if soft else packed_pinning.SAME_IN_A_PACK
    pack_trainer.check_packing(settings, data, searched, METHOD.search_space(settings), same)


METHOD = Method(
    title="Soft weight-sharing",
    reference="uncompressed",
    hparams=EitherHparams,
    shared_work=pretrained.STAGE,
    trial=trial,
    epochs=epochs,
    hyperparameters=of_either_variant,
    metrics=pretrained.METRICS,
    counts_over=COUNTS_OVER,
    without_effect=without_effect,
    packing=Packing(check=check_packing, trainer=packs),
    search_space=lambda settings: "sws" if settings.variant == "soft" else "sws_hard",
)
