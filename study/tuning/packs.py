"""Packs inside a study: trials of Tune, each with its own reports and its own end, that one process trains together.

A trial that ends leaves its place to the next one, once its program goes on without it. When a quarter of all places
are free, those that wait for one begin as a program of their own; programs take turns.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

import ray
import torch
from ray import ObjectRef
from ray.actor import ActorHandle

from study.artifacts.cache import SharedWork
from study.data.splits import Splits
from study.errors import UserError
from study.methods import registry
from study.methods.method import PackMember, TrialResult, settings_with
from study.records.columns import Row
from study.settings import Settings
from study.tuning import cluster
from study.tuning.measuring import with_cost
from study.tuning.node_data import data_here
from study.tuning.pack_programs import Program, Ticket, Turns
from study.tuning.pack_trial import PackActor, count_others
from study.tuning.scored_epochs import scored_epochs
from study.tuning.trainable import enter, trial_device

PATIENCE = 5.0
"""Seconds to wait for more trials after the last arrival, before a pack that is not full starts: trial processes start
one by one."""
SHARE = 4
"""A program begins next to others when one place in so many is free: a step of few networks takes little less time
than one of many."""
PLACE = 120.0
"""Seconds to wait until the first pack's process has started and its GPU is free."""


_Result = tuple[Ticket, PackMember, Callable[[], TrialResult]]
"""Of a member that was trained to its end."""


