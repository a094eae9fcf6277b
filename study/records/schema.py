"""What `study.json` holds, and how that of an older version of the harness is read.

Schema 2 states what a reader must know of a kind of study, so that no reader knows kinds by name:

    kind, title        name of the method, and what it is called for people
    subject            what a trial yields, in a sentence: "the distilled student"
    reference          name of the baseline that trials are measured against; "" for none
    shared_baseline    name of the baseline that is the work shared by all trials: the teacher, the uncompressed network
    replaced           names of baselines that are to be replaced, and so do not rival a trial: a teacher
    dense              baseline, or "" for every searched trial → role in `models` of the float32 network that it leaves
    headings           column → its heading, where it means something else than in other kinds of study
    columns            column → label, unit, digits, scale and direction, of all that is searched or is an objective

Schema 1 had none of them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from study.records.columns import column

SCHEMA = 2
READABLE = (1, 2)

Meta = dict[str, Any]
"""`study.json` as it stands, in the newest schema."""

_KD_SWS_HEADINGS = {
    "compression_ratio": "compression ratio against its own uncompressed student (file bytes, ×)",
    "accuracy_drop": "accuracy below the teacher's (points)",
}
_COMPRESSING: Meta = {
    "subject": "the compressed network",
    "reference": "uncompressed",
    "shared_baseline": "uncompressed",
    "replaced": [],
    "dense": {"uncompressed": "network"},
    "headings": {},
}
_SCHEMA_1: dict[str, Meta] = {
    "kd": {
        "title": "Knowledge distillation",
        "subject": "the distilled student",
        "reference": "student alone",
        "shared_baseline": "teacher",
        "replaced": ["teacher"],
        "dense": {"": "student", "student alone": "student", "label smoothing": "student", "teacher": "teacher"},
        "headings": {},
    },
    "sws": {"title": "Soft weight-sharing", **_COMPRESSING},
    "magnitude": {"title": "Magnitude pruning", **_COMPRESSING},
    "kd_sws": {
        "title": "Distillation, then soft weight-sharing",
        "subject": "the compressed student",
        "reference": "teacher",
        "shared_baseline": "teacher",
        "replaced": ["teacher"],
        "dense": {"teacher": "teacher"},
        "headings": _KD_SWS_HEADINGS,
    },
}
"""What schema 1 left to its readers. A kind that it never had is read with what follows from its tables alone."""
_UNKNOWN: Meta = {**_COMPRESSING, "subject": "the best trial", "reference": "", "shared_baseline": "", "dense": {}}


RENAMED = {"kept": "density", "codebook": "codebook_size", "components_used": "codebook_values_used"}
"""Columns of schema 1 that are called otherwise since."""


def upgrade(meta: Meta) -> Meta:
    """A `study.json` of any readable schema as one of the newest."""
    kind = str(meta.get("kind", ""))
    if meta.get("schema") == 1:
        meta = {**meta, **{part: _renamed(meta[part]) for part in ("space", "objectives") if part in meta}}
        if "baselines" in meta:
            meta["baselines"] = {name: _renamed(values) for name, values in meta["baselines"].items()}
    facts = {"title": kind, **_UNKNOWN, **_SCHEMA_1.get(kind, {})}
    columns = {name: column_as_json(name) for name in (*meta.get("space", {}), *meta.get("objectives", {}))}
    return {**facts, "columns": columns, **meta, "schema": SCHEMA}


def column_as_json(name: str) -> dict[str, str | int]:
    """A column's declaration as JSON values."""
    return dataclasses.asdict(column(name))


def _renamed(values: Meta) -> Meta:
    return {RENAMED.get(name, name): value for name, value in values.items()}
