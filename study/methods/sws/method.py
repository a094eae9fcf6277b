"""Soft weight-sharing as a kind of study: one pretrained network, clustered by each trial."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.compression.quantised_weights import flatten, shared_parameters
from study.compression.size_metrics import COUNTS_OVER
from study.data.images import normalise
from study.data.splits import Splits
from study.methods.common import pinning, pretrained
from study.methods.method import ONE_MINUS, Method, Packing, PackMember, StepCost, TrialResult, hparams_from
from study.methods.sws import hard, packed, weight_sharing
from study.methods.sws.network_stack import Stack
from study.methods.sws.settings import NOT_PACKABLE, SWSSettings
from study.methods.sws.weight_sharing import Hparams
from study.settings import Values
from study.training.loop import Report
from study.training.network import build_network
from study.training.precision import autocast_logits, uses_bfloat16


@dataclass(frozen=True, kw_only=True)
class EitherHparams(weight_sharing.Hparams, hard.Hparams):
    """What can be searched: the hyperparameters of both variants."""


def without_effect(settings: SWSSettings) -> dict[str, str]:
    """Hyperparameters that do nothing with these settings, and why; see `Method.without_effect`."""
    names = {
        variant: {f.name for f in dataclasses.fields(cls)}
        for variant, cls in (("soft", weight_sharing.Hparams), ("hard", hard.Hparams))
    }
    of_other = names["hard" if settings.variant == "soft" else "soft"] - names[settings.variant]
    return {
        **pretrained.without_effect(settings),
        **dict.fromkeys(sorted(of_other), f"with --variant {settings.variant}"),
    }


def epochs(settings: SWSSettings) -> int:
    """Most epochs that a trial reports."""
    if settings.variant == "soft":
        return (settings.epochs or 0) + (settings.retrain_epochs or 0) + (settings.codebook_epochs or 0)
    return (settings.epochs or 0) + (0 if settings.quantised_training else settings.codebook_epochs or 0)


def hyperparameters(settings: SWSSettings, values: Values) -> Hparams:
    """Of one trial."""
    return hparams_from(Hparams, settings, values, **pretrained.no_teacher(settings))


def trial(
    values: Values, settings: SWSSettings, data: Splits, shared: SharedWork, on_epoch: Report, progress: Progress
) -> TrialResult:
    """Cluster the pretrained network under a mixture prior, or by the prior's hard limit, and quantise it."""
    network, targets = pretrained.start(settings, data, shared)
    if settings.variant == "hard":
        hard_hparams = hparams_from(hard.Hparams, settings, values, **pretrained.no_teacher(settings))
        quantised, metrics = pinning.fit(network, hard_hparams, data, on_epoch, targets, progress)
    else:
        hparams = hyperparameters(settings, values)
        quantised, metrics = weight_sharing.fit(network, hparams, data, on_epoch, targets, progress)
    return pretrained.compressed(network, quantised, metrics, settings, data, shared)


def prior_term(network: nn.Module, values: Values) -> Callable[[], Tensor]:
    """The prior over a network's weights, as a trial computes it in every step of clustering; scalar, nats."""
    parameters = shared_parameters(network)
    components = int(str(values.get("components") or 17))
    hparams = Hparams(tau=1.0, components=components, pi_zero=0.99)
    mixture = weight_sharing.mixture_over(flatten(parameters).detach(), hparams)
    return lambda: mixture.complexity(flatten(parameters))


class Pack:
    """Trains trials of one study as one program; see `PackTrainer`."""

    def __init__(self, settings: SWSSettings, data: Splits, shared: SharedWork) -> None:
        self.settings, self.data, self.shared = settings, data, shared
        self.network, self.targets = pretrained.start(settings, data, shared)

    def train(self, members: Sequence[PackMember]) -> list[Callable[[], TrialResult] | Exception]:
        """For each member what makes its result, or why it ended early."""
        ready: list[tuple[PackMember, packed.Member]] = []
        results: dict[int, Callable[[], TrialResult] | Exception] = {}
        for number, member in enumerate(members):
            try:
                hparams = hyperparameters(self.settings, member.values)
                ready.append((member, packed.Member(hparams, member.on_epoch, member.on_failure)))
            except (TypeError, ValueError) as error:  # this configuration cannot be, and the others can
                member.on_failure(error)
                results[number] = error
        trained = iter(self._train(ready) if ready else [])
        return [results[n] if n in results else next(trained) for n in range(len(members))]

    def _train(
        self, members: Sequence[tuple[PackMember, packed.Member]]
    ) -> list[Callable[[], TrialResult] | Exception]:
        networks = [copy.deepcopy(self.network) for _ in members]
        torch.manual_seed(self.settings.seed)  # as of a trial alone, which dropout draws from
        results: list[Callable[[], TrialResult] | Exception] = []
        ends = packed.fit(networks, [packed_member for _, packed_member in members], self.data, self.targets)
        for (member, packed_member), end in zip(members, ends, strict=True):
            member.trace = packed_member.trace
            if isinstance(end, Exception):
                results.append(end)
                continue
            network, quantised, metrics = end
            on_host = replace(quantised, **{name: tensor.cpu() for name, tensor in vars(quantised).items()})
            results.append(
                partial(pretrained.compressed, network.cpu(), on_host, metrics, self.settings, self.data, self.shared)
            )
        return results


def check_packing(settings: SWSSettings, data: Splits, searched: Collection[str]) -> None:
    """Try two networks of the study as one program, as they train. Raises whatever torch raises of it.

    Raises:
        ValueError: something is searched that members of a pack have in common, or the data are no images.
    """
    if not data.has_images:
        raise ValueError("a pack takes images alone, (channels, height, width)")
    names = [name.removeprefix(ONE_MINUS) for name in searched]
    common = [name for name in names if name in (*packed.SAME_IN_A_PACK, *NOT_PACKABLE)]
    if common:
        raise ValueError(f"search_spaces/sws.py sets {common[0]}, which all trials of a pack have in common")
    training = pretrained.pretraining(settings)
    networks = [build_network(training, data) for _ in range(2)]
    images = normalise(data.train.images[:4], data.mean, data.std, len(data.shape))
    half = uses_bfloat16(networks[0], images.device, settings.precision)
    autocast_logits(Stack(networks).train(), torch.stack([images, images]), half).sum().backward()


METHOD = Method(
    title="Soft weight-sharing",
    reference="uncompressed",
    hparams=EitherHparams,
    shared_work=pretrained.STAGE,
    trial=trial,
    epochs=epochs,
    counts_over=COUNTS_OVER,
    without_effect=without_effect,
    step_cost=StepCost(epochs=lambda settings: settings.epochs if settings.variant == "soft" else 0, term=prior_term),
    packing=Packing(check=check_packing, trainer=Pack),
    search_space=lambda settings: "sws" if settings.variant == "soft" else "sws_hard",
)
