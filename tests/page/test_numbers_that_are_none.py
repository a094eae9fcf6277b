"""A report is built whatever numbers a study's files have: what is none is left out, and captions say how many."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from analysis.figures.report_figure import ReportFigure
from analysis.page import comparison_page, study_page
from analysis.stats.summary import summarise
from study.records.study_folder import Study, load

BAD = [np.nan, np.inf, -np.inf, 1e308, -1e308]


@pytest.fixture(scope="module")
def sws(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load(synthetic.write_sws(tmp_path_factory.mktemp("sws"), trials=12, epochs=6, fresh=2))


@pytest.fixture(scope="module")
def kd(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load(synthetic.write_kd(tmp_path_factory.mktemp("kd"), trials=12, epochs=3, fresh=2))


def spoiled(frame: pd.DataFrame, column: str, every: int) -> pd.DataFrame:
    """Every so many cells of a column are no usable numbers, one kind after another; accuracies, of which the reader of
    the folder refuses others, are missing or not a number."""
    bad = BAD[:1] if "accuracy" in column else BAD
    values = frame[column].astype(float).to_numpy(copy=True)
    values[::every] = np.resize(bad, len(values[::every]))
    return frame.assign(**{column: values})


def page_of(study: Study) -> study_page.Page:
    """The page; none of its figures is replaced by a sentence that it could not be drawn."""
    page = study_page.page_of(study)
    assert not [group.lead for group in page.groups if "damaged" in group.lead]
    return page


def figures_of(study: Study) -> dict[str, ReportFigure]:
    return {figure.id: figure for figure in page_of(study).figures}


@pytest.mark.parametrize("table", ["trials", "history", "confirmed"])
@pytest.mark.parametrize("kind", ["kd", "sws"])
def test_any_column_may_hold_no_numbers(request: pytest.FixtureRequest, kind: str, table: str) -> None:
    """Some cells of all columns of a table at once, and then all cells: the page is built, valid JSON without NaN, and
    every figure of it is drawn."""
    study = request.getfixturevalue(kind)
    for every in (3, 1):
        frame = getattr(study, table)
        for column in frame.select_dtypes("number").columns:
            if column not in ("seed", "epoch"):
                frame = spoiled(frame, column, every)
        changed = dataclasses.replace(study, **{table: frame})
        html = study_page.rendered(page_of(changed))
        data = html.split('<script type="application/json" id="data">')[1].split("</script>")[0]
        json.loads(data, parse_constant=lambda name: pytest.fail(name))
    comparison_page.build([study, dataclasses.replace(study, folder=Path("other"), **{table: frame})])


def test_captions_count_what_is_left_out(sws: Study) -> None:
    """Figures say that two trials have no sparsity, and three epochs no accuracy."""
    trials, history = sws.trials.copy(), sws.history.copy()
    done = trials.index[(trials["state"] == "complete") & (trials["baseline"] == "")]
    trials.loc[done[:2], "sparsity"] = [np.inf, np.nan]
    history.loc[history.index[:3], "val_accuracy"] = np.nan
    figures = figures_of(dataclasses.replace(sws, trials=trials, history=history))
    assert "2 trials have no finite accuracy or sparsity and are not drawn." in figures["main"].caption
    assert "2 complete trials have no finite prior weight τ or sparsity" in figures["slice-1-0"].caption
    assert "3 epochs have no finite validation accuracy and are not drawn." in figures["curves"].caption
    assert "not drawn" not in "".join(figure.caption for figure in figures_of(sws).values())


def spoil_trace(path: Path, **changes: Any) -> None:
    """Set the first of all numbers of some arrays of a trace."""
    with np.load(path) as trace:
        arrays = dict(trace)
    for name, value in changes.items():
        array = np.asarray(arrays[name.replace("_", "/")], dtype=float)
        array.flat[0] = value
        arrays[name.replace("_", "/")] = array
    np.savez_compressed(path, **arrays)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["sample_2", "means_3", "sigmas_0", "counts_1"])
def test_a_trace_may_hold_no_numbers(tmp_path: Path, name: str, value: float) -> None:
    """A trace with a number that is none counts as damaged: the page is there, without its figures."""
    folder = synthetic.write_sws(tmp_path / "sws", trials=12, epochs=6)
    best = summarise(load(folder)).best
    assert best is not None
    trace = synthetic.write_trace(folder, str(best["trial_id"]))
    assert "joint" in figures_of(load(folder))
    spoil_trace(trace, **{name: value})
    assert "joint" not in figures_of(load(folder))
    study_page.build(load(folder))


def test_what_a_teacher_says_may_hold_no_numbers(tmp_path: Path) -> None:
    """The page is there without its figure."""
    folder = synthetic.write_kd(tmp_path / "kd", trials=12, epochs=6)
    knowledge = synthetic.write_knowledge(folder)
    assert "knowledge" in figures_of(load(folder))
    spoil_trace(knowledge, logits=np.nan)
    assert "knowledge" not in figures_of(load(folder))
