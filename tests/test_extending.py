"""What a researcher adds is taken whole: a kind of study, a metric, a hyperparameter to search, an objective."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import synthetic

TESTS = Path(__file__).parent
METHODS = ("kd", "sws", "magnitude", "kd_sws", "ptq")


def run(module: str, *arguments: object, folder: Path = TESTS.parent, path: Path | None = None) -> Any:
    """A command in a process of its own, in a folder and with another one on Python's path."""
    environment = {**os.environ, "PYTHONPATH": str(path)} if path else None
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, env=environment)


@pytest.fixture(scope="module")
def rounding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of the method in `tests/extension`, which has a folder and a search space and touches nothing else."""
    results = tmp_path_factory.mktemp("results")
    flags = "--num-samples 3 --pretrain-epochs 1 --no-dashboard --confirm 1 --seeds 1 --results-dir".split()
    done = run("study.run", "rounding", *flags, results, path=TESTS / "extension")
    assert done.returncode == 0, done.stdout + done.stderr
    return results / "rounding-digits"


def test_a_folder_and_a_search_space_are_a_method(rounding: Path) -> None:
    """A method folder on the path runs from command to report: baselines, trials, files, tests, and its title."""
    trials = pd.read_csv(rounding / "trials.csv", keep_default_na=False)
    assert list(trials["baseline"]) == ["uncompressed", "16 bits", "", "", ""]
    assert set(trials["state"]) == {"complete"} and set(trials["bits"]) <= {"", "2", "4", "8", "16"}
    assert list((rounding / "models").glob("*.codebook"))
    page = (rounding / "report.html").read_text()
    assert "Rounding" in page and "rounding error" in page


def test_a_metric_that_no_column_declares_reaches_every_table(rounding: Path) -> None:
    """`rounding_error`, which only the method knows, is in history, trials and confirmed, and in the page's table."""
    for table in ("history.csv", "trials.csv", "confirmed.csv"):
        frame = pd.read_csv(rounding / table)
        assert frame["rounding_error"].notna().any(), table
    asked = run("analysis.query", rounding, "min rounding_error", "--json", "-")
    trials = pd.read_csv(rounding / "trials.csv")
    searched = trials[trials["baseline"].isna()]
    assert json.loads(asked.stdout)[0]["rounding_error"] == searched["rounding_error"].min()


def test_a_kind_that_analysis_does_not_know_gets_a_report(tmp_path: Path) -> None:
    """A study of a kind from elsewhere has a page with its front and an answer, and its own name as a title."""
    folder = synthetic.write_sws(tmp_path / "study", trials=20)
    meta = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps({**meta, "kind": "lottery"}))
    done = run("analysis.report", folder)
    assert done.returncode == 0, done.stderr
    page = (folder / "report.html").read_text()
    assert "lottery" in page and "Pareto front" in page


WORDS = {"augment": "flip", "precision": "float32", "optimizer": "sgd", "schedule": "step", "milestones": "0.5,0.75",
         "loss": "dist"}  # fmt: skip
"""A hyperparameter that is a word, and is not the name of a network → a word other than its default."""


def fields_of(method: str) -> dict[str, Any]:
    """The hyperparameters of a method with a value to search for each, other than the default."""
    from study.methods import registry

    hparams = registry.method(method).hparams
    hints = typing.get_type_hints(hparams)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(hparams):
        kind, default = hints[field.name], field.default
        if field.name in ("seed", "contiguous"):  # a study has one; confirmation has its own; the second is found
            continue
        if kind is bool:
            values[field.name] = not default
        elif kind is int:
            values[field.name] = 9 if default is dataclasses.MISSING else default + 2
        elif kind is float:
            values[field.name] = 0.5 if default is dataclasses.MISSING else default / 2 + 0.1
        else:
            values[field.name] = WORDS.get(field.name, "lenet5")
    return values


@pytest.mark.parametrize("method", METHODS)
def test_every_hyperparameter_can_be_searched(method: str) -> None:
    """Each field of a method's hyperparameters is taken from a trial's values, as a number or as a choice."""
    from ray import tune

    from study.methods import registry
    from study.methods.method import hparams_from
    from study.settings import resolve
    from study.tuning.space import SearchSpace

    settings, hparams = resolve(registry.default_settings(method)), registry.method(method).hparams
    space = SearchSpace.load(method)
    base = {name: domain.middle() for name, domain in space.domains.items()}
    for name, value in fields_of(method).items():
        searched = SearchSpace.of(method, {name: tune.choice([value])}, space.objectives, space.baselines)
        searched.check(registry.method(method))
        assert getattr(hparams_from(hparams, settings, {**base, name: value}), name) == value, name
        if isinstance(value, int | float) and not isinstance(value, bool):
            domain = SearchSpace.of(method, {name: tune.uniform(0.0, 10.0)}, space.objectives, space.baselines)
            assert domain.cast(name, str(value)) == float(value)


