"""What a study would cost: `--dry-run`. Steps of training are timed, or a trial on a part of the images; Ray is not
started and nothing is written.

The parts that are not timed have been measured: `tests/benchmarks/study_time.py` compares whole studies with what is
said here."""

from __future__ import annotations

import itertools
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.data.splits import Splits
from study.methods import registry
from study.methods.method import settings_with
from study.models.registry import parameter_count
from study.pipeline import preflight
from study.pipeline.trial_timing import FEW, MORE, seconds_of_trial
from study.settings import Settings
from study.training.batches import SHIFTING, Batch, EpochBatches
from study.training.cuda_graphs import make_step
from study.training.loop import logits_of
from study.training.network import Training, build_network
from study.training.optimiser import WeightAverage, make_optimiser
from study.training.precision import logits
from study.tuning.cluster import check_limits, resource_request, resources, shared_cores, trials_that_fit
from study.tuning.halving import Rungs
from study.tuning.scheduler import new_rule, share_of_epochs
from study.tuning.scored_epochs import scored_epochs
from study.tuning.space import SearchSpace

BUDGET = 2.0
"""Seconds that timing one thing may take, if two calls are not slower."""
AFFORDABLE = 15.0
"""Seconds that a trial on a part of the images may take; of one that takes longer its steps alone are timed."""


START = 6.0
"""Seconds from Enter until Ray is there, and the first process for trials, which has loaded PyTorch meanwhile."""
PROCESS = 4.0
"""Seconds in which another such process loads PyTorch and Ray; it then runs one trial after another."""
BETWEEN = 0.2
"""Seconds from a trial's last epoch to the first of the next one in the same process."""
REPORT = 0.02
"""Seconds of an epoch that is scored: its checkpoint, its report to Tune, and what the driver does then."""
DRIVER = 0.12
"""Seconds of a processor for each trial in the driver, which starts, records and judges one after the other."""
END = 3.0
"""Seconds from the last trial to the report: the test of the front, the page."""


@dataclass(frozen=True)
class Estimate:
    """What a study would take on this machine.

    Attributes:
        shared, trial: seconds of the work that all trials share, and of one trial with one seed.
        trials, confirming: of the search, and of the confirmation with fresh seeds, baselines included.
        seeds: fresh ones, each with shared work of its own.
        at_once: trials that run at one time.
        lanes: trials that run at one time as fast as one alone; those that share a GPU are taken to gain nothing by it.
        repeats: times that the search trains each trial, see `--seeds-per-trial`; fresh seeds train it once each.
        kept: share of the epochs that halving lets trials train.
        cores: that trials and driver have together; inf where the driver has some of its own.
        unstopped: of the search, that no scheduler stops: baselines.
    """

    shared: float
    trial: float
    trials: int
    confirming: int
    seeds: int
    at_once: int
    lanes: float
    repeats: int = 1
    kept: float = 1.0
    cores: float = math.inf
    unstopped: int = 0

    @property
    def search(self) -> float:
        """Seconds until the last trial has ended: of the trials, or of a driver that cannot keep up with them."""
        searched = self.trials - self.unstopped
        training = self.trial * self.repeats * (self.unstopped + searched * self.kept)
        lanes = min(self.lanes, self.trials)
        starting = PROCESS * (lanes - 1) / lanes  # one of them is there, from the shared work
        training += self.trials * BETWEEN
        return max(starting + training / lanes + self.trials * DRIVER / self.cores, self.driving)

    @property
    def driving(self) -> float:
        """Seconds that the driver needs for the trials of the search, however many run at one time."""
        return self.trials * DRIVER

    @property
    def confirmation(self) -> float:
        return self.shared * self.seeds + (self.trial + BETWEEN) * self.confirming / self.lanes

    @property
    def total(self) -> float:
        """Seconds of all of it, from Enter to the report."""
        return START + self.shared + self.search + self.confirmation + END


