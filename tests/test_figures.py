"""What the figures show is what the study's tables say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import synthetic

from analysis import curves, figures, theme
from analysis.front import finished, pareto_front
from analysis.published import published
from analysis.statistics import confirmed_means, standard_error
from analysis.summary import choose, summarise
from study.results import Study, load


@pytest.fixture(scope="module")
def sws(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load(synthetic.write_sws(tmp_path_factory.mktemp("sws")))


@pytest.fixture(scope="module")
def kd(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load(synthetic.write_kd(tmp_path_factory.mktemp("kd")))


def trace(drawn: go.Figure, name: str) -> go.Scatter:
    return next(t for t in drawn.data if t.name == name)


def test_front_line_is_the_pareto_front(sws: Study) -> None:
    """The line of the main figure runs through exactly the trials that no complete trial dominates."""
    line = trace(figures.accuracy_vs_size(sws), "Pareto front")
    assert set(line.customdata) == set(pareto_front(finished(sws.trials), sws.objectives)["trial_id"])
    assert list(line.x) == sorted(line.x, reverse=True)


def test_marks_stand_at_their_trials_scores(sws: Study) -> None:
    """Every complete trial is drawn once, at its accuracy and at the share of weights that it keeps."""
    marks = trace(figures.accuracy_vs_size(sws), "trial")
    rows = finished(sws.trials).set_index("trial_id").loc[list(marks.customdata)]
    assert len(marks.x) == len(finished(sws.trials))
    assert np.allclose(marks.x, 100 - rows["sparsity"]) and np.allclose(marks.y, rows["val_accuracy"])


def test_sparsity_axis_is_labelled_with_sparsity(sws: Study) -> None:
    """The axis is logarithmic in the remaining weights and runs backwards; each label plus its place makes 100."""
    axis = figures.accuracy_vs_size(sws).layout.xaxis
    assert axis.type == "log" and axis.range[0] > axis.range[1]
    assert all(float(text) + at == pytest.approx(100) for text, at in zip(axis.ticktext, axis.tickvals, strict=True))


def test_only_the_papers_network_and_data_get_published_points(sws: Study, kd: Study) -> None:
    """LeNet-300-100 and LeNet-5 on MNIST have published points, in percent and with a definition; others have none."""
    points = published(sws.meta)
    assert len(points) == 4 and points["definition"].str.len().gt(20).all() and points["source"].str.len().gt(5).all()
    ours = points.set_index("method").loc["Soft weight-sharing (paper)"]
    assert (ours["sparsity"], ours["test_accuracy"], ours["rate"]) == (pytest.approx(95.7), pytest.approx(98.06), 64)
    assert len(published({**sws.meta, "models": {"network": {"name": "lenet5"}}})) == 4
    assert published({**sws.meta, "data": {"name": "fashion_mnist"}}).empty
    assert published(kd.meta).empty and published({}).empty


def test_baselines_are_level_lines(kd: Study) -> None:
    """In KD's slices every complete baseline is a horizontal line at its validation accuracy."""
    drawn = figures.slice_of(kd, "temperature", "val_accuracy", colour="alpha")
    levels = {shape.y0 for shape in drawn.layout.shapes if shape.type == "line"}
    assert levels == set(kd.trials.loc[kd.trials["baseline"] != "", "val_accuracy"])
    assert drawn.layout.xaxis.type == "log"


def test_plane_colours_are_gains_over_the_student_alone(kd: Study) -> None:
    """The (temperature, alpha) plane is coloured by accuracy minus that of the student alone."""
    marks = trace(figures.accuracy_plane(kd), "complete")
    alone = kd.trials.loc[kd.trials["baseline"] == "student alone", "val_accuracy"].iloc[0]
    scores = kd.trials.set_index("trial_id").loc[list(marks.customdata), "val_accuracy"]
    assert np.allclose(marks.marker.color, scores - alone, atol=1e-4)


@pytest.mark.parametrize("hyperparameter", ["tau", "components", "pi_zero"])
def test_axes_follow_the_search_space(sws: Study, hyperparameter: str) -> None:
    """A hyperparameter that was searched on a log scale is drawn on one, π₀ on that of 1 − π₀."""
    drawn = figures.slice_of(sws, hyperparameter, "val_accuracy")
    assert drawn.layout.xaxis.type == (None if hyperparameter == "components" else "log")
    value = sws.trials.set_index("trial_id").loc[list(drawn.data[1].customdata), hyperparameter]
    assert np.allclose(drawn.data[1].x, 1 - value if hyperparameter == "pi_zero" else value)


def test_curves_are_history_and_are_capped(tmp_path: Path) -> None:
    """Drawn curves are the history's own rows, and a large study draws only a sample of them."""
    study = load(synthetic.write_kd(tmp_path, trials=300, epochs=6))
    drawn = curves.learning_curves(study)
    thin = [t for t in drawn.data if t.line.color == theme.GREY]
    assert len({owner for t in thin for owner in t.customdata}) == curves.MOST_CURVES
    best = next(t for t in drawn.data if str(t.name).startswith("trial "))
    rows = study.history[study.history["trial_id"] == best.customdata[0]]
    assert np.allclose(best.y, rows["val_accuracy"]) and list(best.x) == list(rows["epoch"])


