"""Networks that the user brings: their weights from files or from torchvision, and the constants of their images."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path

import torch
from torch import nn

from study.artifacts.cache import SharedWork, arrays_digest
from study.artifacts.finite import not_finite
from study.compression.quantised_weights import names_in
from study.data.splits import Splits
from study.errors import UserError
from study.methods import registry
from study.models.checkpoint_file import State, fit_state, read_state, unknown_name
from study.models.published_weights import constants_of, download, replaced_layers, without_auxiliary
from study.models.state import tensors_of
from study.normalisation import Constants, for_channels, parse
from study.pipeline import metadata
from study.pipeline.network_checks import compressed_role
from study.records.schema import Meta
from study.settings import Settings, Values
from study.training.network import Training, build_network

TEACHER = "teacher"


def load_initial_weights(settings: Settings, data: Splits) -> SharedWork | None:
    """The weights that the user gave, each under its role as in `study.artifacts.cache.NETWORK`; None for none.

    Raises:
        UserError: a file that is missing, holds other weights, or more than weights; a download that failed.
    """
    values, weights = settings.flat(), {}
    role, networks = compressed_role(settings), registry.method(settings.kind).networks(settings)
    reinit = names_in(values.get("reinit"))
    if path := values.get("teacher_checkpoint"):
        named = f"--teacher-checkpoint {path}"
        weights[TEACHER] = _from_file(path, named, networks[TEACHER], TEACHER, data)
    if path := values.get("checkpoint"):
        weights[role] = _from_file(path, f"--checkpoint {path}", networks[role], role, data, reinit)
    elif name := values.get("weights"):
        weights[role] = _published(name, networks[role], role, data, reinit)
    arrays = {f"{role}/{k}": v.numpy() for role, state in weights.items() for k, v in state.items()}
    return SharedWork(arrays) if arrays else None


def digest_of(weights: SharedWork | None, role: str) -> str:
    """Hash of the weights that the user gave of a network; "" for none."""
    arrays = weights.part(f"{role}/").arrays if weights else {}
    return arrays_digest(arrays) if arrays else ""


def fresh_layers(weights: SharedWork, role: str, training: Training, data: Splits) -> list[str]:
    """Layers of a network that the weights which the user gave of it leave out."""
    known = weights.part(f"{role}/").arrays
    own = tensors_of(build_network(training, data))
    return list(dict.fromkeys(name.rpartition(".")[0] or name for name in own if name not in known))


def check_weights(recorded: Meta, settings: Settings, networks: dict[str, Meta]) -> None:
    """Refuse weights other than those that a study was started with, under the same name.

    Raises:
        UserError: with the flag; a study that did not record which they are is let through.
    """
    for role in metadata.changed_roles(recorded, networks, "weights"):
        raise UserError(
            f"{_named(settings.flat(), role)}: its weights are not those that {settings.folder} was started with; "
            "give those, or choose another --name"
        )


def with_normalisation(settings: Settings, data: Splits) -> Splits:
    """The data, with the constants of `--normalise`, or else of the published weights.

    Raises:
        UserError: they do not fit the images, or there are no such weights.
    """
    name = settings.flat().get("weights")
    constants, named = parse(settings.normalise), f"--normalise {settings.normalise}"
    if settings.normalise is None and name:
        training = registry.method(settings.kind).networks(settings)[compressed_role(settings)]
        named = f"--weights {name}"
        try:
            constants = constants_of(training.network, name)
        except ValueError as error:
            raise UserError(f"{named}: {error}") from error
    if constants is None:
        return data
    pixels = data.train.images.dtype == torch.uint8
    constants = for_channels(constants, data.shape[0], named, pixels=pixels)
    if (constants.mean, constants.std) == (data.mean, data.std):
        return data
    return dataclasses.replace(data, mean=constants.mean, std=constants.std, train_mean=data.mean)


def lines_about(settings: Settings, data: Splits, weights: SharedWork | None) -> list[str]:
    """What whoever brings a network should know before it is used, a line each."""
    values, role = settings.flat(), compressed_role(settings)
    if weights is None:
        return []
    lines = []
    if settings.normalise is None:
        whose = f"as --weights {values['weights']} expects" if values.get("weights") else "those of the training part"
        lines.append(
            f"Images are normalised by {Constants(data.mean, data.std)}: {whose}. A network that was trained with "
            f"others needs them as --normalise"
        )
    if digest_of(weights, role):
        training = registry.method(settings.kind).networks(settings)[role]
        fresh = fresh_layers(weights, role, training, data)
        if fresh and not values.get("finetune_epochs", 1):
            lines.append(f"Warning: {', '.join(fresh)} starts fresh and is not trained first; add --finetune-epochs N")
        elif fresh:
            lines.append(f"Starts fresh: {', '.join(fresh)}")
    return lines


def _named(values: Values, role: str) -> str:
    """The flag that gave the weights of a network, with its value."""
    names = ("teacher_checkpoint",) if role == TEACHER else ("checkpoint", "weights")
    name = next(n for n in names if values.get(n))
    return f"--{name.replace('_', '-')} {values[name]}"


def _from_file(
    path: Path, named: str, training: Training, role: str, data: Splits, reinit: tuple[str, ...] = ()
) -> State:
    """See `load_initial_weights`. `named`: the flag and the file."""
    model = build_network(training, data)
    try:
        state = read_state(path)
    except ValueError as error:
        raise UserError(f"{named}: {error}") from error
    return _fitted(state, model, named, training, role, reinit)


def _published(name: str, training: Training, role: str, data: Splits, reinit: tuple[str, ...]) -> State:
    model, named = build_network(training, data), f"--weights {name}"
    try:
        state = without_auxiliary(download(training.network, name), model)
    except ValueError as error:
        raise UserError(f"{named}: {error}") from error
    replaced = replaced_layers(state, model, len(data.classes))
    return _fitted(state, model, named, training, role, (*reinit, *replaced))


def _fitted(
    state: State, model: nn.Module, named: str, training: Training, role: str, reinit: tuple[str, ...]
) -> State:
    if name := unknown_name(reinit, state, model):
        near = difflib.get_close_matches(name, [n for n, _ in model.named_modules() if n], 1)
        hint = f"did you mean {near[0]}?" if near else "give the name of a layer"
        raise UserError(f"--reinit {name}: {training.network} has no layer or tensor of that name; {hint}")
    try:
        fitted = fit_state(state, model, f"--{role} {training.network}", reinit, hint=role != TEACHER)
    except ValueError as error:
        raise UserError(f"{named}: {error}") from error
    if problem := not_finite({name: tensor.numpy() for name, tensor in fitted.items()}):
        raise UserError(f"{named}: {problem}; give weights that are all finite numbers")
    return fitted
