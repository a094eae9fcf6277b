"""What a command builds on, checked before anything starts or is written: the study that it continues, a teacher's
weights, another study's front."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from study.artifacts.cache import SharedWork
from study.commandline import data_folder
from study.data import registry as data_registry
from study.data.images import normalise
from study.data.splits import Part, Splits
from study.errors import UserError
from study.methods.kd.method import student_training
from study.methods.registry import KINDS, least_size, searched_network, trained_network
from study.methods.sws.network_stack import Stack
from study.models import custom, registry
from study.pipeline import metadata
from study.records import paths, study_folder
from study.records.ledger import Ledger
from study.settings import OLDER_PRECISION, Settings, SettingsT, contradiction
from study.training.network import Training, build_network, load_network
from study.tuning import searcher, space


@dataclass(frozen=True)
class Inputs:
    """What a study is made of, checked.

    Attributes:
        seen: the splits as the searched trials see them.
        networks: see `describe.networks`.
        given: the teacher that the user brought, if so.
        warm: configurations of another study, best first.
    """

    data: Splits
    test: Part
    seen: Splits
    networks: dict[str, dict[str, Any]]
    given: SharedWork | None
    warm: list[dict[str, Any]]


def resume(settings: SettingsT, spaces: Any) -> tuple[SettingsT, dict[str, Any] | None]:
    """The settings, with what the study that they continue has chosen already, and its `study.json`.

    Raises:
        UserError: a study that was begun as another kind, with other settings or another search space.
    """
    folder = settings.folder.resolve()
    if not (folder / paths.STUDY).exists():
        if (folder / paths.TRIALS).exists():
            raise study_folder.missing_file_error(folder / paths.STUDY, paths.TRIALS)
        return settings, None
    recorded = study_folder.read_meta(folder)
    if recorded["kind"] != settings.kind:
        raise UserError(f"--name {folder.name}: that study is of kind {recorded['kind']}; choose another --name")
    if settings.precision is None:
        settings = replace(settings, precision=recorded["settings"].get("precision", OLDER_PRECISION))
    if difference := contradiction(settings, recorded["settings"]):
        raise UserError(f"{folder} was begun with other settings: {difference}; choose another --name")
    check_spaces(recorded, spaces, folder)
    return settings, recorded


def load_inputs(settings: Any, spaces: Any, recorded: dict[str, Any] | None) -> Inputs:
    """Data and networks, and all else that is brought to a study.

    Raises:
        UserError: what does not fit, or not to the study that these settings continue.
    """
    data, test = load_data(settings)
    # Wrong names, widths and numbers of examples fail here, before anything starts.
    described = describe_networks(settings, spaces, data)
    seen = KINDS[settings.kind].trial_data(settings, data)
    if recorded:
        check_data(recorded, settings, data, test)
        check_code(recorded, settings, described)
    check_packing(settings, data)
    return Inputs(data, test, seen, described, given_teacher(settings, data), warm_start(settings, spaces))


def check_spaces(recorded: dict[str, Any], spaces: Any, folder: Path) -> None:
    """Refuse a search space, objectives or baselines other than those a study was begun with.

    Raises:
        UserError: with each that differs.
    """
    differ = [
        f"{what} {name!r} is {now.get(name)} (the study has {recorded[what].get(name)})"
        for what, now in space.searched(spaces).items()
        for name in dict.fromkeys((*now, *recorded.get(what, now)))
        if now.get(name) != recorded.get(what, now).get(name)
    ]
    if differ:
        file = spaces.__name__.replace(".", "/") + ".py"
        raise UserError(f"{folder} was begun with another {file}: {', '.join(differ)}; choose another --name")


def check_data(recorded: dict[str, Any], settings: Any, data: Splits, test: Part) -> None:
    """Refuse data other than those a study was begun with; one that did not record which they are is let through.

    Raises:
        UserError: some part differs.
    """
    known, now = recorded.get("data", {}).get("fingerprints", {}), metadata.fingerprints(data, test)
    differ = [part for part in now if part in known and known[part] != now[part]]
    if differ:
        had = recorded["settings"].get("data_dir")
        named = f"--data-dir {settings.data_dir}" if settings.data_dir else f"--dataset {settings.dataset}"
        raise UserError(
            f"{named}: its {', '.join(differ)} images or labels are not those that {settings.folder} was begun with"
            f"{f', which lay in {had}' if had else ''}; give those, or choose another --name"
        )


def check_code(recorded: dict[str, Any], settings: Any, networks: dict[str, dict[str, Any]]) -> None:
    """Refuse a user's network whose code is not what it was when a study began: its trials would not compare.

    Args:
        networks: see `describe.networks`.
    Raises:
        UserError: the first that differs; one of which either hash is not known is let through.
    """
    for role, network in networks.items():
        known, now = recorded.get("models", {}).get(role, {}).get("code"), network.get("code")
        if known and now and known != now:
            raise UserError(
                f"--{role} {network['name']}: its code is not what it was when {settings.folder} was begun; "
                "give it as it was, or choose another --name"
            )


def given_teacher(settings: Any, data: Splits) -> SharedWork | None:
    """The teacher that `--teacher-checkpoint` gives; None where the study trains its own, or has none.

    Raises:
        UserError: a file that is missing, or holds other weights.
    """
    path = getattr(settings, "teacher_checkpoint", None)
    if path is None:
        return None
    if not path.is_file():
        raise UserError(f"--teacher-checkpoint {path}: no such file; give a .safetensors file or a .pt state dict")
    try:
        given = given_weights(path)
        load_network(given.tensors(), trained_network(settings, "teacher"), data)
    except Exception as error:  # torch and safetensors raise many kinds for one cause: not these weights
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--teacher-checkpoint {path}: not weights of {settings.teacher} here ({reason})") from error
    return given


def check_packing(settings: Any, data: Splits) -> None:
    """Refuse a network that cannot be one of a pack: what it does is tried with two of them, as they train.

    Raises:
        UserError: with what torch says of it.
    """
    if settings.pack == 1:
        return
    training = searched_network(settings)
    try:
        stack = Stack([build_network(training, data) for _ in range(2)]).train()
        images = normalise(data.train.images[:4], data.mean, data.std)
        stack(torch.stack([images, images])).sum().backward()
    except Exception as error:  # torch raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--pack {settings.pack}: {training.network} cannot be trained in packs ({reason}); leave --pack out"
        ) from error


def warm_start(settings: Any, spaces: Any) -> list[dict[str, Any]]:
    """Configurations of another study's front, best first, within this one's space.

    Raises:
        UserError: no study there, or one that searched something else.
    """
    if settings.warm_start is None:
        return []
    other = study_folder.load(settings.warm_start)
    lacking = [k for k in (*spaces.SPACE, *spaces.OBJECTIVES) if k not in other.trials]
    if lacking:
        raise UserError(
            f"--warm-start {settings.warm_start}: a study of kind {other.meta['kind']} without {lacking[0]}; "
            f"give one that searched {', '.join(spaces.SPACE)}"
        )
    ledger = Ledger.open(settings.warm_start)
    members = [ledger.trials[i] for i in searcher.front(ledger, spaces.OBJECTIVES)]
    found = [{k: space.cast_value(k, row[k], spaces) for k in spaces.SPACE} for row in members]
    domains = space.distributions(spaces.SPACE)
    return [v for v in found if all(domains[k]._contains(domains[k].to_internal_repr(x)) for k, x in v.items())]


def describe_networks(settings: Any, spaces: Any, data: Splits) -> dict[str, dict[str, Any]]:
    """Role → name, options, parameter count, and the hash of a user's own code. Building them checks their names
    and options.

    Raises:
        UserError: one that is not built, or not over the whole range of widths that is searched.
    """
    if widths := spaces.SPACE.get("student_width"):
        for width in (widths.lower, widths.upper):
            try:
                build_network(student_training(replace(settings, student_width=width)), data)
            except UserError as error:
                raise UserError(
                    f"--student {settings.student}: {settings.kind} searches its width from {widths.lower:g} to "
                    f"{widths.upper:g}, and at {width:g}: {error}; give one of the VGG kinds"
                ) from error
    return {role: _described(role, t, data) for role, t in KINDS[settings.kind].networks(settings).items()}


def _described(role: str, training: Training, data: Splits) -> dict[str, Any]:
    model, name = _built(role, training, data), training.network
    code = {"code": custom.identity(name, model)} if custom.is_custom(name) else {}
    return {"name": name, "options": training.options, "parameters": registry.parameter_count(model), **code}


def _built(role: str, training: Training, data: Splits) -> nn.Module:
    try:
        return build_network(training, data)
    except UserError as error:
        if "width" not in training.options:
            raise
        build_network(replace(training, options={}), data)  # its own error, if the width is not to blame
        raise UserError(f"--{role}-width {training.options['width']:g}: {error}; leave it out") from error


def load_data(settings: Settings) -> tuple[Splits, Part]:
    """The study's data set: what the search may see, and the test part for confirmation alone."""
    folder = data_folder(settings.dataset, settings.data_dir)
    return data_registry.load(settings.dataset, folder, split_seed=settings.seed, size=least_size(settings))


def given_weights(path: Path) -> SharedWork:
    """A trained teacher from a file; nothing in it is executed.

    Raises:
        OSError, ValueError: missing, or not weights.
    """
    from safetensors.torch import load_file

    try:
        given = path.suffix == ".safetensors"
        state = load_file(path) if given else torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, LookupError, UnpicklingError) as error:  # torch's advice is to run whatever the file says
        raise ValueError("it is no .safetensors file, and no .pt file of a state dict alone") from error
    with suppress(KeyError, TypeError):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ValueError("it holds no state dict of tensors")
    return SharedWork({k: v.numpy() for k, v in state.items()})
