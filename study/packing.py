"""Packs inside a study: trials of Tune, each with its own reports and its own end, that one process trains together."""

from __future__ import annotations

import contextlib
import copy
import os
import queue
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from study import machine  # isort: skip  (first of all: it sets what Ray reads when it is imported)

import ray
import torch
from ray import tune
from ray.exceptions import RayActorError

from study import kd, packed
from study.cache import Shared
from study.data import Splits
from study.errors import TrialFailed, UserError
from study.settings import SWS
from study.trace import Trace
from study.trainables import Left, Run, compressed, device, pretraining, sharing, start, teaching
from study.training import Progress

PATIENCE = 5.0
"""Seconds after the last trial that has come until those that are there begin, though there is room for more: processes
of trials start one after another."""
PLACE = 120.0
"""Seconds that the first process of a pack may take to start, and the GPU that it is to have to come free."""
ANSWER = 5.0
"""Seconds that other packs are given to say how many trials they have, once one has."""
RESTART = 60.0
"""Seconds that Ray may take to start the process of a pack again."""


class _Stopped(Exception):
    """A trial that Tune has stopped."""


class _Ticket:
    """A trial that waits for, or is in, a pack; `told` holds what it is yet to hear."""

    def __init__(self, trial: str, values: dict[str, Any]) -> None:
        self.trial, self.values = trial, values
        self.told: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.gone = False

    def epoch(self, row: dict[str, Any]) -> None:
        if self.gone:
            raise _Stopped
        self.told.put(("epoch", row))

    def ended(self, error: Exception) -> None:
        if isinstance(error, TrialFailed):
            self.told.put(("failed", str(error)))
        elif not isinstance(error, _Stopped):
            self.told.put(("broken", f"{type(error).__name__}: {error}"))


class Packer:
    """Trains the trials that come to it, up to `settings.pack` at a time, on its own GPU or on CPUs.

    An actor whose methods wait, so Ray runs them in threads.
    """

    def __init__(self) -> None:
        self.tickets: dict[str, _Ticket] = {}
        self.waiting, self.came = list[_Ticket](), threading.Condition()
        self.prepared, self.preparing = False, threading.Lock()

    def _prepare(self, settings: SWS, held: Sequence[Any]) -> None:
        data, shared = ray.get(list(held))
        torch.set_num_threads(settings.threads)
        self.data = data.to(device(settings))
        self.network, self.targets = start(settings, self.data, shared)
        self.prepared = True
        threading.Thread(target=self._work, args=(settings,), daemon=True).start()

    def others(self, trial: str) -> int:
        """How many trials are here beside this one, which comes anew: what came under its name before has gone."""
        with self.came:
            for before in [i for i, t in self.tickets.items() if t.trial == trial]:
                gone = self.tickets.pop(before)
                gone.gone = True
                gone.told.put(("broken", "it came again"))  # the thread that waits for this in `next` is free again
            return len(self.tickets)

    def join(
        self, settings: SWS, held: Sequence[Any], values: dict[str, Any], trial: str, ticket_id: str
    ) -> None:
        """A trial with these searched values comes.

        Args:
            held: references to the data and the shared work in Ray's object store. With every trial, since Ray may
                have started this process again.
            trial: its name.
            ticket_id: what it will ask by, that nobody else has.
        """
        ticket = _Ticket(trial, values)
        self.others(trial)
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

    def next(self, ticket_id: str) -> tuple[str, Any]:
        """What there is to hear next: ("epoch", row), ("end", …), ("failed", reason), or ("broken", error)."""
        ticket = self.tickets.get(ticket_id)
        return ticket.told.get() if ticket else ("broken", "its process was started again")

    def leave(self, ticket_id: str) -> None:
        """The trial has ended, or was stopped; the others go on."""
        with self.came:  # `others` looks through the tickets
            if ticket := self.tickets.pop(ticket_id, None):  # none where this process was started again meanwhile
                ticket.gone = True

    def _work(self, s: SWS) -> None:
        while True:
            with self.came:
                self.came.wait_for(lambda: self.waiting)
                there = 0
                while there < len(self.waiting) < s.pack:
                    there = len(self.waiting)
                    self.came.wait(PATIENCE)
                tickets = [t for t in self.waiting[: s.pack] if not t.gone]
                del self.waiting[: s.pack]
            try:
                self._train(s, tickets)
            except Exception as error:  # of the pack as a whole, such as memory that does not suffice
                if isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError):
                    os._exit(1)  # the GPU does nothing more for this process; Ray starts another
                for ticket in tickets:
                    ticket.ended(error)

    def _train(self, s: SWS, tickets: Sequence[_Ticket]) -> None:
        if not tickets:
            return
        hparams = [sharing(s, t.values, epochs=s.epochs or 0, **teaching(s)) for t in tickets]
        members = [packed.Member(h, t.epoch, t.ended) for h, t in zip(hparams, tickets, strict=True)]
        networks = [copy.deepcopy(self.network) for _ in tickets]
        torch.manual_seed(s.seed)  # as of a trial alone, which dropout draws from
        found = packed.fit(networks, members, self.data, self.targets)
        for ticket, member, left in zip(tickets, members, found, strict=True):
            if not isinstance(left, Exception):  # of those, `ended` was told
                network, quantised, metrics = left
                quantised = replace(quantised, **{name: t.cpu() for name, t in vars(quantised).items()})
                ticket.told.put(("end", (kd.state_arrays(network), quantised, metrics, member.trace.state())))


