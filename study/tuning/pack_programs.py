"""Trials of a pack that train as one program: what each of them reports, and which program computes now. Programs take
turns: each trains until it has reported an epoch."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from study.artifacts.weight_trace import Trace
from study.errors import TrialFailed
from study.methods.method import PackMember, TrialResult
from study.records.columns import Row
from study.tuning.trainable import TrialReporter, finite_values


class _Stopped(Exception):
    """A trial that Tune has stopped."""


class Ticket:
    """A trial that waits for, or is in, a pack.

    Attributes:
        reports: of this trial, in order, each a call that gives the next report to Tune; it may raise.
        gone: whether the trial has left.
    """

    def __init__(self, trial: str, config: Row, folder: Path) -> None:
        self.trial = trial
        self.reports: queue.SimpleQueue[Callable[[], Row | None]] = queue.SimpleQueue()
        self.reporter = TrialReporter(folder, config)
        for row in self.reporter.reported_rows():
            self.reports.put(partial(dict, row))
        self.gone = False

    def epoch(self, row: Row) -> None:
        """The pack has trained one more epoch."""
        if self.gone:
            raise _Stopped
        finite_values(row)  # here, where it ends this member alone
        self.reports.put(partial(self.reporter.epoch, row))

    def end(self, error: Exception) -> None:
        """The trial ends early."""
        if isinstance(error, TrialFailed):
            self.reports.put(partial(self.reporter.failure_report, str(error)))
        elif not isinstance(error, _Stopped):
            self.retry(f"{type(error).__name__}: {error}")

    def finish(self, result: Callable[[], TrialResult], trace: Trace) -> None:
        """The trial has run to its end; its files are written when it asks for this report."""

        def report() -> Row:
            self.reporter.checkpoint.progress.trace = trace
            return self.reporter.final_report(result())

        self.reports.put(report)

    def retry(self, reason: str) -> None:
        """The trial must be tried again."""

        def report() -> Row:
            raise RuntimeError(f"this trial's pack failed: {reason}")

        self.reports.put(report)


class Turns:
    """Threads that take turns: one computes, and of those that wait for it the first one is next."""

    def __init__(self) -> None:
        self.threads: deque[int] = deque()
        """The one that computes, and after it those that wait."""
        self.changed = threading.Condition()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait for a turn, and have it."""
        self._wait()
        try:
            yield
        finally:
            self._leave()

    def pass_on(self) -> None:
        """Let those that wait compute first. Random numbers go on where this thread stopped."""
        if len(self.threads) > 1:
            on_host, on_gpu = torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None
            self._leave()
            self._wait()
            torch.set_rng_state(on_host)
            if on_gpu is not None:
                torch.cuda.set_rng_state(on_gpu)

    def _wait(self) -> None:
        with self.changed:
            self.threads.append(threading.get_ident())
            self.changed.wait_for(lambda: self.threads[0] == threading.get_ident())

    def _leave(self) -> None:
        with self.changed:
            self.threads.popleft()
            self.changed.notify_all()


class Program:
    """Trials that train as one program.

    Attributes:
        tickets: of all of them.
        size: how many of them it trains; those that have ended leave it together.

    Args:
        turns: are passed on when all have reported an epoch.
        on_shrink: hears that it goes on without those that have ended, as soon as they are half of it; None where it
            does not.
    """

    def __init__(self, tickets: Sequence[Ticket], turns: Turns, on_shrink: Callable[[], None] | None) -> None:
        self.tickets, self.turns, self.on_shrink = tickets, turns, on_shrink
        self.size = len(tickets)
        self._ended, self._reported = set[Ticket](), set[Ticket]()

    def members(self, is_scored: Callable[[int], bool]) -> list[PackMember]:
        """The trials as what trains them knows them."""
        return [
            PackMember(t.reporter.values, partial(self._epoch, t), partial(self._failure, t), is_scored)
            for t in self.tickets
        ]

    def _epoch(self, ticket: Ticket, row: Row) -> None:
        self._reported.add(ticket)
        try:
            ticket.epoch(row)
        except Exception:
            self._ended.add(ticket)
            raise
        finally:
            if self._ended | self._reported == set(self.tickets):
                self._end_epoch()

    def _failure(self, ticket: Ticket, error: Exception) -> None:
        self._ended.add(ticket)
        ticket.end(error)

    def _end_epoch(self) -> None:
        self._reported.clear()
        left = len(self.tickets) - len(self._ended)
        if self.on_shrink and 2 * left <= self.size:
            self.size = left
            self.on_shrink()
        self.turns.pass_on()
