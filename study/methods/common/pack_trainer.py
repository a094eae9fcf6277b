"""Packs of a study whose trials all compress the same trained network: members in, results out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch
from torch import nn

from study.artifacts.cache import SharedWork
from study.compression.codebook_training import CodebookHparams
from study.data.images import normalise
from study.data.splits import Splits
from study.errors import UserError
from study.methods.common import pretrained
from study.methods.common.network_stack import Stack
from study.methods.common.packed_training import Member, MemberResult
from study.methods.common.settings import NetworkSettings
from study.methods.method import ONE_MINUS, PackMember, TrialResult
from study.settings import Values
from study.training.distillation import Targets
from study.training.network import Training, build_network
from study.training.precision import autocast_logits, uses_bfloat16

Fit = Callable[[Sequence[nn.Module], Sequence[Member], Splits, Targets], list[MemberResult]]
"""Trains the members' networks as one program, and gives the outcome of each."""

Outcome = Callable[[], TrialResult] | Exception
"""Of one member: what makes its result, or why it ended early."""
MemberT = TypeVar("MemberT")
IMPOSSIBLE = (TypeError, ValueError, UserError)
"""What a configuration raises that is not possible."""


def train_possible(
    members: Sequence[PackMember],
    make_member: Callable[[PackMember], MemberT],
    train: Callable[[Sequence[tuple[PackMember, MemberT]]], list[Outcome]],
) -> list[Outcome]:
    """Train the members whose configuration is possible; any other ends here, with the reason.

    Args:
        make_member: raises one of `IMPOSSIBLE` of a configuration that is not possible.
        train: takes the others, each with what `make_member` made of it.
    Returns: the outcome of every member, in their order.
    """
    ready: list[tuple[PackMember, MemberT]] = []
    refused: dict[int, Outcome] = {}
    for number, member in enumerate(members):
        try:
            ready.append((member, make_member(member)))
        except IMPOSSIBLE as error:
            member.on_failure(error)
            refused[number] = error
    trained = iter(train(ready) if ready else [])
    return [refused[n] if n in refused else next(trained) for n in range(len(members))]


class CompressionPacks:
    """Trains trials of one study as one program; see `PackTrainer`.

    Args:
        hyperparameters: of the trial with these searched values.
        fit: the method's own.
    """

    shrinks = False

    def __init__(
        self,
        settings: NetworkSettings,
        data: Splits,
        shared: SharedWork,
        hyperparameters: Callable[[Values], CodebookHparams],
        fit: Fit,
    ) -> None:
        self.settings, self.data, self.shared = settings, data, shared
        self.hyperparameters, self.fit = hyperparameters, fit
        self.network, self.targets = pretrained.start(settings, data, shared)

    def programs(self, trials: Sequence[Values]) -> list[list[int]]:
        """All trials are one: their networks are of one architecture."""
        return [list(range(len(trials)))] if trials else []

    def train(self, members: Sequence[PackMember]) -> list[Outcome]:
        """For each member what makes its result, or why it ended early."""
        return train_possible(members, self._member, self._train)

    def _member(self, member: PackMember) -> Member:
        return Member(self.hyperparameters(member.values), member.on_epoch, member.on_failure)

    def _train(self, members: Sequence[tuple[PackMember, Member]]) -> list[Outcome]:
        networks = [copy.deepcopy(self.network) for _ in members]
        torch.manual_seed(self.settings.seed)  # as of a trial alone, which dropout draws from
        results: list[Outcome] = []
        ends = self.fit(networks, [trained for _, trained in members], self.data, self.targets)
        for (member, trained), end in zip(members, ends, strict=True):
            member.trace = trained.trace
            if isinstance(end, Exception):
                results.append(end)
                continue
            network, quantised, metrics = end
            on_host = replace(quantised, **{name: tensor.cpu() for name, tensor in vars(quantised).items()})
            results.append(
                partial(pretrained.compressed, network.cpu(), on_host, metrics, self.settings, self.data, self.shared)
            )
        return results


def check_packing(
    settings: NetworkSettings, data: Splits, searched: Collection[str], space: str, same: Collection[str]
) -> None:
    """`try_packing` of the networks that every trial compresses; raises what it raises.

    Args:
        searched, space, same: as `refuse_common` takes them.
    Raises:
        ValueError: see `refuse_common`.
    """
    refuse_common(searched, space, same)
    try_packing(pretrained.pretraining(settings), data)


def refuse_common(searched: Collection[str], space: str, same: Collection[str]) -> None:
    """Refuse a search space that sets what all trials of a pack have in common.

    Args:
        searched: names of the search space.
        space: its module.
        same: hyperparameters that all members of a pack have in common.
    Raises:
        ValueError: the first that is searched.
    """
    common = [name for name in (name.removeprefix(ONE_MINUS) for name in searched) if name in same]
    if common:
        raise ValueError(f"search_spaces/{space}.py sets {common[0]}, which all trials of a pack have in common")


def try_packing(training: Training, data: Splits) -> None:
    """Try two of these networks as one program, as they train. Raises whatever torch raises of it.

    Raises:
        ValueError: the data are no images.
    """
    if not data.has_images:
        raise ValueError("a pack takes images alone, (channels, height, width)")
    networks = [build_network(training, data) for _ in range(2)]
    images = normalise(data.train.images[:4], data.mean, data.std, len(data.shape))
    half = uses_bfloat16(networks[0], images.device, training.precision)
    autocast_logits(Stack(networks).train(), torch.stack([images, images]), half).sum().backward()