def packers(settings: SWS) -> list[Any]:
    """Actors that train the trials of a study together, one on each GPU, or one on CPUs.

    Raises:
        UserError: none of them gets a place, in a cluster whose GPUs others use.
    """
    nodes = machine.living()
    # They count as no CPUs: what there is belongs to the trials, which wait, but for writing their file at the end.
    actor = ray.remote(Packer).options(
        num_cpus=0,
        num_gpus=1 if settings.gpus_per_trial else 0,
        max_concurrency=machine.packed_at_once(settings, nodes) + 8,  # every trial waits in one thread, and some ask
        max_restarts=-1,
    )
    found: list[Any] = [actor.remote() for _ in range(machine.lanes(settings, nodes))]
    if settings.gpus_per_trial and not _others(found, "", PLACE):
        for packer in found:
            ray.kill(packer)
        raise UserError(f"--pack {settings.pack}: no GPU came free in {PLACE:.0f} s; others in the cluster use them")
    return found


def of_trials(settings: SWS) -> SWS:
    """The settings of the trials that are packed, which need no GPU and share the CPUs."""
    nodes = machine.living()
    at_once, cpus = machine.packed_at_once(settings, nodes), sum(n.get("CPU", 0) for n in nodes)
    share = max(0.01, int(100 * min(1.0, cpus / at_once)) / 100)
    return replace(settings, gpus_per_trial=0.0, cpus_per_trial=share, max_concurrent=at_once)


def through(packers: Sequence[Any], settings: SWS, data: Splits, shared: Mapping[int, Shared]) -> Run:
    """A trial that is trained by one of these, under these settings, and writes its compressed file itself."""
    given = (settings, [ray.put(data), ray.put(shared[settings.seed])])

    def run(
        values: dict[str, Any], s: SWS, data: Splits, shared: Shared | None, on_epoch: kd.Report, progress: Progress
    ) -> Left:
        assert shared is not None
        joining, trial = (*given, values), tune.get_context().get_trial_id()
        arrays, quantised, metrics, trace = _followed(_emptiest(packers, trial), joining, trial, on_epoch)
        progress.trace = Trace(**trace)
        network = kd.load({name: torch.from_numpy(a) for name, a in arrays.items()}, pretraining(s), data)
        return compressed(network, quantised, metrics, pretraining(s), data, shared)

    return run


def _others(packers: Sequence[Any], trial: str, patience: float) -> list[tuple[int, Any]]:
    """How many other trials each has, of those that answer within so many seconds after the first did: one whose GPU
    others use waits for it, and one that died is being started again."""
    asked = {packer.others.remote(trial): packer for packer in packers}
    first, later = ray.wait(list(asked), timeout=patience)
    ready, _ = ray.wait(later, num_returns=len(later), timeout=ANSWER) if first and later else ([], [])
    found = []
    for answer in (*first, *ready):
        with contextlib.suppress(RayActorError):
            found.append((ray.get(answer), asked[answer]))
    return found


def _emptiest(packers: Sequence[Any], trial: str) -> Any:
    """The one with the fewest trials, any of them if several have so many."""
    until = time.monotonic() + RESTART
    while not (found := _others(packers, trial, RESTART)):
        if time.monotonic() > until:
            raise RuntimeError(f"no process of a pack has answered for {RESTART:.0f} s")
        time.sleep(0.5)
    fewest = min(count for count, _ in found)
    return random.choice([packer for count, packer in found if count == fewest])


def _followed(packer: Any, joining: tuple[Any, ...], trial: str, on_epoch: kd.Report) -> Any:
    """Join a pack with these arguments, tell its epochs as they come, and return what it ends with."""
    until, ticket_id = time.monotonic() + RESTART, uuid4().hex
    while True:
        try:
            ray.get(packer.join.remote(*joining, trial, ticket_id))
            break
        except RayActorError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
    try:
        while True:
            kind, what = ray.get(packer.next.remote(ticket_id))
            if kind == "end":
                return what
            if kind == "failed":
                raise TrialFailed(what)
            if kind == "broken":
                raise RuntimeError(f"the pack that this trial was in broke: {what}")
            on_epoch(what)
    finally:
        packer.leave.remote(ticket_id)