def dry_run(settings: Settings) -> None:
    """Print what would run and about how long it would take here.

    Raises:
        UserError: what the study itself would refuse.
    """
    space, method = SearchSpace.of_study(settings), registry.method(settings.kind)
    settings, recorded = preflight.resume(settings, space)
    check_limits(settings)
    inputs = preflight.load_inputs(settings, space, recorded)
    settings = inputs.settings
    baselines = 1 + len(space.baselines)
    title = inputs.data.title
    print(f"{settings.folder}: {settings.budget.num_samples} trials and {baselines} baselines, data {title}")
    for role, network in inputs.networks.items():
        print(f"  {role}: {network['name']}, {network['parameters']:,} parameters")
    cost = estimate(settings, space, inputs.data)
    if recorded:
        print("  the folder has some of that already; what follows is for all of it")
    print(f"  {method.shared_work.name}, once: about {_duration(cost.shared)}")
    seeds = f" with {cost.repeats} seeds" if cost.repeats > 1 else ""
    print(f"  a trial of {method.epochs(space.largest(settings))} epochs{seeds}: about "
          f"{_duration(cost.trial * cost.repeats)}; "
          f"{cost.trials} of them, {cost.at_once} at a time: about {_duration(cost.search)}")  # fmt: skip
    if cost.kept < 1:
        print(f"  of their epochs halving leaves about {100 * cost.kept:.0f} %, which is counted")
    elif settings.search.scheduler == "predicted":
        print("  what the scheduler saves is not counted: it depends on the trials")
    if settings.resources.pack > 1:
        print("  packed trials take less: they are not timed")
    if cost.confirming:
        print(f"  confirmation, {cost.seeds} seeds: about {_duration(cost.confirmation)}")
    if cost.driving >= cost.search:
        print("  the one process that hands out trials and records them cannot keep up with so many at a time")
    print(f"  in all about {_duration(cost.total)}, from Enter to the report: as timed now, if nothing else runs")


def estimate(settings: Settings, space: SearchSpace, data: Splits) -> Estimate:
    """From steps of each network, timed on the GPU where there is one.

    Raises:
        UserError: the machine holds no such trial.
    """
    method, baselines, budget = registry.method(settings.kind), len(space.baselines), settings.budget
    cores, devices = len(os.sched_getaffinity(0)), torch.cuda.device_count()
    here = {"CPU": float(cores), "GPU": float(devices)}
    # What memory Ray would promise is not known here.
    unlimited = settings.changed(memory_per_trial=None)
    share, at_once = resources(unlimited, [here])
    gpus = devices if share else 0
    data = data.to(torch.device("cuda" if gpus else "cpu"))
    alone = min(at_once, trials_that_fit([here], resource_request(unlimited, share)))
    threads = max(1, int(shared_cores(settings, alone)))
    trainings = [t for t in method.shared_work.networks(settings).values() if t.epochs]  # not what was brought
    shared = sum(t.epochs * seconds_an_epoch(t, data, threads) for t in trainings)
    reports = _times_scored(method.epochs(space.largest(settings)), method.trial_data(settings, data))
    return Estimate(
        shared=shared,
        trial=trial_seconds(settings, space, data) + REPORT * reports,
        trials=budget.num_samples + baselines,
        confirming=budget.seeds * (budget.confirm + baselines) if budget.confirm else 0,
        seeds=budget.seeds if budget.confirm else 0,
        at_once=at_once,
        lanes=min(at_once, cores / settings.resources.threads, gpus or math.inf),
        repeats=settings.search.seeds_per_trial or 1,
        kept=_kept(settings, space),
        cores=math.inf if gpus else cores,
        unstopped=baselines,
    )


def _kept(settings: Settings, space: SearchSpace) -> float:
    """The share of the epochs that halving lets trials train; 1 where another rule, or none, stops them."""
    method, largest = registry.method(settings.kind), space.largest(settings)
    if settings.search.scheduler != "asha":
        return 1.0
    rule = new_rule(method, largest, space.objectives)
    assert isinstance(rule, Rungs)
    return share_of_epochs(rule, method.epochs(largest), settings.budget.num_samples)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


