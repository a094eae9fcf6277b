"""What is tried with every network before any trial: a step of training, and what compression leaves out of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from study.compression.quantised_weights import (
    leave_out,
    leave_out_as_version_1,
    left_out,
    named_by,
    names_in,
    names_of_all,
    shared_parameters,
)
from study.data.splits import Splits
from study.errors import UserError
from study.methods import registry
from study.methods.method import settings_with
from study.models.registry import parameter_count
from study.records.schema import Meta
from study.settings import Settings
from study.training.network import Training
from study.training.precision import PRECISIONS, best_precision
from study.training.rehearsal import CannotTrain, rehearse
from study.tuning.cluster import gpu_share
from study.tuning.space import SearchSpace

MOST_LEFT_OUT = 5.0
"""Percent of a network's parameters that compression may leave out without being told to."""
MOST_SCALES = 20.0
"""The same with the parameters that have one number for each channel."""


def trainable_settings(settings: Settings, space: SearchSpace, data: Splits, recorded: Meta | None) -> Settings:
    """The settings with which every network of the study can be trained, which is tried in one step of each.

    A network that fails in channels last trains in the contiguous layout, and one that fails in bfloat16 makes the
    study train in float32, unless the user asked for bfloat16; both are printed. A study that goes on has chosen.

    Raises:
        UserError: a network that cannot be trained at all, or not as the study was started.
    """
    gpu = torch.cuda.is_available() and gpu_share(settings, True) > 0
    device = "cuda" if gpu else "cpu"
    # In a cluster the machines of the trials may have bfloat16 where this one has not.
    best = PRECISIONS[1] if settings.resources.address else best_precision(device)
    contiguous = set(names_in(settings.contiguous))
    precision = settings.precision or best
    for role, training in _trainings(settings, space):
        trained = role != "teacher" or settings.flat().get("teacher_checkpoint") is None
        wanted = replace(training, precision=precision, contiguous=training.network in contiguous)
        fits, failures = _first_that_trains(wanted, data, device, trained)
        if fits == wanted:
            continue
        cause = failures[0]
        if fits is None:
            raise UserError(f"--{role} {training.network}: cannot be trained ({failures[-1]}); change the network")
        if recorded is not None:
            raise UserError(
                f"--{role} {training.network}: cannot be trained here as {settings.folder} was started ({cause}); "
                "choose another --name"
            )
        if fits.contiguous and not wanted.contiguous:
            contiguous.add(training.network)
            print(f"{training.network} trains in the contiguous memory layout: channels last fails ({cause})")
        if fits.precision != precision:
            if settings.precision:
                raise UserError(
                    f"--precision {settings.precision}: {training.network} cannot be trained in it ({cause}); "
                    f"give --precision {fits.precision}"
                )
            print(f"the study trains in {fits.precision}: {training.network} fails in {precision} ({cause})")
            settings, precision = settings.changed(precision=fits.precision), str(fits.precision)
    return settings.changed(contiguous=",".join(sorted(contiguous)) or None)


def _first_that_trains(
    wanted: Training, data: Splits, device: str, trained: bool
) -> tuple[Training | None, list[CannotTrain]]:
    """The training itself or, of those that take its place, the first that works; and why those before it did not."""
    layouts = dict.fromkeys((wanted.contiguous, True))
    failures: list[CannotTrain] = []
    for precision in dict.fromkeys((wanted.precision, PRECISIONS[0])):
        for contiguous in layouts:
            training = replace(wanted, precision=precision, contiguous=contiguous)
            try:
                rehearse(training, data, device=device, trained=trained)
                return training, failures
            except CannotTrain as error:
                failures.append(error)
    return None, failures


def _trainings(settings: Settings, space: SearchSpace) -> Iterator[tuple[str, Training]]:
    """Role and training of every network, at the ends of what is searched and in the baselines too; each once."""
    method = registry.method(settings.kind)
    searched = [{name: value} for name, domain in space.domains.items() for value in domain.ends()]
    known = []
    for values in ({}, *searched, *space.baselines.values()):
        for role, training in method.networks(settings_with(settings, values)).items():
            if (training.network, training.options) not in known:
                known.append((training.network, training.options))
                yield role, training


def compressed_role(settings: Settings) -> str:
    """Role of the network that trials compress; "" where they compress none."""
    method = registry.method(settings.kind)
    if "skip" not in settings.flat():
        return ""
    return "student" if method.student else method.shared_work.role


def describe_left_out(settings: Settings, role: str, training: Training, model: nn.Module) -> Meta:
    """What compression leaves out of a network, for `study.json`: its share of the parameters (%), and their names.

    Raises:
        UserError: it is too much without a word of the user, or all; or `--skip` names what the network does not have.
    """
    skip = names_in(settings.flat()["skip"])
    if settings.flat()["skip"] is not None:
        _check_names(settings.flat()["skip"], skip, model, training.network)
    own = left_out(leave_out(model, ()))
    kept = shared_parameters(leave_out(model, skip))
    flag = f"--{role} {training.network}"
    if not kept:
        if skip and shared_parameters(leave_out(model, ())):
            raise UserError(f"--skip {','.join(skip)}: leaves nothing of {training.network} to compress; name less")
        raise UserError(
            f"{flag}: none of its parameters can be compressed, since none has two or more dimensions; "
            "give another network"
        )
    total, skipped = parameter_count(model), set(named_by(model, skip))
    longest = max(max(p.shape, default=0) for p in kept)
    unsaid = {name: p for name, p in own.items() if name not in skipped}
    # What has one number for each channel, as batch-norm, is small by nature: it may be more, but not anything.
    for names, most in (([n for n, p in unsaid.items() if p.numel() > longest], MOST_LEFT_OUT), (unsaid, MOST_SCALES)):
        share = 100 * sum(unsaid[name].numel() for name in names) / total
        if share > most:
            raise UserError(
                f"{flag}: {share:.0f} % of its parameters take no part in compression, which compresses tensors of two "
                f"or more dimensions; if that is meant, add --skip {','.join(names)}"
            )
    rest = left_out(model)
    count = sum(p.numel() for p in rest.values())
    return {"share": 100 * count / total, "parameters": count, "names": list(rest)}


def _check_names(given: str, skip: tuple[str, ...], model: nn.Module, network: str) -> None:
    names = names_of_all(model)
    modules = [name for name, module in model.named_modules() if name and next(module.parameters(), None) is not None]
    for name in skip:
        if not named_by(model, [name]):
            near = difflib.get_close_matches(name, [*names, *modules], 1) or names[:3]
            raise UserError(
                f"--skip {name}: {network} has no parameter or module of that name; did you mean {' or '.join(near)}?"
            )
    if not skip:
        raise UserError(f"--skip {given!r}: names nothing; give names of parameters, such as {names[0]}")


def check_left_out(recorded: Meta, settings: Settings, role: str, network: Meta, model: nn.Module) -> None:
    """Refuse to go on with a study whose trials compressed other tensors of the network than they would now.

    Args:
        network: as `study.json` would have it now.
        model: the network of this role; what it has left out is changed.
    Raises:
        UserError: with the first tensor that was treated otherwise.
    """
    known = recorded.get("models", {}).get(role, {}).get("left_out")
    before = set(known["names"] if known else left_out(leave_out_as_version_1(model)))
    if differ := sorted(before ^ set(network["left_out"]["names"])):
        raise UserError(
            f"{settings.folder}: was started by a version that compressed other tensors of {network['name']} "
            f"(such as {differ[0]}); choose another --name"
        )
