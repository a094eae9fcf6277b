"""Packs of a study whose trials all compress the same trained network: members in, results out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from study.artifacts.cache import SharedWork
from study.compression.codebook_training import CodebookHparams
from study.data.images import normalise
from study.data.splits import Splits
from study.methods.common import pretrained
from study.methods.common.network_stack import Stack
from study.methods.common.packed_training import Member, MemberResult
from study.methods.common.settings import NetworkSettings
from study.methods.method import ONE_MINUS, PackMember, TrialResult
from study.settings import Values
from study.training.distillation import Targets
from study.training.network import build_network
from study.training.precision import autocast_logits, uses_bfloat16

Fit = Callable[[Sequence[nn.Module], Sequence[Member], Splits, Targets], list[MemberResult]]
"""Trains the members' networks as one program, and gives the outcome of each."""


class CompressionPacks:
    """Trains trials of one study as one program; see `PackTrainer`.

    Args:
        hyperparameters: of the trial with these searched values.
        fit: the method's own.
    """

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

    def train(self, members: Sequence[PackMember]) -> list[Callable[[], TrialResult] | Exception]:
        """For each member what makes its result, or why it ended early."""
        ready: list[tuple[PackMember, Member]] = []
        results: dict[int, Callable[[], TrialResult] | Exception] = {}
        for number, member in enumerate(members):
            try:
                hparams = self.hyperparameters(member.values)
                ready.append((member, Member(hparams, member.on_epoch, member.on_failure)))
            except (TypeError, ValueError) as error:  # this configuration cannot be, and the others can
                member.on_failure(error)
                results[number] = error
        trained = iter(self._train(ready) if ready else [])
        return [results[n] if n in results else next(trained) for n in range(len(members))]

    def _train(self, members: Sequence[tuple[PackMember, Member]]) -> list[Callable[[], TrialResult] | Exception]:
        networks = [copy.deepcopy(self.network) for _ in members]
        torch.manual_seed(self.settings.seed)  # as of a trial alone, which dropout draws from
        results: list[Callable[[], TrialResult] | Exception] = []
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
    """Try two networks of the study as one program, as they train. Raises whatever torch raises of it.

    Args:
        searched: names of the search space.
        space: its module.
        same: hyperparameters that all members of a pack have in common.
    Raises:
        ValueError: something is searched that members of a pack have in common, or the data are no images.
    """
    if not data.has_images:
        raise ValueError("a pack takes images alone, (channels, height, width)")
    common = [name for name in (name.removeprefix(ONE_MINUS) for name in searched) if name in same]
    if common:
        raise ValueError(f"search_spaces/{space}.py sets {common[0]}, which all trials of a pack have in common")
    training = pretrained.pretraining(settings)
    networks = [build_network(training, data) for _ in range(2)]
    images = normalise(data.train.images[:4], data.mean, data.std, len(data.shape))
    half = uses_bfloat16(networks[0], images.device, settings.precision)
    autocast_logits(Stack(networks).train(), torch.stack([images, images]), half).sum().backward()
