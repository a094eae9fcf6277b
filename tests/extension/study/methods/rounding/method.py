"""Rounding to a few bits without training: the smallest method there can be. `tests/test_extending.py` runs it."""

from __future__ import annotations

from dataclasses import dataclass

from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.compression.codebook_training import CodebookHparams, score
from study.compression.quantised_weights import flatten, shared_parameters
from study.data.splits import Splits
from study.methods.common import pretrained
from study.methods.common.settings import CompressionSettings
from study.methods.magnitude.pruning import post_training
from study.methods.method import Method, TrialResult, hparams_from
from study.settings import Values
from study.training.loop import Report


@dataclass(frozen=True, kw_only=True)
class Hparams(CodebookHparams):
    """One trial.

    Attributes:
        bits: of every weight, at least 2.
    """

    bits: int


def trial(
    values: Values,
    settings: CompressionSettings,
    data: Splits,
    shared: SharedWork,
    on_epoch: Report,
    progress: Progress,
) -> TrialResult:
    """Round the trained network; its one epoch reports by how much."""
    network, _ = pretrained.start(settings, data, shared)
    hparams = hparams_from(Hparams, settings, values)
    before = flatten(shared_parameters(network)).detach().clone()
    quantised = post_training(network, hparams.bits)
    error = float((flatten(shared_parameters(network)) - before).square().mean().sqrt())
    metrics = {**score(network, quantised, data), "rounding_error": error}
    on_epoch({"epoch": 1, "phase": "round", **metrics})
    return pretrained.compressed(network, quantised, metrics, settings, data, shared)


METHOD = Method(
    title="Rounding",
    reference="uncompressed",
    hparams=Hparams,
    shared_work=pretrained.STAGE,
    trial=trial,
    epochs=lambda settings: 1,
)
