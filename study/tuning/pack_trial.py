"""A trial of Tune that a pack trains. Its process has neither torch nor data: it passes on what the pack reports."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import ray
from ray import tune
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from study.tuning.trial_process import TrialProcess, trial_process

ANSWER = 5.0
"""Seconds that other packs are given to say how many trials they have, once one has."""
RESTART = 60.0
"""Seconds that Ray may take to start the process of a pack again."""


ReportRow = dict[str, Any]
"""What a trial reports to Tune."""


class Trainer(Protocol):
    """What trains, in the process of the pack; see `study.tuning.packs.Packer`."""

    def others(self, trial: str) -> int: ...
    def join(self, *arguments: object) -> None: ...
    def next(self, ticket_id: str) -> ReportRow: ...
    def leave(self, ticket_id: str) -> None: ...


class PackActor:
    """The actor that trials know: Ray loads its class wherever there is a handle to it, so it holds what trains, whose
    class is loaded in the actor's own process alone. Its methods wait, so Ray runs them in threads."""

    def __init__(self, trainer: Callable[[], Trainer]) -> None:
        self.trainer = trainer()

    def others(self, trial: str) -> int:
        return self.trainer.others(trial)

    def join(self, *arguments: object) -> None:
        self.trainer.join(*arguments)

    def next(self, ticket_id: str) -> ReportRow:
        return self.trainer.next(ticket_id)

    def leave(self, ticket_id: str) -> None:
        self.trainer.leave(ticket_id)


def make_pack_trainable(name: str) -> Callable[..., None]:
    """Make a Tune trainable of which each trial joins the pack with the fewest others.

    Args:
        name: of the study, by which Ray's dashboard knows the processes.
    """

    def trainable(
        config: ReportRow, folder: Path, packers: Sequence[ActorHandle], join_arguments: Sequence[object]
    ) -> None:
        with trial_process(name, config) as process:
            trial = tune.get_context().get_trial_id()
            _follow(emptiest_pack(packers, trial), (*join_arguments, config, folder, trial), process)

    trainable.__name__ = name
    return trainable


def count_others(packers: Sequence[ActorHandle], trial: str, patience: float) -> list[tuple[int, ActorHandle]]:
    """Count the other trials in each pack. Packs that do not answer within `ANSWER` seconds after the first are
    skipped: one whose GPU others use waits for it, and one that died is being started again."""
    asked: dict[object, ActorHandle] = {packer.others.remote(trial): packer for packer in packers}
    first, later = ray.wait(list(asked), timeout=patience)
    ready, _ = ray.wait(later, num_returns=len(later), timeout=ANSWER) if first and later else ([], [])
    counts = []
    for answer in (*first, *ready):
        with contextlib.suppress(RayActorError):
            counts.append((ray.get(answer), asked[answer]))
    return counts


def emptiest_pack(packers: Sequence[ActorHandle], trial: str) -> ActorHandle:
    """The pack with the fewest trials; a random one among equals."""
    until = time.monotonic() + RESTART
    while not (counts := count_others(packers, trial, RESTART)):
        if time.monotonic() > until:
            raise RuntimeError(f"no process of a pack has answered for {RESTART:.0f} s")
        time.sleep(0.5)
    fewest = min(count for count, _ in counts)
    return random.choice([packer for count, packer in counts if count == fewest])


def _follow(packer: ActorHandle, join_arguments: tuple[object, ...], process: TrialProcess) -> None:
    """Join a pack with these arguments, and report what it says."""
    until, ticket_id = time.monotonic() + RESTART, uuid4().hex
    while True:
        try:
            ray.get(packer.join.remote(*join_arguments, ticket_id))
            break
        except RayActorError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)
    row: ReportRow = {}
    try:
        while not ("finished" in row or "failure" in row):
            row = ray.get(packer.next.remote(ticket_id))
            tune.report(row)
            if "epoch" in row and "finished" not in row:
                process.epoch(row)
    finally:
        packer.leave.remote(ticket_id)
