"""Packs inside a study: trials of Tune, each with its own reports and its own end, that one process trains together."""

from __future__ import annotations

import copy
import os
import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from torch import nn

from study.artifacts.cache import SharedWork
from study.artifacts.weight_trace import Trace
from study.compression.quantised_weights import QuantisedWeights
from study.data.splits import Splits
from study.errors import TrialFailed, UserError
from study.methods.common.pretrained import compressed, pretraining, start, teaching
from study.methods.sws import packed
from study.methods.sws.method import sharing
from study.methods.sws.packed import Member
from study.methods.sws.settings import SWSSettings
from study.tuning import cluster
from study.tuning.pack_trial import PackActor, count_others
from study.tuning.trainable import TrialReporter, trial_device

PATIENCE = 5.0
"""Seconds after the last trial that has come until those that are there begin, though there is room for more: processes
of trials start one after another."""
PLACE = 120.0
"""Seconds that the first process of a pack may take to start, and the GPU that it is to have to come free."""


class _Stopped(Exception):
    """A trial that Tune has stopped."""


class _Ticket:
    """A trial that waits for, or is in, a pack; `heard` holds what it is yet to be told: an epoch's row, the network it
    ends with, or why it does not."""

    def __init__(self, trial: str, config: dict[str, Any], folder: Path) -> None:
        self.trial = trial
        self.heard: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.telling = TrialReporter(folder, config)
        for row in self.telling.earlier():
            self.heard.put(("earlier", row))
        self.gone = False

    def epoch(self, row: dict[str, Any]) -> None:
        if self.gone:
            raise _Stopped
        self.heard.put(("epoch", row))

    def ended(self, error: Exception) -> None:
        if isinstance(error, TrialFailed):
            self.heard.put(("failed", str(error)))
        elif not isinstance(error, _Stopped):
            self.heard.put(("broken", f"{type(error).__name__}: {error}"))