class Packer:
    """Trains the trials that come to it, up to `room` at a time, on its own GPU or on CPUs. Its methods wait; every
    caller has a thread of its own."""

    def __init__(self, room: int, working_folder: Path | None = None) -> None:
        enter(working_folder)
        self.room = room
        self.tickets: dict[str, Ticket] = {}
        self.waiting, self.training, self.changed = list[Ticket](), list[Program](), threading.Condition()
        self.prepared, self.preparing = False, threading.Lock()
        self.turns = Turns()

    def _prepare(self, settings: Settings, references: Sequence[ObjectRef], rungs: Collection[int]) -> None:
        data, shared = ray.get(list(references))
        torch.set_num_threads(settings.resources.threads)
        packing = registry.method(settings.kind).packing
        assert packing is not None
        self.settings, self.data = settings, data_here(data).to(trial_device(settings))
        self.trainer = packing.trainer(settings, self.data, shared)
        epochs = registry.method(settings.kind).epochs(settings)
        self.is_scored = scored_epochs(epochs, len(self.data.train), len(self.data.validation), rungs)
        self.prepared = True
        threading.Thread(target=self._work, daemon=True).start()

    def others(self, trial: str) -> int:
        """How many other trials are here than this one; an earlier attempt of it leaves."""
        with self.changed:
            for before in [i for i, t in self.tickets.items() if t.trial == trial]:
                gone = self.tickets.pop(before)
                gone.gone = True
                gone.retry("the trial was started again")  # the thread that waits for this in `next` is free again
            return len(self.tickets)

    def join(
        self,
        settings: Settings,
        references: Sequence[ObjectRef],
        rungs: Collection[int],
        config: Row,
        folder: Path,
        trial: str,
        ticket_id: str,
    ) -> None:
        """A trial with this configuration comes.

        Args:
            references: to the data and the shared work in Ray's object store. With every trial, since Ray may have
                started this process again.
            rungs: epochs at which the scheduler compares trials.
            folder: of the study, where the trial's files are written here.
            trial: Tune's name for it.
            ticket_id: what it will ask by, that nobody else has.
        """
        self.others(trial)
        ticket = Ticket(trial, config, folder)
        with self.changed:  # it counts from now on: preparing takes seconds
            self.tickets[ticket_id] = ticket
        try:
            with self.preparing:
                if not self.prepared:
                    self._prepare(settings, references, rungs)
        except Exception:
            self.leave(ticket_id)
            raise
        with self.changed:
            self.waiting.append(ticket)
            self.changed.notify_all()

    def next(self, ticket_id: str) -> Row:
        """What the trial is to report next, up to one that has "finished" or "failure". Files are written here, while
        the training goes on.

        Raises:
            RuntimeError: its pack broke, so that the trial is to be tried again.
        """
        ticket = self.tickets.get(ticket_id)
        while ticket:
            if report := ticket.reports.get()():
                return report
        raise RuntimeError("this trial's pack failed: its process was restarted")

    def leave(self, ticket_id: str) -> None:
        """The trial has ended, or was stopped; the others go on."""
        with self.changed:  # `others` looks through the tickets
            if ticket := self.tickets.pop(ticket_id, None):  # none where this process was started again meanwhile
                ticket.gone = True

    def _work(self) -> None:
        """Let packs begin, each in a thread of its own."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting and self._free() * SHARE >= self.room)
                there = 0
                while there < len(self.waiting) < self._free():
                    there = len(self.waiting)
                    self.changed.wait_for(partial(self._has_more_than, there), PATIENCE)
                free = self._free()
                tickets = [t for t in self.waiting[:free] if not t.gone]
                del self.waiting[:free]
                programs = self._programs(tickets)
                self.training += programs
            for program in programs:
                threading.Thread(target=self._train, args=(program,), daemon=True).start()

    def _programs(self, tickets: Sequence[Ticket]) -> list[Program]:
        """Those that train as one program, together; none where that cannot be said, and all of them end."""
        try:
            programs = self.trainer.programs([ticket.reporter.values for ticket in tickets])
        except Exception as error:
            _end(tickets, error)
            return []
        on_shrink = self._notify if self.trainer.shrinks else None
        return [Program([tickets[place] for place in places], self.turns, on_shrink) for places in programs]

    def _notify(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _has_more_than(self, count: int) -> bool:
        return len(self.waiting) > count

    def _free(self) -> int:
        return self.room - sum(program.size for program in self.training)

    def _train(self, program: Program) -> None:
        """Train a program from its first turn to its last."""
        with self.turns.taken():
            try:
                self._train_in_turn(program)
            except Exception as error:  # of the program as a whole, such as memory that does not suffice
                if isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError):
                    os._exit(1)  # the GPU does nothing more for this process; Ray starts another
                _end(program.tickets, error)
        with self.changed:
            self.training.remove(program)
            self.changed.notify_all()

    def _train_in_turn(self, program: Program) -> None:
        members = program.members(self.is_scored)
        ended = zip(program.tickets, members, self.trainer.train(members), strict=True)
        results = [(t, m, result) for t, m, result in ended if not isinstance(result, Exception)]
        if self.settings.measuring.measure != "none":
            results = self._measured(results)
        for ticket, member, result in results:
            ticket.finish(result, member.trace)

    def _measured(self, results: Sequence[_Result]) -> list[_Result]:
        """The results with their measured cost, of members whose cost can be measured; the others end here.

        One after another, in this program's turn, so nothing is trained in this process meanwhile: that would slow what
        is measured, and torch exports one network at a time.
        """
        measured: list[_Result] = []
        for ticket, member, result in results:
            if ticket.gone:
                continue
            try:
                with_its_cost = with_cost(result(), settings_with(self.settings, member.values), self.data)
                measured.append((ticket, member, partial(TrialResult, **vars(with_its_cost))))
            except torch.AcceleratorError:
                raise
            except Exception as error:
                ticket.end(error)
        return measured


def _end(tickets: Sequence[Ticket], error: Exception) -> None:
    for ticket in tickets:
        ticket.end(error)


def start_packs(settings: Settings) -> list[ActorHandle]:
    """Actors that train the trials of a study together, one on each GPU, or one on CPUs.

    Raises:
        UserError: none of them gets a place, in a cluster whose GPUs others use.
    """
    nodes = cluster.alive_nodes()
    at_once = cluster.packed_at_once(settings, nodes)
    actor = ray.remote(PackActor).options(
        num_cpus=0,  # they are the trials', which only wait
        num_gpus=1 if settings.resources.gpus_per_trial else 0,
        max_concurrency=at_once + 8,  # every trial waits in one thread, and some ask
        max_restarts=-1,
    )
    trainer = partial(Packer, min(settings.resources.pack, at_once), Path.cwd())
    actors: list[ActorHandle] = [
        actor.remote(trainer)  # type: ignore[misc]
        for _ in range(cluster.packs_at_once(settings, nodes))
    ]
    if settings.resources.gpus_per_trial and not count_others(actors, "", PLACE):
        for packer in actors:
            ray.kill(packer)
        raise UserError(
            f"--pack: no GPU came free in {PLACE:.0f} s, because other jobs use them; try again later, or leave --pack "
            "out"
        )
    return actors


def settings_of_packed_trials(settings: Settings) -> Settings:
    """The settings of the trials that are packed, which need no GPU and share the CPUs."""
    nodes = cluster.alive_nodes()
    at_once, cpus = cluster.packed_at_once(settings, nodes), sum(n.get("CPU", 0) for n in nodes)
    share = max(0.01, int(100 * min(1.0, cpus / at_once)) / 100)
    return settings.changed(gpus_per_trial=0.0, cpus_per_trial=share, max_concurrent=at_once)


def join_arguments(
    settings: Settings, data: Splits, shared: Mapping[int, SharedWork], rungs: Collection[int]
) -> tuple[object, ...]:
    """What every trial joins a pack with, whatever its configuration, with references to what is large.

    Args:
        rungs: epochs at which the scheduler compares trials.
    """
    return settings, [ray.put(data), ray.put(shared[settings.seed])], rungs
