"""An older `study.json` is read as one of the newest schema, and older tables under the columns' names of today."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from study.methods import registry
from study.records import paths
from study.records.schema import SCHEMA, upgrade
from study.records.study_folder import load, read_meta

SCHEMA_1: dict[str, dict[str, Any]] = {
    "kd": {
        "space": {"temperature": {"type": "float", "low": 1.0, "high": 20.0, "log": True},
                  "alpha": {"type": "float", "low": 0.0, "high": 1.0, "log": False}},
        "objectives": {"val_accuracy": "max"},
        "baselines": {"student alone": {"alpha": 0.0}, "label smoothing": {"alpha": 0.0, "label_smoothing": 0.1}},
        "models": {"teacher": {"name": "vgg13", "options": {"width": 0.25}, "parameters": 589_000},
                   "student": {"name": "minivgg", "options": {"width": 0.25}, "parameters": 18_000}},
    },
    "sws": {
        "space": {"tau": {"type": "float", "low": 3e-3, "high": 0.3, "log": True},
                  "components": {"type": "int", "low": 4, "high": 64, "log": False}},
        "objectives": {"val_accuracy": "max", "sparsity": "max"},
        "baselines": {"paper mixture": {"tau": 0.08, "components": 17, "one_minus_pi_zero": 1e-3}},
        "models": {"network": {"name": "lenet_300_100", "options": {}, "parameters": 50_610}},
    },
    "magnitude": {
        "space": {"kept": {"type": "float", "low": 5e-3, "high": 0.2, "log": True},
                  "codebook": {"type": "int", "low": 4, "high": 64, "log": False}},
        "objectives": {"val_accuracy": "max", "file_bytes": "min"},
        "baselines": {"paper settings": {"kept": 0.08, "codebook": 64}, "8-bit quantisation": {"bits": 8}},
        "models": {"network": {"name": "lenet_300_100", "options": {}, "parameters": 50_610}},
    },
    "kd_sws": {
        "space": {"student_width": {"type": "float", "low": 0.125, "high": 1.0, "log": True}},
        "objectives": {"val_accuracy": "max", "file_bytes": "min"},
        "baselines": {"without the teacher": {"alpha": 0.0, "tau": 0.03}},
        "models": {"teacher": {"name": "vgg13", "options": {"width": 0.25}, "parameters": 589_000}},
    },
}  # fmt: skip
"""What is at least there of each kind, as version 1 had it."""


def written(folder: Path, kind: str) -> Path:
    """A study folder as schema 1 had it."""
    meta = {"schema": 1, "kind": kind, "name": f"{kind}-digits", "settings": {"seed": 0}, "seed": 0, **SCHEMA_1[kind]}
    (folder / paths.STUDY).write_text(json.dumps(meta))
    return folder


@pytest.mark.parametrize(
    ("kind", "title", "subject", "reference", "shared", "replaced", "dense"),
    [
        ("kd", "Knowledge distillation", "the distilled student", "student alone", "teacher", ["teacher"],
         {"": "student", "student alone": "student", "label smoothing": "student", "teacher": "teacher"}),
        ("sws", "Soft weight-sharing", "the compressed network", "uncompressed", "uncompressed", [],
         {"uncompressed": "network"}),
        ("magnitude", "Magnitude pruning", "the compressed network", "uncompressed", "uncompressed", [],
         {"uncompressed": "network"}),
        ("kd_sws", "Distillation, then soft weight-sharing", "the compressed student", "teacher", "teacher",
         ["teacher"], {"teacher": "teacher"}),
    ],
)  # fmt: skip
def test_schema_1_is_read_with_what_its_readers_knew(
    kind: str, title: str, subject: str, reference: str, shared: str, replaced: list[str], dense: dict[str, str],
    tmp_path: Path,
) -> None:  # fmt: skip
    """Title, subject, reference row, shared work, replaced baselines and dense networks of each kind are there."""
    meta = read_meta(written(tmp_path, kind))
    assert (meta["title"], meta["subject"], meta["reference"]) == (title, subject, reference)
    assert (meta["shared_baseline"], meta["replaced"], meta["dense"]) == (shared, replaced, dense)
    assert meta["schema"] == SCHEMA and meta["kind"] == kind and meta["models"] == SCHEMA_1[kind]["models"]
    assert bool(meta["headings"]) == (kind == "kd_sws")
    assert meta["columns"].keys() == {*meta["space"], *meta["objectives"]}
    assert meta["columns"]["val_accuracy"]["unit"] == "%"


@pytest.mark.parametrize("kind", SCHEMA_1)
def test_schema_1_says_what_a_new_study_states(kind: str, tmp_path: Path) -> None:
    """An older study and a new one of the same kind have the same facts, but for those that the older did not have."""
    meta = read_meta(written(tmp_path, kind))
    facts = registry.method(kind).facts(registry.default_settings(kind))
    assert {name: meta[name] for name in facts if name != "counts_over"} == {
        name: fact for name, fact in facts.items() if name != "counts_over"
    }


def test_older_columns_have_their_new_names(tmp_path: Path) -> None:
    """`kept`, `codebook` and `components_used` are density, codebook_size and codebook_values_used: in the space, in
    the baselines and in every table; values stay, and so does a column of another name."""
    folder = written(tmp_path, "magnitude")
    head = "trial_id,state,reason,baseline,kept,codebook,val_accuracy,components_used,mine,seconds,epochs"
    row = "t001,complete,,,0.05,16,95.5,12,7,1.0,2"
    (folder / paths.TRIALS).write_text(f"{head}\n{row}\n")
    (folder / paths.HISTORY).write_text("trial_id,epoch,phase,components_used\nt001,1,prune,13\n")
    (folder / paths.CONFIRMED).write_text(
        "trial_id,baseline,seed,kept,codebook,test_accuracy,components_used\nt001,,0,0.05,16,94.0,12\n"
    )
    study = load(folder)
    (trial,) = study.trials.to_dict("records")
    assert (trial["density"], trial["codebook_size"], trial["codebook_values_used"], trial["mine"]) == (0.05, 16, 12, 7)
    assert study.history["codebook_values_used"].tolist() == [13]
    (tested,) = study.confirmed.to_dict("records")
    assert (tested["density"], tested["codebook_size"], tested["codebook_values_used"]) == (0.05, 16, 12)
    for table in (study.trials, study.history, study.confirmed):
        assert not {"kept", "codebook", "components_used"} & set(table.columns)
    assert study.hyperparameters == ["density", "codebook_size"]
    assert study.meta["baselines"] == {
        "paper settings": {"density": 0.08, "codebook_size": 64}, "8-bit quantisation": {"bits": 8}
    }  # fmt: skip


def test_a_kind_that_there_never_was_is_read_by_its_tables() -> None:
    """It is called by its own name, and has no reference row."""
    meta = upgrade({"schema": 1, "kind": "lottery", "space": {}, "objectives": {"latency_ms": "min"}})
    assert (meta["title"], meta["reference"], meta["dense"], meta["shared_baseline"]) == ("lottery", "", {}, "")
    declared = {"label": "latency", "unit": "ms", "digits": 3, "scale": "log", "direction": "min", "stands_in": ""}
    assert declared.items() <= meta["columns"]["latency_ms"].items()


def test_what_a_study_states_itself_wins() -> None:
    """In schema 2 nothing is replaced by what this version knows of a kind."""
    stated = {"schema": 2, "kind": "sws", "title": "Mine", "reference": "other", "dense": {"other": "network"},
              "columns": {"tau": {"label": "τ"}}, "space": {"kept": {}}, "objectives": {}}  # fmt: skip
    assert {**upgrade(stated), **stated} == upgrade(stated)
