"""Preflight checks, before any trial and before anything is written: the study that a command continues, its data and
networks, weights that the user brought, another study's front."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from study.artifacts.cache import SharedWork
from study.commandline import data_folder, say_stage
from study.data import registry as data_registry
from study.data.image_folder import Reading
from study.data.splits import Part, Splits
from study.errors import UserError
from study.methods import registry
from study.methods.method import settings_with
from study.models import custom
from study.models.published_weights import image_size
from study.models.registry import minimum_size, parameter_count, torchvision_name
from study.pipeline import metadata
from study.pipeline.initial_weights import (
    check_weights,
    digest_of,
    lines_about,
    load_initial_weights,
    with_normalisation,
)
from study.pipeline.network_checks import check_left_out, compressed_role, describe_left_out, trainable_settings
from study.records import paths, study_folder
from study.records.columns import Row
from study.records.ledger import Ledger
from study.records.schema import Meta
from study.records.search_domains import Choice
from study.settings import OLDER_PRECISION, Settings, Values, contradiction
from study.training.network import Training, build_network
from study.tuning import measuring
from study.tuning.idle_flags import check_idle_flags
from study.tuning.searcher import front
from study.tuning.space import SearchSpace


@dataclass(frozen=True)
class Inputs:
    """What a study is made of, checked.

    Attributes:
        settings: as its networks can be trained; see `network_checks.trainable_settings`.
        trial_data: the splits as the searched trials see them.
        networks: see `describe_networks`.
        initial_weights: of the networks that the user brought; see `load_initial_weights`.
        warm_start: configurations of another study, best first.
    """

    settings: Settings
    data: Splits
    test: Part
    trial_data: Splits
    networks: dict[str, Meta]
    initial_weights: SharedWork | None
    warm_start: list[Row]


def resume(settings: Settings, space: SearchSpace) -> tuple[Settings, Meta | None]:
    """The settings, with what the study that they continue has chosen already, and its `study.json`.

    Raises:
        UserError: a search space that the method does not know, or a study that was started as another kind, with
            other settings or another search space; or a flag of a new study that has no effect.
    """
    space.check(registry.method(settings.kind), settings)
    measuring.check_objectives(settings, space)
    folder = settings.folder.resolve()
    if not (folder / paths.STUDY).exists():
        if (folder / paths.TRIALS).exists():
            raise study_folder.missing_file_error(folder / paths.STUDY, paths.TRIALS)
        check_idle_flags(settings, space)  # an older study goes on with its flags as they were
        return with_own_rates(settings, space), None
    recorded = study_folder.read_meta(folder)
    if recorded["kind"] != settings.kind:
        raise UserError(f"--name {folder.name}: that study is of kind {recorded['kind']}; choose another --name")
    if settings.precision is None:
        settings = settings.changed(precision=recorded["settings"].get("precision", OLDER_PRECISION))
    settings = settings.changed(contiguous=recorded["settings"].get("contiguous"))
    if recorded["settings"].get("learning_rate") is None:  # older studies have one default for all of their trials
        settings = with_own_rates(settings, space)
    if difference := contradiction(settings, recorded["settings"]):
        raise UserError(
            f"{folder} was started with other settings: {difference}; give them as they were, or choose another --name"
        )
    check_space(recorded, space, folder)
    return settings, recorded


def with_own_rates(settings: Settings, space: SearchSpace) -> Settings:
    """The settings without a learning rate, where none is given and trials or baselines have optimisers of their own:
    each has the default of its own then."""
    own = any("optimizer" in values for values in (space.domains, *space.baselines.values()))
    return settings.changed(learning_rate=None) if own and settings.searched.default_rate else settings


def load_inputs(settings: Settings, space: SearchSpace, recorded: Meta | None) -> Inputs:
    """Data and networks, and all else that a study takes.

    Raises:
        UserError: what does not fit, or not to the study that these settings continue.
    """
    say_stage(f"Reading {settings.dataset} ...")
    data, test = load_data(settings, space)
    say_stage("Checking the networks ...")
    # Wrong names, widths and numbers of examples fail here, before anything starts.
    networks = describe_networks(settings, space, data)
    trial_data = registry.method(settings.kind).trial_data(settings, data)
    if recorded:
        check_data(recorded, settings, data, test)
        check_code(recorded, settings, networks)
        if role := compressed_role(settings):
            network = build_network(registry.method(settings.kind).searched_network(settings), data)
            check_left_out(recorded, settings, role, networks[role], network)
    weights = load_initial_weights(settings, data)
    for role, described in networks.items():
        if digest := digest_of(weights, role):
            described["weights"] = digest
    if recorded:
        check_weights(recorded, settings, networks)
    for line in lines_about(settings, data, weights):
        print(line)
    settings = trainable_settings(settings, space, data, recorded)
    check_packing(settings, space, data)
    measuring.check(settings, data)
    return Inputs(settings, data, test, trial_data, networks, weights, load_warm_start(settings, space))


def check_space(recorded: Meta, space: SearchSpace, folder: Path) -> None:
    """Refuse a search space, objectives or baselines other than those a study was started with.

    Raises:
        UserError: with each that differs.
    """
    differ = [
        f"{what} {name!r} is {now.get(name)} (the study has {recorded[what].get(name)})"
        for what, now in space.as_json().items()
        for name in dict.fromkeys((*now, *recorded.get(what, now)))
        if now.get(name) != recorded.get(what, now).get(name)
    ]
    if differ:
        raise UserError(
            f"{folder} was started with another {space.file}: {', '.join(differ)}; give the flags of the search "
            "space as they were, or choose another --name"
        )


def check_data(recorded: Meta, settings: Settings, data: Splits, test: Part) -> None:
    """Refuse data other than those a study was started with; one that did not record which they are is let through.

    Raises:
        UserError: some part differs.
    """
    known, now = recorded.get("data", {}).get("fingerprints", {}), metadata.fingerprints(data, test)
    differ = [part for part in now if part in known and known[part] != now[part]]
    if differ:
        had = recorded["settings"].get("data_dir")
        named = f"--data-dir {settings.files.data_dir}" if settings.files.data_dir else f"--dataset {settings.dataset}"
        raise UserError(
            f"{named}: its {', '.join(differ)} images or labels are not those that {settings.folder} was started with"
            f"{f', which lay in {had}' if had else ''}; give those, or choose another --name"
        )


def check_code(recorded: Meta, settings: Settings, networks: dict[str, Meta]) -> None:
    """Refuse a user's network whose code is not what it was when a study started: its trials would not compare.

    Args:
        networks: see `describe_networks`.
    Raises:
        UserError: the first that differs; one of which either hash is not known is let through.
    """
    for role in metadata.changed_roles(recorded, networks, "code"):
        raise UserError(
            f"--{role} {networks[role]['name']}: its code is not what it was when {settings.folder} was started; "
            "give it as it was, or choose another --name"
        )


def check_packing(settings: Settings, space: SearchSpace, data: Splits) -> None:
    """Refuse networks that cannot be trained in a pack: what a pack does is tried before anything starts, with every
    network that is searched.

    Raises:
        UserError: with the reason.
    """
    if settings.resources.pack == 1:
        return
    if settings.search.seeds_per_trial:
        raise UserError(
            f"--pack {settings.resources.pack}: does not go with --seeds-per-trial; leave out one of the two flags"
        )
    method = registry.method(settings.kind)
    if method.packing is None:
        raise UserError(f"--pack {settings.resources.pack}: {settings.kind} trains no packs; leave --pack out")
    names = {name for values in (space.domains, *space.baselines.values()) for name in values}
    cases = [settings, *(settings_with(settings, values) for _, values in _searched_networks(space))]
    tried: list[tuple[str, object]] = []
    for case in cases:
        network = method.searched_network(case)
        if (network.network, network.options) in tried:
            continue
        tried.append((network.network, network.options))
        try:
            method.packing.check(case, data, names)
        except Exception as error:  # torch raises many kinds
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"--pack {settings.resources.pack}: {network.network} cannot be trained in packs "
                f"({reason}); leave --pack out"
            ) from error


def load_warm_start(settings: Settings, space: SearchSpace) -> list[Row]:
    """Configurations of another study's front, best first, within this one's space.

    Raises:
        UserError: no study there, or one that searched something else.
    """
    folder = settings.budget.warm_start
    if folder is None:
        return []
    try:
        other = study_folder.load(folder)
    except UserError as error:
        raise UserError(f"--warm-start {error}") from error
    searched = {*other.meta["space"], *other.objectives}
    fixed = {k: d.values[0] for k, d in space.domains.items() if isinstance(d, Choice) and len(d.values) == 1}
    lacking = [k for k in (*space.domains, *space.objectives) if k not in searched and k not in fixed]
    if lacking:
        raise UserError(
            f"--warm-start {folder}: a study of kind {other.meta['kind']} without {lacking[0]}; "
            f"give one that searched {', '.join(space.domains)}"
        )
    ledger, distributions = Ledger.open(folder), space.distributions()
    configurations = []
    for trial_id in front(ledger, space.objectives):
        with suppress(ValueError, KeyError):  # a choice that this study does not have, or a value that the other lacks
            values = space.configuration({**ledger.trials[trial_id], **fixed})
            domains = {name: distributions[name] for name in values}
            if all(d._contains(d.to_internal_repr(values[name])) for name, d in domains.items()):
                configurations.append(values)
    return configurations


def describe_networks(settings: Settings, space: SearchSpace, data: Splits) -> dict[str, Meta]:
    """Role → name, options, parameter count, what compression leaves out, and the hash of a user's own code. Building
    them checks their names and options.

    Raises:
        UserError: one that is not built, or not with every value that is searched; or of which too much is left out.
    """
    method = registry.method(settings.kind)
    networks = method.networks(settings)
    for name, values in _searched_networks(space):
        other = method.networks(settings_with(settings, values))
        _check_searched(settings, space.origins.get(name, space.file), name, values[name], networks, other, data)
    return {role: _described(settings, role, training, data) for role, training in networks.items()}


def _searched_networks(space: SearchSpace) -> Iterator[tuple[str, Values]]:
    """Hyperparameter, and values of a trial of which the network may depend on it: every end by itself; where the
    network is searched as well as its width, every network with every width that it may have."""
    for name, domain in space.domains.items():
        role = name.removesuffix("_width")
        if name == role or role not in space.domains:
            yield from ((name, {name: value}) for value in domain.ends())
            continue
        for network in space.domains[role].ends():
            if name in space.active({role: network, **{n: d.middle() for n, d in space.domains.items() if n != role}}):
                yield from ((name, {role: network, name: value}) for value in domain.ends())


def _check_searched(
    settings: Settings,
    place: str,
    name: str,
    value: object,
    networks: dict[str, Training],
    other: dict[str, Training],
    data: Splits,
) -> None:
    """Refuse a searched value with which a network cannot be built."""
    for role, training in other.items():
        if (training.network, training.options) == (networks[role].network, networks[role].options):
            continue
        try:
            model = build_network(training, data)
        except UserError as error:
            raise UserError(
                f"--{role} {training.network}: {settings.kind} searches {name}, and at {value} it cannot be built "
                f"({error}); give another --{role}, another range in {place}, or say --when it counts"
            ) from error
        if role == compressed_role(settings):
            describe_left_out(settings, role, training, model)


def _described(settings: Settings, role: str, training: Training, data: Splits) -> Meta:
    model, name = _built(role, training, data), training.network
    code = {"code": custom.identity(name, model)} if custom.is_custom(name) else {}
    compressed = role == compressed_role(settings)
    rest = {"left_out": describe_left_out(settings, role, training, model)} if compressed else {}
    return {"name": name, "options": training.options, "parameters": parameter_count(model), **code, **rest}


def _built(role: str, training: Training, data: Splits) -> nn.Module:
    try:
        return build_network(training, data)
    except UserError as error:
        if "width" not in training.options:
            raise
        build_network(replace(training, options={}), data)  # its own error, if the width is not to blame
        raise UserError(f"--{role}-width {training.options['width']:g}: {error}; leave it out") from error


def load_data(settings: Settings, space: SearchSpace | None = None) -> tuple[Splits, Part]:
    """The study's data set: what the search may see, and the test part for confirmation alone.

    Its images are as large as the network needs that needs the largest. They are normalised as `--normalise` says.
    """
    folder = data_folder(settings.dataset, settings.files.data_dir)
    method = registry.method(settings.kind)
    networks = method.networks(settings)
    cases = [values for _, values in _searched_networks(space)] if space else []
    every = [networks, *(method.networks(settings_with(settings, values)) for values in cases)]
    size = max(minimum_size(training.network) for case in every for training in case.values())
    weights = settings.flat().get("weights")
    if weights and torchvision_name(network := networks[compressed_role(settings)].network):
        with suppress(ValueError):  # no such weights: said in one line where they are loaded
            size = max(size, image_size(network, weights))
    images = settings.folder_images
    reading = Reading(images.image_size, images.test_fraction, images.skip_damaged)
    data, test = data_registry.load(settings.dataset, folder, split_seed=settings.seed, size=size, reading=reading)
    searched = space.domains.get("augment") if space else None
    augments = [settings.flat().get("augment") or "none", *(map(str, searched.ends()) if searched else ())]
    augment = next((name for name in augments if name != "none"), "none")
    if augment != "none" and not data.has_images:
        raise UserError(
            f"--augment {augment}: is for images, and --dataset {settings.dataset} gives float32; give --augment none, "
            "or images as uint8"
        )
    return with_normalisation(settings, data), test
