"""Packs of students: those of one network train as one program, and those of another network as another one.

Members that have ended leave their program as soon as they are half of it. Each student is what it would be alone, but
for rounding; `study.methods.common.packed_training` says what a pack is.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from study.data.splits import Splits
from study.methods.common.network_stack import Stack
from study.methods.common.pack_trainer import IMPOSSIBLE, Outcome, train_possible
from study.methods.common.packed_training import Member, end_unless_finite, loss_of_members, require_same
from study.methods.kd.settings import NOT_PACKABLE
from study.methods.kd.student import Hparams, sizes
from study.methods.method import PackMember, TrialResult
from study.settings import Values
from study.training.batches import EpochBatches, steps_per_epoch
from study.training.distillation import Targets
from study.training.loop import Loss, train_epochs
from study.training.network import build_network, state_arrays
from study.training.optimiser import make_optimiser
from study.training.schedules import learning_rates

OWN = ("temperature", "alpha", "seed")
"""Hyperparameters that each member of a program has for itself."""
APART = ("student", "student_width", "loss", "augment", "label_smoothing")
"""Hyperparameters that trials of a pack may differ in; those with the same values are one program."""
SAME_IN_A_PROGRAM = tuple(f.name for f in dataclasses.fields(Hparams) if f.name not in OWN)
SAME_IN_A_PACK = tuple(name for name in SAME_IN_A_PROGRAM if name not in APART)
"""Hyperparameters that all trials of a pack share."""

IsScored = Callable[[int], bool]
End = nn.Module | Exception
"""Of one member: its trained network, or why it ended before."""


class StudentPacks:
    """Trains trials of one study; see `PackTrainer`.

    Args:
        seed: of the study.
        hyperparameters: of the trial with these searched values.
        targets: what the teacher says to a student with these hyperparameters.
    """

    shrinks = True

    def __init__(
        self,
        seed: int,
        data: Splits,
        hyperparameters: Callable[[Values], Hparams],
        targets: Callable[[Hparams], Targets],
    ) -> None:
        self.seed, self.data, self.hyperparameters, self.targets = seed, data, hyperparameters, targets

    def programs(self, trials: Sequence[Values]) -> list[list[int]]:
        """Trials that differ in nothing but `OWN` are one program; those that are not possible are another one."""
        found: dict[tuple[object, ...], list[int]] = {}
        for place, values in enumerate(trials):
            try:
                hparams = self.hyperparameters(values)
                common = tuple(getattr(hparams, name) for name in SAME_IN_A_PROGRAM)
            except IMPOSSIBLE:
                common = ()
            found.setdefault(common, []).append(place)
        return list(found.values())

    def train(self, members: Sequence[PackMember]) -> list[Outcome]:
        """For each member what makes its result, or why it ended early."""
        return train_possible(members, self._member, self._train)

    def _member(self, member: PackMember) -> Member[Hparams]:
        hparams = self.hyperparameters(member.values)
        size = sizes(build_network(hparams.training, self.data))  # reported with each epoch, as by a trial alone
        return Member(hparams, lambda row: member.on_epoch({**row, **size}), member.on_failure)

    def _train(self, members: Sequence[tuple[PackMember, Member[Hparams]]]) -> list[Outcome]:
        torch.manual_seed(self.seed)  # as of a trial alone, which dropout draws from
        is_scored, students = members[0][0].is_scored, [student for _, student in members]
        ends = fit(students, self.data, self.targets(students[0].hparams), is_scored)
        return [
            end if isinstance(end, Exception) else partial(TrialResult, sizes(end), state_arrays(end)) for end in ends
        ]


def fit(
    members: Sequence[Member[Hparams]], data: Splits, targets: Targets, is_scored: IsScored = lambda epoch: True
) -> list[End]:
    """`student.fit_student` of many students at once, as one program.

    Args:
        is_scored: see `PackMember`.
    Returns: the end of each member.
    Raises:
        ValueError: members that cannot be one program.
    """
    common = require_same(members, SAME_IN_A_PROGRAM)
    if any(getattr(common, name) for name in NOT_PACKABLE):
        raise ValueError(f"{', '.join(NOT_PACKABLE)} cannot be packed")
    program = Program(members, data, targets, is_scored)
    program.train()
    networks = program.networks()
    return [member.failure or networks[member] for member in members]


class Program:
    """Students that train as one program.

    Attributes:
        members: those that take part, and fewer others, which have ended.
        stack: their networks, in the same order.
    """

    def __init__(self, members: Sequence[Member[Hparams]], data: Splits, targets: Targets, is_scored: IsScored) -> None:
        self.members, self.data, self.targets, self.is_scored = list(members), data, targets, is_scored
        self.hparams = members[0].hparams  # but for `OWN`, those of all
        self.training = training = self.hparams.training
        self.stack = Stack([build_network(member.hparams.training, data) for member in members])
        self.optimiser = self._make_optimiser()
        self.generators = [torch.Generator().manual_seed(member.hparams.seed) for member in members]
        steps = training.epochs * steps_per_epoch(len(data.train), training.batch_size)
        self.rates = learning_rates(training.recipe, training.epochs, [training.learning_rate], steps)

    def train(self) -> None:
        """`network.train_network` of every member, until none takes part any more."""
        epoch = 0
        while epoch < self.training.epochs and self.members:
            epoch = self._train_after(epoch)
            if epoch < self.training.epochs:
                self._drop_ended()

    def networks(self) -> dict[Member[Hparams], nn.Module]:
        """A copy of the network of each member that takes part."""
        return {self.members[place]: copy.deepcopy(self.stack.member(place)) for place in self._places()}

    def _places(self) -> list[int]:
        """Of the members that take part."""
        return [place for place, member in enumerate(self.members) if not member.failure]

    def _train_after(self, epoch: int) -> int:
        """Train from this epoch on until the last, or until half of the members have ended. Gives the number of the
        last epoch that was trained."""
        training = self.training
        trained = train_epochs(
            self.stack,
            EpochBatches(self.data, training.augment, len(self.members), training.recipe.mixup),
            self._loss(),
            self.optimiser,
            rates=self.rates,
            generators=self.generators,
            epochs=range(epoch + 1, training.epochs + 1),
            batch_size=training.batch_size,
            before_step=None,
        )
        for epoch, losses in trained:
            self._report(epoch, losses)
            if 2 * len(self._places()) <= len(self.members):
                break
        return epoch

    def _report(self, epoch: int, losses: Sequence[float]) -> None:
        """End members whose loss is not a finite number, and score the others if the epoch is one to report."""
        taking_part = end_unless_finite(self.members, losses)
        if not (epoch == self.training.epochs or self.is_scored(epoch)):
            return
        scores = self.stack.scores(self.stack.tensors, self.data)
        for place, member in taking_part:
            metrics = {"val_loss": scores[place].loss, "val_accuracy": scores[place].accuracy}
            member.report(epoch, "train", losses[place], metrics)

    def _drop_ended(self) -> None:
        """Go on with the members that take part: a step of fewer networks takes less time."""
        places, before = self._places(), self.stack.parameters()
        self.members = [self.members[place] for place in places]
        self.generators = [self.generators[place] for place in places]
        self.stack.keep(places)
        states = self.optimiser.state
        self.optimiser = self._make_optimiser()
        for old, new in zip(before, self.stack.parameters(), strict=True):
            if old in states:
                self.optimiser.state[new] = _of_members(states[old], places)

    def _make_optimiser(self) -> torch.optim.Optimizer:
        training = self.training
        return make_optimiser(training.recipe, self.stack.parameters(), training.learning_rate, training.weight_decay)

    def _loss(self) -> Loss:
        network = self.stack.member(0)
        precision, smoothing = self.hparams.precision, self.hparams.label_smoothing
        return loss_of_members(network, self.members, self.data, self.targets, precision, smoothing)


def _of_members(state: Mapping[str, Tensor], places: Sequence[int]) -> dict[str, Tensor]:
    """An optimiser's state of one parameter, (members, …), of the members in these places. Steps are counted in a
    scalar, for all of them."""
    return {name: tensor[list(places)] if tensor.dim() else tensor for name, tensor in state.items()}