def trial_seconds(settings: Settings, space: SearchSpace, data: Splits) -> float:
    """Of one searched trial of the largest network, with every other hyperparameter in the middle of its range.

    Where that does not take long it is trained, on a part of the images; otherwise steps of its network are timed.
    """
    method, largest = registry.method(settings.kind), space.largest(settings)
    trial_data = method.trial_data(settings, data)
    training, threads = largest_network(settings, space, trial_data), settings.resources.threads
    if method.untrained_seconds:
        torch.set_num_threads(threads)
        return method.untrained_seconds(largest, trial_data)
    teacher = _teacher_in_every_step(settings, training)
    steps = method.epochs(largest) * seconds_an_epoch(training, trial_data, threads, teacher)
    images = len(trial_data.train)
    if steps * (1.0 if images <= MORE else (FEW + MORE) / images) > AFFORDABLE:
        return steps
    role = "student" if method.student else method.shared_work.role
    networks = {role: training.network} if role in space.domains else {}
    trained = seconds_of_trial(settings, space, data, networks)
    return steps if trained is None else trained


def largest_network(settings: Settings, space: SearchSpace, data: Splits) -> Training:
    """The network with the most parameters that a trial may train, where its name or its width is searched."""
    method = registry.method(settings.kind)
    role = "student" if method.student else method.shared_work.role
    names, widths = (space.domains[name].ends() if name in space.domains else () for name in (role, f"{role}_width"))
    if widths:
        settings = settings_with(settings, {f"{role}_width": max(float(str(width)) for width in widths)})
    candidates = [method.searched_network(settings_with(settings, {role: name})) for name in names]
    if len(candidates) < 2:
        return candidates[0] if candidates else method.searched_network(settings)
    return max(candidates, key=lambda training: parameter_count(build_network(training, data)))


def _teacher_in_every_step(settings: Settings, training: Training) -> Training | None:
    """The teacher, where its logits cannot be stored."""
    method = registry.method(settings.kind)
    mixed = bool(method.student and training.recipe.mixup)  # no trial mixes images but one that trains a student
    if not (mixed or training.augment in SHIFTING) or settings.flat().get("teacher", "none") == "none":
        return None
    networks = method.networks(settings)
    return networks.get("teacher", training)  # without one of its own, the network itself


def seconds_an_epoch(training: Training, data: Splits, threads: int, teacher: Training | None = None) -> float:
    """Of training and the evaluation after it.

    Args:
        teacher: one that runs in every step.
    """
    torch.set_num_threads(threads)
    model = build_network(training, data)
    teaching = build_network(teacher, data).eval() if teacher else None
    optimiser = make_optimiser(training.recipe, model.parameters(), training.learning_rate, training.weight_decay)
    if training.recipe.ema:
        WeightAverage(model, training.recipe.ema).follow(optimiser)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        value = F.cross_entropy(logits(model, batch.images, training.precision), batch.labels)
        if teaching:
            with torch.no_grad():
                logits(teaching, batch.images, training.precision)
        return value

    batches = EpochBatches(data, training.augment, mixup=training.recipe.mixup)
    batches.shuffle(torch.Generator().manual_seed(training.seed))
    steps = batches.split(training.batch_size)
    step = make_step(model, batches, loss, optimiser, torch.zeros((), device=batches.order.device))
    stream = itertools.cycle(steps)
    images = data.validation.images[:512]
    evaluation = len(data.validation) / max(1, len(images)) * _timed(lambda: logits_of(model, images, data), 5)
    model.train()
    scored = _times_scored(training.epochs, data) / max(1, training.epochs)
    return len(steps) * _timed(lambda: step(next(stream)), min(len(steps), 20)) + scored * evaluation


def _times_scored(epochs: int, data: Splits) -> int:
    """How often a training of so many epochs is scored, without a scheduler's rungs."""
    is_scored = scored_epochs(epochs, len(data.train), len(data.validation))
    return sum(map(is_scored, range(1, epochs + 1)))


def _timed(call: Callable[[], object], calls: int) -> float:
    """Seconds of a call: the least of so many, or of those within `BUDGET`; the first may be slow by itself."""
    seconds: list[float] = []
    while len(seconds) < min(2, calls) or (len(seconds) < calls and sum(seconds) < BUDGET):
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
