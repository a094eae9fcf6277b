"""The methods section of a report, written from `study.json` alone: enough to repeat the study."""

from __future__ import annotations

from typing import Any

from analysis.stats.pareto_front import least_accuracy
from analysis.stats.test_results import fresh_seed_rows
from study.records.columns import COLUMNS, label
from study.records.study_folder import Study

SELECTION = (
    "Configurations were searched and selected on validation data. Test data were evaluated once per listed "
    "configuration and seed, after selection."
)
UNTOUCHED = "Configurations were searched and selected on validation data. Test data have not been evaluated."


def methods(study: Study) -> list[tuple[str, list[str]]]:
    """(heading, lines) pairs of plain text; a heading whose facts the study did not record is left out."""
    meta = study.meta
    sections = [
        ("Selection", [UNTOUCHED if study.confirmed.empty else SELECTION]),
        ("Data", _data(meta.get("data", {}))),
        ("Models", [_model(role, model) for role, model in meta.get("models", {}).items()]),
        (
            "Objectives",
            [_objective(c, d) for c, d in study.objectives.items()]
            + _constraint(meta)
            + _sentence(meta.get("counts_over")),
        ),
        ("Search space", [_domain(name, domain) for name, domain in meta["space"].items()]),
        ("Budget and settings", _settings(meta.get("settings", {}))),
        ("Seeds", [f"study seed {meta.get('seed', 'not recorded')}"] + _seeds(study)),
        ("Versions", [f"{name} {version}" for name, version in meta.get("versions", {}).items()]),
        ("Run", _run(meta)),
    ]
    return [(heading, lines) for heading, lines in sections if lines]


def title(study: Study) -> str:
    """What was studied, in one line."""
    meta = study.meta
    kinds = {
        "kd": "Knowledge distillation",
        "sws": "Soft weight-sharing",
        "magnitude": "Magnitude pruning",
        "kd_sws": "Distillation, then soft weight-sharing",
    }
    kind = kinds.get(meta["kind"], str(meta["kind"]))
    models = meta.get("models", {})
    names = {role: model.get("name", "?") for role, model in models.items()}
    if {"teacher", "student"} <= set(names):
        what = f"{names['teacher']} → {names['student']}"
    else:
        what = ", ".join(names.values())
    data = meta.get("data", {})
    return " · ".join(part for part in (kind, what, str(data.get("title") or data.get("name") or "")) if part)


def _data(data: dict[str, Any]) -> list[str]:
    if not data:
        return []
    shape = " × ".join(str(n) for n in data.get("shape", []))
    lines = [
        f"{data.get('title', data.get('name', ''))}, {len(data.get('classes', []))} classes, "
        f"inputs of {shape} (channels × height × width)"
    ]
    parts = [f"{data[part]:,} {part}" for part in ("train", "validation", "test") if isinstance(data.get(part), int)]
    if parts:
        lines.append(", ".join(parts) + f" images; stratified split with seed {data.get('split_seed', '?')}")
    return lines + _sentence(data.get("note"))


def _model(role: str, model: dict[str, Any]) -> str:
    options = ", ".join(f"{k} = {v}" for k, v in (model.get("options") or {}).items())
    count = model.get("parameters")
    return (
        f"{role}: {model.get('name', '?')}"
        + (f" ({options})" if options else "")
        + (f", {count:,} parameters" if isinstance(count, int) else "")
    )


def _objective(column: str, direction: str) -> str:
    return f"{'maximise' if direction == 'max' else 'minimise'} {label(column)}"


def _constraint(meta: dict[str, Any]) -> list[str]:
    least = least_accuracy(meta)
    if least is None:
        return []
    return [
        f"subject to {COLUMNS['val_accuracy'].label} of at least {least:g} % (min_accuracy): the searcher was told "
        "so, and no trial below it is on the front"
    ]


def _domain(name: str, domain: dict[str, Any]) -> str:
    shown = f"{COLUMNS[name].label} ({name})" if name in COLUMNS else name
    if "low" not in domain:  # not of this harness, which searches numbers
        return f"{shown}: {domain.get('values', 'see study.json')}"
    scale = "log-uniform" if domain.get("log") else "uniform"
    whole = ", whole numbers" if domain.get("type") == "int" else ""
    return f"{shown}: {domain['low']:g} to {domain['high']:g}, {scale}{whole}"


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
    facts = (("", "command"), ("device: ", "device"), ("commit ", "git_commit"), ("begun ", "created"))
    return [f"{said}{meta[key]}" for said, key in facts if meta.get(key)] + [
        f"continued {run['created']}: {run['command']}{_otherwise(meta, run)}" for run in meta.get("continued", [])
    ]


def _otherwise(meta: dict[str, Any], run: dict[str, Any]) -> str:
    """In what a command that went on with a study differs from the one that began it."""
    had = meta.get("versions", {})
    differ = [f"{name} {v}" for name, v in run["versions"].items() if v != had.get(name)]
    differ += [f"commit {run['git_commit']}"] if run["git_commit"] != meta.get("git_commit") else []
    differ += [f"on {run['device']}"] if run["device"] != meta.get("device") else []
    return f" ({', '.join(differ)})" if differ else ""


def _sentence(text: Any) -> list[str]:
    return [str(text)] if text else []
