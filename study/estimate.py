"""What a study would cost: `--dry-run`. Steps of training are timed; Ray is not started and nothing is written."""

from __future__ import annotations

import importlib
import math
import os
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from study import describe, kd
from study.data import Splits
from study.mixture import Mixture, even_means
from study.quantised import flatten, shared_parameters
from study.trainables import KINDS, searched_network
from study.training import batches, logits_of, steps_per_epoch

BUDGET = 2.0
"""Seconds that timing one thing may take, if two calls are not slower."""


def dry_run(settings: Any) -> None:
    """Print what would run and about how long it would take here."""
    data, _ = describe.load_data(settings)
    kind, spaces = KINDS[settings.kind], importlib.import_module(f"search_spaces.{settings.kind}")
    trials, baselines = settings.num_samples, len(spaces.BASELINES)
    print(f"{settings.folder}: {trials} trials and {1 + baselines} baselines, data {data.title}")
    for role, network in describe.networks(settings, data).items():
        print(f"  {role}: {network['name']}, {network['parameters']:,} parameters")

    gpus = torch.cuda.device_count() if settings.gpus_per_trial != 0 else 0
    at_once = settings.max_concurrent or (
        max(1, int(gpus / (settings.gpus_per_trial or 0.25) + 1e-9)) if gpus
        else max(1, int((os.cpu_count() or 1) / settings.cpus_per_trial))
    )  # fmt: skip
    device = torch.device("cuda" if gpus else "cpu")
    data = data.to(device)
    seen, threads = kind.trial_data(settings, data), max(1, int(settings.cpus_per_trial))
    # Trials that share a GPU are taken to gain nothing by it.
    lanes = min(at_once, gpus) if gpus else at_once

    first = 0.0
    if getattr(settings, "teacher_checkpoint", None) is None:
        cores = max(threads, min(os.cpu_count() or 1, int(at_once * settings.cpus_per_trial)))
        shared = [t for role, t in kind.networks(settings).items() if role != "student"]
        first = sum(t.epochs * seconds_an_epoch(t, data, cores) for t in shared)
        print(f"  {kind.first}, once, on {_on(device, cores)}: about {_long(first)}")
    one = trial_seconds(settings, spaces, seen, threads)
    search = one * math.ceil((trials + baselines) / lanes)
    print(f"  a trial of {kind.epochs(settings)} epochs, on {_on(device, threads)}: about {_long(one)}; "
          f"all of them, {at_once} at a time: at most about {_long(search)}")  # fmt: skip
    print(f"  in all at most about {_long(first + search)} (a few steps timed now, with nothing beside them; the "
          "start of Ray, and what the scheduler saves, not counted)")  # fmt: skip


def _on(device: torch.device, threads: int) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else f"{threads} thread{'s' * (threads > 1)}"


def _long(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


def trial_seconds(settings: Any, spaces: Any, data: Splits, threads: int) -> float:
    """Of one searched trial, with as many components as the middle of their range."""
    training, epochs = searched_network(settings), KINDS[settings.kind].epochs(settings)
    clustered = {"sws": settings.epochs, "kd_sws": getattr(settings, "cluster_epochs", 0)}.get(settings.kind, 0)
    if not clustered:
        return float(epochs * seconds_an_epoch(training, data, threads))
    domain: Any = spaces.SPACE["components"]
    components = (domain.lower + domain.upper) // 2
    plain = (epochs - clustered) * seconds_an_epoch(training, data, threads)
    return float(plain + clustered * seconds_an_epoch(training, data, threads, components))


def seconds_an_epoch(training: kd.Training, data: Splits, threads: int, components: int = 0) -> float:
    """Of training, under a mixture prior if there are components, and of the evaluation after it."""
    torch.set_num_threads(threads)
    model = kd.build(training, data)
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    weights = shared_parameters(model)
    means = even_means(flatten(weights).detach(), max(2, components))
    prior = Mixture(means, 0.99, 0.05, (5e3, 2.0), (250.0, 0.1)).to(means.device)
    generator = torch.Generator().manual_seed(training.seed)
    stream = batches(data, training.batch_size, training.augment, generator)

    def step() -> None:
        batch = next(stream)
        optimiser.zero_grad()
        loss = F.cross_entropy(model(batch.images), batch.labels)
        if components:
            loss = loss + prior.complexity(flatten(weights)) / len(data.train)
        loss.backward()
        optimiser.step()

    steps = steps_per_epoch(len(data.train), training.batch_size)
    images = data.validation.images[:512]
    evaluation = len(data.validation) / max(1, len(images)) * _timed(lambda: logits_of(model, images, data), 5)
    return steps * _timed(step, min(steps, 20)) + evaluation


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