def test_a_large_study_draws_a_sample_and_the_whole_front(tmp_path: Path) -> None:
    """Beyond the cap the marks are a sample, while every member of the front is still there."""
    study = load(synthetic.write_sws(tmp_path, trials=3000, epochs=2))
    drawn = figures.accuracy_vs_size(study)
    assert len(trace(drawn, "trial").x) == figures.MOST_MARKS
    assert len(trace(drawn, "Pareto front").x) == len(pareto_front(finished(study.trials), study.objectives))


@pytest.mark.parametrize("kind", ["kd", "sws"])
@pytest.mark.parametrize("state", ["none", "failed", "running"])
def test_figures_of_studies_without_scores(tmp_path: Path, kind: str, state: str) -> None:
    """A study with no trial, or with failed or running ones only, still gives figures, empty ones."""
    synthetic.write_bare(tmp_path, kind, state)
    study = load(tmp_path)
    for drawn in ([figures.accuracy_vs_size(study)] if kind == "sws" else [figures.accuracy_plane(study)]):
        assert not [t for t in drawn.data if t.name == "complete" and t.x]
    for name in study.hyperparameters:
        figures.slice_of(study, name, "val_accuracy")
    curves.learning_curves(study)


def test_text_of_a_study_is_no_markup_in_a_figure(kd: Study) -> None:
    """Baselines' names and reasons reach Plotly, which renders a little HTML, only escaped."""
    trials = kd.trials.replace({"baseline": {"teacher": "<a href='x'>t</a>"}})
    trials.loc[trials["state"] == "failed", "reason"] = "<b>bold</b>"
    hostile = dataclasses.replace(kd, trials=trials)
    for drawn in (figures.accuracy_plane(hostile), curves.learning_curves(hostile),
                  figures.slice_of(hostile, "alpha", "val_accuracy", colour="temperature")):
        text = json.dumps(drawn.to_plotly_json(), default=list)
        assert "<a href" not in text and "<b>bold" not in text
    assert "&lt;b&gt;bold" in json.dumps(figures.accuracy_plane(hostile).to_plotly_json(), default=list)


def test_standard_error_by_hand() -> None:
    """Two successes and two failures are added: 98 of 100 becomes 100 of 104. Even 100 % is not certain."""
    assert standard_error(98.0, 100) == pytest.approx(100 * np.sqrt((100 / 104) * (4 / 104) / 104))
    assert standard_error(100.0, 360) > 0.3


def test_confirmed_seeds_are_averaged_and_the_gap_is_search_minus_test(kd: Study) -> None:
    """One row a configuration: the mean over its seeds, and what the search saw minus that mean."""
    confirmed = pd.DataFrame({"trial_id": ["b001", "b001"], "baseline": ["student alone"] * 2, "seed": [0, 1],
                              "test_accuracy": [93.0, 95.0]})
    row = confirmed_means(dataclasses.replace(kd, confirmed=confirmed)).iloc[0]
    assert (row["test_accuracy"], row["seeds"], row["test_low"], row["test_high"]) == (94.0, 2, 93.0, 95.0)
    assert row["gap"] == pytest.approx(94.1667 - 94.0) and row["test_spread"] == pytest.approx(np.sqrt(2))


def test_the_answer_is_the_sparsest_trial_within_one_standard_error() -> None:
    """Of a front, the sparsest trial at most one standard error below the reference is chosen, else the best one."""
    front = pd.DataFrame({"val_accuracy": [98.1, 97.9, 96.0], "sparsity": [80.0, 95.0, 99.0]})
    assert choose(front, level=98.2, error=0.4, size="sparsity")[0]["sparsity"] == 95.0  # type: ignore[index]
    assert choose(front, level=99.9, error=0.4, size="sparsity")[0]["sparsity"] == 80.0  # type: ignore[index]
    assert choose(front.iloc[:0], level=98.2, error=0.4, size="sparsity") == (None, "")


def test_a_focused_axis_keeps_what_must_be_seen() -> None:
    """One ruined trial does not flatten the others, and a kept value nearby is always inside."""
    low, high = theme.focus([97.0, 98.0], [98.0, 97.5, 97.0, 10.0]) or (0, 0)
    assert 90 < low < 97.0 and high > 98.0
    assert theme.focus([], []) is None


def test_summary_is_the_same_whatever_the_order_of_rows(sws: Study) -> None:
    """Shuffling trials.csv changes neither the front nor the answer."""
    shuffled = dataclasses.replace(sws, trials=sws.trials.sample(frac=1, random_state=1))
    first, second = summarise(sws), summarise(shuffled)
    assert first.best is not None and second.best is not None
    assert first.best["trial_id"] == second.best["trial_id"]
    assert list(first.front["trial_id"]) == list(second.front["trial_id"])
