"""Flags of soft weight-sharing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from study.methods.common.settings import CodebookSettings, CompressionSettings


@dataclass(frozen=True)
class WeightSharingSettings(CodebookSettings):
    """Settings of soft weight-sharing itself; each is explained at `study.methods.sws.weight_sharing.Hparams`."""

    retrain_epochs: int | None = None
    """Epochs between clustering and quantising in which the pruned weights stay at zero. Default: 0."""
    precision_rate: float | None = None
    """Peak rate of Adam for the mixture's log-precisions. Default: 1e-2 on digits, whose epochs have few steps,
    otherwise 3e-3."""
    sigma: float = 0.05
    """Initial standard deviation of every component, in units of weight."""
    pi_zero_strength: float = 0.0
    """0 keeps pi_zero fixed; above it pi_zero is learned under a Beta prior worth this many weights."""
    anneal: float = 0.0
    """Share of the clustering epochs over which tau rises from zero; 0 for tau constant."""
    merge: float = 0.0
    """Components closer than this many nats of symmetric KL divergence become one before quantising; 0 for none."""
    layer_scales: bool = False
    """Give every layer its own scale, so that one mixture fits layers of different width."""


@dataclass(frozen=True)
class SWSSettings(WeightSharingSettings, CompressionSettings):
    """Soft weight-sharing: a network is pruned and quantised under a mixture prior; searches tau, components, pi_zero.

    Every trial starts from the same pretrained network, clusters its weights, and is quantised.
    """

    kind: ClassVar[str] = "sws"

    pack: int = 1
    """Trials trained together as one batched program on each GPU, baselines beside them, for small networks: 64 at once
    train in a ninth of the time. The searcher learns from one pack to the next, so of a single pack it learns nothing.
    A trial that was cut off begins anew, and one that is stopped saves no time. 1 for none; the results differ by
    rounding alone (and dropout)."""

    DEFAULTS: ClassVar[dict[str, dict[str, Any]]] = {
        **CompressionSettings.DEFAULTS,
        "digits": CompressionSettings.DEFAULTS["digits"] | dict(precision_rate=1e-2),
        "": CompressionSettings.DEFAULTS[""] | dict(retrain_epochs=0, precision_rate=3e-3),
    }