class Packer:
    """Trains the trials that come to it, up to `room` at a time, on its own GPU or on CPUs. Its methods wait; every
    caller has a thread of its own."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tickets: dict[str, _Ticket] = {}
        self.waiting, self.came = list[_Ticket](), threading.Condition()
        self.prepared, self.preparing = False, threading.Lock()

    def _prepare(self, settings: SWSSettings, held: Sequence[Any]) -> None:
        data, self.shared = ray.get(list(held))
        torch.set_num_threads(settings.threads)
        self.data = data.to(trial_device(settings))
        self.network, self.targets = start(settings, self.data, self.shared)
        self.settings, self.prepared = settings, True
        threading.Thread(target=self._work, args=(settings,), daemon=True).start()

    def others(self, trial: str) -> int:
        """How many trials are here beside this one, which comes anew: what came under its name before has gone."""
        with self.came:
            for before in [i for i, t in self.tickets.items() if t.trial == trial]:
                gone = self.tickets.pop(before)
                gone.gone = True
                gone.heard.put(("broken", "it came again"))  # the thread that waits for this in `next` is free again
            return len(self.tickets)

    def join(
        self,
        settings: SWSSettings,
        held: Sequence[Any],
        config: dict[str, Any],
        folder: Path,
        trial: str,
        ticket_id: str,
    ) -> None:
        """A trial with this configuration comes.

        Args:
            held: references to the data and the shared work in Ray's object store. With every trial, since Ray may
                have started this process again.
            folder: of the study, where the trial's files are written here.
            trial: Tune's name for it.
            ticket_id: what it will ask by, that nobody else has.
        """
        self.others(trial)
        ticket = _Ticket(trial, config, folder)
        with self.came:  # it counts from now on: preparing takes seconds
            self.tickets[ticket_id] = ticket
        try:
            with self.preparing:
                if not self.prepared:
                    self._prepare(settings, held)
        except Exception:
            self.leave(ticket_id)
            raise
        with self.came:
            self.waiting.append(ticket)
            self.came.notify()

    def next(self, ticket_id: str) -> dict[str, Any]:
        """What the trial is to report next, up to one that has "finished" or "failure". Files are written here, beside
        the training.

        Raises:
            RuntimeError: its pack broke, so that the trial is to be tried again.
        """
        ticket = self.tickets.get(ticket_id)
        while ticket:
            kind, what = ticket.heard.get()
            if kind == "earlier":
                return dict(what)
            if kind == "epoch" and (row := ticket.telling.epoch(what)):
                return row
            if kind == "failed":
                return ticket.telling.failed(what)
            if kind == "end":
                return self._finished(ticket.telling, *what)
            if kind == "broken":
                raise RuntimeError(f"the pack that this trial was in broke: {what}")
        raise RuntimeError("the pack that this trial was in broke: its process was started again")

    def _finished(
        self,
        telling: TrialReporter,
        network: nn.Module,
        quantised: QuantisedWeights,
        metrics: dict[str, Any],
        trace: Trace,
    ) -> dict[str, Any]:
        training = pretraining(self.settings)
        telling.checkpoint.progress.trace = trace
        return telling.finished(compressed(network, quantised, metrics, training, self.data, self.shared))

    def leave(self, ticket_id: str) -> None:
        """The trial has ended, or was stopped; the others go on."""
        with self.came:  # `others` looks through the tickets
            if ticket := self.tickets.pop(ticket_id, None):  # none where this process was started again meanwhile
                ticket.gone = True

    def _work(self, s: SWSSettings) -> None:
        while True:
            with self.came:
                self.came.wait_for(lambda: self.waiting)
                there = 0
                while there < len(self.waiting) < self.room:
                    there = len(self.waiting)
                    self.came.wait(PATIENCE)
                tickets = [t for t in self.waiting[: self.room] if not t.gone]
                del self.waiting[: self.room]
            try:
                self._train(s, tickets)
            except Exception as error:  # of the pack as a whole, such as memory that does not suffice
                if isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError):
                    os._exit(1)  # the GPU does nothing more for this process; Ray starts another
                for ticket in tickets:
                    ticket.ended(error)

    def _train(self, s: SWSSettings, tickets: Sequence[_Ticket]) -> None:
        if not tickets:
            return
        hparams = [sharing(s, t.telling.values, epochs=s.epochs or 0, **teaching(s)) for t in tickets]
        members = [Member(h, t.epoch, t.ended) for h, t in zip(hparams, tickets, strict=True)]
        networks = [copy.deepcopy(self.network) for _ in tickets]
        torch.manual_seed(s.seed)  # as of a trial alone, which dropout draws from
        found = packed.fit(networks, members, self.data, self.targets)
        for ticket, member, left in zip(tickets, members, found, strict=True):
            if not isinstance(left, Exception):  # of those, `ended` was told
                network, quantised, metrics = left
                quantised = replace(quantised, **{name: t.cpu() for name, t in vars(quantised).items()})
                ticket.heard.put(("end", (network.cpu(), quantised, metrics, member.trace)))


def start_packs(settings: SWSSettings) -> list[Any]:
    """Actors that train the trials of a study together, one on each GPU, or one on CPUs.

    Raises:
        UserError: none of them gets a place, in a cluster whose GPUs others use.
    """
    nodes = cluster.alive_nodes()
    at_once = cluster.packed_at_once(settings, nodes)
    actor = ray.remote(PackActor).options(
        num_cpus=0,  # they are the trials', which only wait
        num_gpus=1 if settings.gpus_per_trial else 0,
        max_concurrency=at_once + 8,  # every trial waits in one thread, and some ask
        max_restarts=-1,
    )
    trainer = partial(Packer, min(settings.pack, at_once))
    found: list[Any] = [actor.remote(trainer) for _ in range(cluster.packs_at_once(settings, nodes))]
    if settings.gpus_per_trial and not count_others(found, "", PLACE):
        for packer in found:
            ray.kill(packer)
        raise UserError(f"--pack: no GPU came free in {PLACE:.0f} s; others in the cluster use them")
    return found


def settings_of_packed_trials(settings: SWSSettings) -> SWSSettings:
    """The settings of the trials that are packed, which need no GPU and share the CPUs."""
    nodes = cluster.alive_nodes()
    at_once, cpus = cluster.packed_at_once(settings, nodes), sum(n.get("CPU", 0) for n in nodes)
    share = max(0.01, int(100 * min(1.0, cpus / at_once)) / 100)
    return replace(settings, gpus_per_trial=0.0, cpus_per_trial=share, max_concurrent=at_once)


def join_arguments(settings: SWSSettings, data: Splits, shared: Mapping[int, SharedWork]) -> tuple[Any, ...]:
    """What every trial joins a pack with, whatever its configuration: these settings, and references to the rest."""
    return settings, [ray.put(data), ray.put(shared[settings.seed])]
