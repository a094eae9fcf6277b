"""Post-training quantisation as a kind of study: one trained network, rounded by each trial."""

from __future__ import annotations

from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.compression.quantised_weights import leave_out, names_in
from study.compression.size_metrics import COUNTS_OVER
from study.data.splits import Splits
from study.methods.common import pretrained
from study.methods.method import Method, TrialResult, hparams_from
from study.methods.ptq import quantise
from study.methods.ptq.quantise import Hparams
from study.methods.ptq.settings import PTQSettings
from study.settings import Values
from study.training.loop import Report
from study.training.network import build_network


def trial(
    values: Values, settings: PTQSettings, data: Splits, shared: SharedWork, on_epoch: Report, progress: Progress
) -> TrialResult:
    """Round the trained network; the result is the one epoch that it reports."""
    network, _ = pretrained.start(settings, data, shared)
    quantised, metrics = quantise.fit(network, hparams_from(Hparams, settings, values), data)
    on_epoch({"epoch": 1, "phase": "quantise", **metrics})
    return pretrained.compressed(network, quantised, metrics, settings, data, shared)


def seconds(settings: PTQSettings, data: Splits) -> float:
    """Of a trial."""
    network = leave_out(build_network(pretrained.pretraining(settings), data), names_in(settings.skip))
    return quantise.seconds_of(network, settings.calibration_examples, data)


METHOD = Method(
    title="Post-training quantisation",
    reference="uncompressed",
    hparams=Hparams,
    shared_work=pretrained.STAGE,
    trial=trial,
    epochs=lambda settings: 1,
    metrics=pretrained.METRICS,
    counts_over=COUNTS_OVER,
    untrained_seconds=seconds,
)