def search_space(folder: Path, method: str, space: str, objectives: str = '{"val_accuracy": "max"}') -> Path:
    """A folder with another search space of a method, found first by what runs there."""
    (folder / "search_spaces").mkdir(parents=True)
    (folder / "search_spaces" / "__init__.py").write_text("")
    text = f"from ray import tune\n\nSPACE = {space}\nOBJECTIVES = {objectives}\nBASELINES = {{}}\n"
    (folder / "search_spaces" / f"{method}.py").write_text(text)
    return folder


@pytest.mark.slow
def test_flags_are_searched_by_a_study(tmp_path: Path) -> None:
    """A rate, a number that is a flag today, and a choice among words are searched: trials differ by them and end."""
    space = '{"temperature": tune.uniform(1.0, 9.0), "alpha": tune.choice([0.5, 0.9]), ' \
            '"learning_rate": tune.loguniform(1e-3, 1e-2), "augment": tune.choice(["none", "flip"])}'  # fmt: skip
    folder = search_space(tmp_path / "folder", "kd", space)
    small = "--teacher-epochs 1 --epochs 2 --student-width 0.125 --teacher vgg11 --teacher-width 0.125 --no-dashboard"
    flags = [*small.split(), "--scheduler", "none", "--results-dir", tmp_path]
    done = run("study.run", "kd", *flags, "--num-samples", 3, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = pd.read_csv(tmp_path / "kd-digits" / "trials.csv")
    searched = trials[trials["baseline"].isna()]
    assert set(searched["state"]) == {"complete"}, searched["reason"].tolist()
    assert searched["learning_rate"].nunique() == 3 and set(searched["augment"]) <= {"none", "flip"}
    again = run("study.run", "kd", *flags, "--num-samples", 4, folder=folder)
    assert again.returncode == 0, again.stdout + again.stderr
    reproduced = run("study.reproduce", tmp_path / "kd-digits", "t002", folder=folder)
    assert reproduced.returncode == 0, reproduced.stdout + reproduced.stderr


def test_a_misspelt_name_is_refused_before_ray_starts(tmp_path: Path) -> None:
    """One line with the name, what was probably meant and the file, status 2, and nothing on disk."""
    folder = search_space(tmp_path / "folder", "sws", '{"tua": tune.uniform(0.0, 1.0)}')
    done = run("study.run", "sws", "--variant", "soft", "--results-dir", tmp_path / "results", folder=folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "tua" in done.stderr and "did you mean tau" in done.stderr and "search_spaces/sws.py" in done.stderr
    assert not (tmp_path / "results").exists() or not list((tmp_path / "results").iterdir())


@pytest.mark.slow
def test_a_time_can_be_an_objective(tmp_path: Path) -> None:
    """Accuracy against `latency_ms` has a front, an axis, a rule for halving, and a true first sentence."""
    import plotly.graph_objects as go

    from analysis.page.study_page import page_of
    from analysis.text.headline import headline
    from study.records.study_folder import load
    from study.tuning.scheduler import measured_objectives

    folder = synthetic.write_sws(tmp_path / "study", trials=20)
    trials = pd.read_csv(folder / "trials.csv")
    trials["latency_ms"] = 0.2 + (100 - trials["sparsity"]) / 50
    trials.drop(columns="sparsity").to_csv(folder / "trials.csv", index=False)
    meta = json.loads((folder / "study.json").read_text())
    objectives = {"val_accuracy": "max", "latency_ms": "min"}
    (folder / "study.json").write_text(json.dumps({**meta, "objectives": objectives}))
    page = page_of(load(folder))
    assert page.main is not None
    figure: go.Figure = page.main.figure
    assert "latency (ms)" in figure.layout.xaxis.title.text and any(t.name == "Pareto front" for t in figure.data)
    said = headline(page.summary).sentence
    assert "student" not in said and "ms" in said and "test accuracy" in said
    assert measured_objectives(objectives) == {"val_accuracy": "max"}  # no epoch knows the time
