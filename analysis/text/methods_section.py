"""The methods section of a report, written from `study.json` alone: enough to repeat the study."""

from __future__ import annotations

from typing import Any

from analysis.stats.held_out_results import fresh_seed_rows
from analysis.stats.names import ACCURACY
from analysis.stats.pareto_front import least_accuracy
from analysis.stats.search_space import Domain, choices, searched_networks, varies
from study.records.search_domains import Choice, Condition
from study.records.study_folder import Study

SELECTION = (
    "Configurations were searched and selected on validation data. Test data were evaluated once per listed "
    "configuration and seed, after selection."
)
UNTOUCHED = "Configurations were searched and selected on validation data. Test data have not been evaluated."

MOST_NAMED = 3
"""Searched networks that the title names."""


def methods(study: Study) -> list[tuple[str, list[str]]]:
    """(heading, lines) pairs of plain text; a heading whose facts the study did not record is left out."""
    meta = study.meta
    sections = [
        ("Selection", [UNTOUCHED if study.confirmed.empty else SELECTION]),
        ("Data", _data(meta.get("data", {}))),
        ("Models", [_model(role, model, meta["space"]) for role, model in meta.get("models", {}).items()]),
        (
            "Objectives",
            [_objective(study, c, d) for c, d in study.objectives.items()]
            + _constraint(study)
            + _sentence(meta.get("counts_over")),
        ),
        ("Search space", [_domain(study, name, domain) for name, domain in meta["space"].items()]),
        ("Budget and settings", _settings(meta.get("settings", {}))),
        ("Seeds", [f"study seed {meta.get('seed', 'not recorded')}"] + _seeds(study)),
        ("Versions", [f"{name} {version}" for name, version in meta.get("versions", {}).items()]),
        ("Run", _run(meta)),
    ]
    return [(heading, lines) for heading, lines in sections if lines]


def title(study: Study) -> str:
    """What was studied, in one line: the method, its networks, and the data."""
    meta = study.meta
    data = meta.get("data", {})
    parts = (str(meta["title"]), _networks(meta), str(data.get("title") or data.get("name") or ""))
    return " · ".join(part for part in parts if part)


def _networks(meta: dict[str, Any]) -> str:
    """Names of the networks; an arrow leads from those that are to be replaced to the others."""
    names = {role: model.get("name", "?") for role, model in meta.get("models", {}).items()}
    for role in names:
        if searched := searched_networks(meta["space"], role):
            few = len(searched) <= MOST_NAMED
            names[role] = " or ".join(searched) if few else f"one of {len(searched)} networks"
    roles = {meta["dense"].get(baseline) for baseline in meta["replaced"]}
    replaced = [name for role, name in names.items() if role in roles]
    others = [name for role, name in names.items() if role not in roles]
    return " → ".join(", ".join(group) for group in (replaced, others) if group)


def _data(data: dict[str, Any]) -> list[str]:
    if not data:
        return []
    shape = " × ".join(str(n) for n in data.get("shape", []))
    axes = " (channels × height × width)" if len(data.get("shape", [])) == 3 else ""
    lines = [
        f"{data.get('title', data.get('name', ''))}, {len(data.get('classes', []))} classes, inputs of {shape}{axes}"
    ]
    parts = [f"{data[part]:,} {part}" for part in ("train", "validation", "test") if isinstance(data.get(part), int)]
    if parts:
        what = "images" if axes else "examples"
        lines.append(f"{', '.join(parts)} {what}; stratified split with seed {data.get('split_seed', '?')}")
    return lines + _sentence(data.get("note"))


def _model(role: str, model: dict[str, Any], space: dict[str, Domain]) -> str:
    """The network of a role: its name, options and size; of one that is searched, those of baselines."""
    names, width = searched_networks(space, role), f"{role}_width"
    if not names and width not in space:
        return f"{role}: {_described(model)}"
    line = f"{role}: {' or '.join(names) or model.get('name', '?')}, see the search space"
    several = any(varies(space[name]) for name in (role, width) if name in space)
    return line + (f"; baselines that do not name theirs have {_described(model)}" if several else "")


def _described(model: dict[str, Any]) -> str:
    options = ", ".join(f"{k} = {v}" for k, v in (model.get("options") or {}).items())
    count = model.get("parameters")
    return (
        str(model.get("name", "?"))
        + (f" ({options})" if options else "")
        + (f", {count:,} parameters" if isinstance(count, int) else "")
    )


def _objective(study: Study, name: str, direction: str) -> str:
    return f"{'maximise' if direction == 'max' else 'minimise'} {study.column(name).heading}"


def _constraint(study: Study) -> list[str]:
    least = least_accuracy(study.meta)
    if least is None:
        return []
    return [
        f"subject to {study.column(ACCURACY).label} of at least {least:g} % (min_accuracy): the searcher knew this "
        "bound, and no trial below it is on the front"
    ]


def _domain(study: Study, name: str, domain: Domain) -> str:
    """What a hyperparameter was searched over, and when."""
    conditions = [Condition(other, tuple(values)) for other, values in domain.get("when", {}).items()]
    return ", ".join([_range(study, name, domain), *map(str, conditions)])


def _range(study: Study, name: str, domain: Domain) -> str:
    label = study.column(name).label
    shown = name if label == name.replace("_", " ") else f"{label} ({name})"
    if among := choices(domain):
        return f"{shown}: {Choice(tuple(among))}"
    if "low" not in domain:  # written by another harness
        return f"{shown}: see study.json"
    scale = "log-uniform" if domain.get("log") else "uniform"
    step = domain.get("step")
    steps = f", in steps of {step:g}" if step and (step != 1 or domain.get("type") != "int") else ""
    whole = ", whole numbers" if domain.get("type") == "int" else ""
    return f"{shown}: {domain['low']:g} to {domain['high']:g}, {scale}{whole}{steps}"


def _settings(settings: dict[str, Any]) -> list[str]:
    return [f"{name} = {value}" for name, value in settings.items() if value is not None and value != ""]


def _seeds(study: Study) -> list[str]:
    rows = fresh_seed_rows(study)
    if rows.empty:
        return []
    seeds = ", ".join(str(seed) for seed in sorted(rows["seed"].unique()))
    return [
        f"confirmed with fresh seed{'s' if ',' in seeds else ''} {seeds}: trained again from the first stage on, "
        "on the same split"
    ]


def _run(meta: dict[str, Any]) -> list[str]:
    facts = (("", "command"), ("device: ", "device"), ("commit ", "git_commit"), ("started ", "created"))
    return [f"{words}{meta[key]}" for words, key in facts if meta.get(key)] + [
        f"continued {run['created']}: {run['command']}{_otherwise(meta, run)}" for run in meta.get("continued", [])
    ]


def _otherwise(meta: dict[str, Any], run: dict[str, Any]) -> str:
    """In what a command that continued a study differs from the one that started it."""
    before = meta.get("versions", {})
    differ = [f"{name} {v}" for name, v in run["versions"].items() if v != before.get(name)]
    differ += [f"commit {run['git_commit']}"] if run["git_commit"] != meta.get("git_commit") else []
    differ += [f"on {run['device']}"] if run["device"] != meta.get("device") else []
    return f" ({', '.join(differ)})" if differ else ""


def _sentence(text: Any) -> list[str]:
    return [str(text)] if text else []
