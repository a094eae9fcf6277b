"""What a study would cost: `--dry-run`. Steps of training are timed; Ray is not started and nothing is written."""

from __future__ import annotations

import importlib
import itertools
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.compression.quantised_weights import flatten, shared_parameters
from study.data.splits import Splits
from study.methods.registry import KINDS, searched_network
from study.methods.sws import weight_sharing
from study.methods.sws.mixture import Mixture
from study.methods.sws.weight_sharing import Hparams
from study.pipeline import preflight
from study.training.batches import SHIFTING, Batch, EpochBatches
from study.training.cuda_graphs import make_step
from study.training.loop import logits_of
from study.training.network import Training, build_network
from study.training.precision import logits
from study.tuning.cluster import resource_request, resources, shared_cores, trials_that_fit

BUDGET = 2.0
"""Seconds that timing one thing may take, if two calls are not slower."""


@dataclass(frozen=True)
class Estimate:
    """What a study would take on this machine, without what its scheduler saves.

    Attributes:
        shared, trial: seconds of the work that all trials share, and of one trial.
        trials, confirming: of the search, and of the confirmation with fresh seeds, baselines included.
        seeds: fresh ones, each with shared work of its own.
        at_once: trials that run at one time.
        lanes: trials that run at one time as fast as one alone; those that share a GPU are taken to gain nothing by it.
    """

    shared: float
    trial: float
    trials: int
    confirming: int
    seeds: int
    at_once: int
    lanes: float

    @property
    def search(self) -> float:
        return self.trial * max(1.0, self.trials / self.lanes)

    @property
    def confirmation(self) -> float:
        return self.shared * self.seeds + self.trial * self.confirming / self.lanes

    @property
    def whole(self) -> float:
        return self.shared + self.search + self.confirmation


def dry_run(settings: Any) -> None:
    """Print what would run and about how long it would take here.

    Raises:
        UserError: what the study itself would refuse.
    """
    spaces = importlib.import_module(f"search_spaces.{settings.kind}")
    settings, recorded = preflight.resume(settings, spaces)
    brought = preflight.load_inputs(settings, spaces, recorded)
    data, baselines, first = brought.data, len(spaces.BASELINES), KINDS[settings.kind].first
    print(f"{settings.folder}: {settings.num_samples} trials and {1 + baselines} baselines, data {data.title}")
    for role, network in brought.networks.items():
        print(f"  {role}: {network['name']}, {network['parameters']:,} parameters")
    found = estimate(settings, spaces, data)
    if recorded:
        print("  the folder has some of that already; what follows is for all of it")
    print(f"  {first}, once: about {_long(found.shared)}")
    print(f"  a trial of {KINDS[settings.kind].epochs(settings)} epochs: about {_long(found.trial)}; "
          f"{found.trials} of them, {found.at_once} at a time: about {_long(found.search)}")  # fmt: skip
    if settings.pack > 1:
        print("  packed trials take less: they are not timed")
    if found.confirming:
        print(f"  confirmation, {found.seeds} seeds: about {_long(found.confirmation)}")
    print(f"  in all about {_long(found.whole)}: from a few steps timed now, as if nothing ran beside them, without "
          "the start of Ray and what the scheduler saves")  # fmt: skip


def estimate(settings: Any, spaces: Any, data: Splits) -> Estimate:
    """From steps of each network, timed on the GPU where there is one.

    Raises:
        UserError: the machine holds no such trial.
    """
    kind, baselines = KINDS[settings.kind], len(spaces.BASELINES)
    cores, there = len(os.sched_getaffinity(0)), torch.cuda.device_count()
    here = {"CPU": float(cores), "GPU": float(there)}
    # What memory Ray would promise is not known here.
    asking = replace(settings, memory_per_trial=None)
    share, at_once = resources(asking, [here])
    gpus = there if share else 0
    data = data.to(torch.device("cuda" if gpus else "cpu"))
    shared = 0.0
    if getattr(settings, "teacher_checkpoint", None) is None:
        unpacked = min(at_once, trials_that_fit([here], resource_request(asking, share)))
        threads = max(1, int(shared_cores(settings, unpacked)))
        trained = [t for role, t in kind.networks(settings).items() if role != "student"]
        shared = sum(t.epochs * seconds_an_epoch(t, data, threads) for t in trained)
    return Estimate(
        shared=shared,
        trial=trial_seconds(settings, spaces, kind.trial_data(settings, data)),
        trials=settings.num_samples + baselines,
        confirming=settings.seeds * (settings.confirm + baselines) if settings.confirm else 0,
        seeds=settings.seeds if settings.confirm else 0,
        at_once=at_once,
        lanes=min(at_once, cores / settings.threads, gpus or math.inf),
    )


def _long(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


def trial_seconds(settings: Any, spaces: Any, data: Splits) -> float:
    """Of one searched trial, with as many components as the middle of their range."""
    kind, training = KINDS[settings.kind], searched_network(settings)
    asked = _asked_in_every_step(settings, training)
    clustered = kind.clustered(settings)
    total = (kind.epochs(settings) - clustered) * seconds_an_epoch(training, data, settings.threads, asked=asked)
    if clustered:
        domain: Any = spaces.SPACE["components"]
        components = (domain.lower + domain.upper) // 2
        total += clustered * seconds_an_epoch(training, data, settings.threads, components, asked)
    return float(total)


def _asked_in_every_step(settings: Any, training: Training) -> Training | None:
    """The teacher, where its logits cannot be kept."""
    if training.augment not in SHIFTING or getattr(settings, "teacher", "none") == "none":
        return None
    return KINDS[settings.kind].networks(settings).get("teacher", training)  # without one of its own, its own


def seconds_an_epoch(
    training: Training, data: Splits, threads: int, components: int = 0, asked: Training | None = None
) -> float:
    """Of training and the evaluation after it.

    Args:
        components: of a mixture prior over the weights; 0 for none.
        asked: a teacher that runs in every step.
    """
    torch.set_num_threads(threads)
    model, teacher = build_network(training, data), build_network(asked, data).eval() if asked else None
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    weights = shared_parameters(model)
    prior = _prior(flatten(weights).detach(), components) if components else None

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        value = F.cross_entropy(logits(model, batch.images, training.precision), batch.labels)
        if prior:
            value = value + prior.complexity(flatten(weights)) / len(data.train)
        if teacher:
            with torch.no_grad():
                logits(teacher, batch.images, training.precision)
        return value

    views = EpochBatches(data, training.augment)
    views.shuffle(torch.Generator().manual_seed(training.seed))
    steps = views.split(training.batch_size)
    run = make_step(model, views, loss, optimiser, torch.zeros((), device=views.order.device))
    stream = itertools.cycle(steps)
    images = data.validation.images[:512]
    evaluation = len(data.validation) / max(1, len(images)) * _timed(lambda: logits_of(model, images, data), 5)
    model.train()
    return len(steps) * _timed(lambda: run(next(stream)), min(len(steps), 20)) + evaluation


def _prior(weights: Tensor, components: int) -> Mixture:
    return weight_sharing.mixture_over(weights, Hparams(tau=1.0, components=components, pi_zero=0.99))


def _timed(call: Callable[[], Any], calls: int) -> float:
    """Seconds of a call: the least of so many, or of those within `BUDGET`; the first may be slow by itself."""
    seconds: list[float] = []
    while len(seconds) < min(2, calls) or (len(seconds) < calls and sum(seconds) < BUDGET):
        began = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
