"""Figures know no kind of study and no metric: whatever is searched and measured is drawn as its column declares."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import synthetic

from analysis.figures import effects, fresh_seeds, interactions, pareto, plane, slices
from analysis.figures.axes import better_is_right, objective_axis, positions
from analysis.figures.report_figure import ReportFigure
from analysis.figures.slices import slice_of
from analysis.page import gallery, study_page
from analysis.stats.importance import TradeOffs
from analysis.stats.pareto_front import pareto_front
from analysis.stats.summary import summarise
from analysis.stats.targets import Target
from study.records.columns import Column, column
from study.records.study_folder import Study, load

CHOICES = {"type": "choice", "values": ["none", "flip", "<b>both</b>"]}


@pytest.fixture(scope="module")
def sws(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load(synthetic.write_sws(tmp_path_factory.mktemp("sws"), trials=40, epochs=6, fresh=2))


@pytest.fixture(scope="module")
def kd(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load(synthetic.write_kd(tmp_path_factory.mktemp("kd"), trials=40, epochs=6, fresh=2))


def changed(study: Study, trials: pd.DataFrame | None = None, **meta: Any) -> Study:
    return dataclasses.replace(study, meta={**study.meta, **meta}, trials=study.trials if trials is None else trials)


def with_cost(sws: Study, name: str, cost: Callable[[pd.DataFrame], pd.Series], direction: str = "min") -> Study:
    """The study with another second objective, which its tests measured too."""
    trials, confirmed = (
        rows.assign(**{name: cost(rows)}).drop(columns="sparsity") for rows in (sws.trials, sws.confirmed)
    )
    study = changed(sws, trials, objectives={"val_accuracy": "max", name: direction})
    return dataclasses.replace(study, confirmed=confirmed, history=sws.history.drop(columns="sparsity"))


def latency(rows: pd.DataFrame) -> pd.Series:
    return 0.2 + (100 - rows["sparsity"]) / 50


def figures_of(study: Study) -> dict[str, ReportFigure]:
    """Every figure of the study's page."""
    return {figure.id: figure for figure in study_page.page_of(study).figures}


def trace(figure: go.Figure, name: str) -> go.Scatter:
    return next(t for t in figure.data if t.name == name)


def test_a_time_is_drawn_as_its_column_says(sws: Study) -> None:
    """Accuracy against `latency_ms`: a logarithmic axis that runs backwards, with unit, through the front; the same in
    its slices, with their means, and over fresh seeds."""
    study = with_cost(sws, "latency_ms", latency)
    figures = figures_of(study)
    main = figures["main"]
    axis = main.figure.layout.xaxis
    assert axis.title.text == "latency (ms)" and axis.type == "log" and axis.range[0] > axis.range[1]
    front = pareto_front(study.trials[study.trials["baseline"] == ""].query("state == 'complete'"), study.objectives)
    line = trace(main.figure, "Pareto front")
    assert set(line.customdata) == set(front["trial_id"])
    assert list(line.x) == sorted(front["latency_ms"], reverse=True)
    assert "Up and to the right is better. The horizontal axis is logarithmic and runs backwards." in main.caption
    assert main.title == "Accuracy against latency." and "latency (ms)" in trace(main.figure, "trial").text[0]
    slices = figures["slice-1-0"].figure
    assert slices.layout.yaxis.title.text == "latency (ms)" and slices.layout.yaxis.type == "log"
    tested = figures["attainment"].figure
    assert tested.layout.xaxis.title.text == "latency (ms)" and len(trace(tested, "one seed").x) > 4


def test_a_metric_that_nobody_declared_has_a_plain_axis(sws: Study) -> None:
    """`rounding_error` is called by its name, stands on a linear axis, and the caption says which side is better."""
    study = with_cost(sws, "rounding_error", lambda rows: (100 - rows["sparsity"]) / 7)
    figures = figures_of(study)
    axis = figures["main"].figure.layout.xaxis
    assert axis.title.text == "rounding error" and axis.type is None
    assert figures["main"].caption.startswith("Up and to the left is better. The grey band")
    assert {"slice-0-0", "slice-1-0"} <= set(figures) and "rounding error" in figures["slice-1-0"].title.lower()


def test_columns_that_only_the_study_declares_are_used(sws: Study) -> None:
    """Label, unit and scale of a metric that this version of the harness does not know come from `study.json`."""
    declared = dataclasses.asdict(Column("energy", "mJ", 1, "log", "min"))
    study = with_cost(sws, "energy_mj", latency)
    study = changed(study, columns={**study.meta["columns"], "energy_mj": declared})
    drawing = pareto.accuracy_vs_cost(study)
    assert drawing.layout.xaxis.title.text == "energy (mJ)" and drawing.layout.xaxis.type == "log"


def test_better_is_to_the_right_on_every_scale() -> None:
    """A complement is drawn by its distance from 100 %, a logarithmic axis runs backwards for what is to be small."""
    share, size, ratio = column("sparsity"), column("file_bytes"), column("compression_ratio")
    assert positions(share, [90.0, 100.0]) == [10.0, 1e-3] and positions(size, [5.0]) == [5.0]
    for info, values in ((share, [90.0, 99.0]), (size, [5e3, 5e4]), (ratio, [2.0, 90.0])):
        low, high = objective_axis(info, values)["range"]
        assert (low > high) == (info is not ratio) and better_is_right(info)
    assert not better_is_right(Column("loss", direction="min")) and better_is_right(Column("score", direction="max"))


def test_a_network_below_a_millisecond_has_labels_of_its_own(sws: Study) -> None:
    """Small numbers are written out: no two labels of an axis are the same."""
    axis = objective_axis(column("latency_ms"), [0.02, 0.4])
    assert len(set(axis["ticktext"])) == len(axis["ticktext"]) >= 3 and "0.05" in axis["ticktext"]


def test_a_kind_from_elsewhere_with_one_objective(kd: Study) -> None:
    """Any two numbers that were searched get the plane of gains over the reference that the study names, and the words
    of it; the main figure is over the first, coloured by the second."""
    names = {"temperature": "sharpness", "alpha": "mix"}
    space = {names[name]: domain for name, domain in kd.meta["space"].items()}
    study = changed(kd, kd.trials.rename(columns=names), kind="lottery", title="Lottery tickets", space=space)
    figures = figures_of(study)
    assert figures["main"].title == "Validation accuracy against sharpness."
    assert figures["main"].figure.layout.xaxis.type == "log"
    gains = trace(figures["plane"].figure, "complete")
    assert gains.marker.colorbar.title.text == "gain over the student alone (points)"
    assert "lottery tickets" in figures["plane"].title
    assert "Sharpness and mix together" in figures["plane"].caption and "slice-mix" in figures


def test_the_second_hyperparameter_colours_the_main_figure(kd: Study) -> None:
    """Of three or more the figure is over the first and coloured by the second, as its caption says."""
    space = {"width": kd.meta["space"]["alpha"], **kd.meta["space"]}
    study = changed(kd, kd.trials.assign(width=np.linspace(0, 1, len(kd.trials))), space=space)
    main = slices.main_slice(summarise(study))
    assert main is not None and "against width" in main.title and "coloured by its temperature" in main.caption
    marks = next(t for t in main.figure.data if t.marker.colorbar.title.text)
    coloured = dict(zip(marks.customdata, marks.marker.color, strict=True))
    temperatures = kd.trials.set_index("trial_id")["temperature"][list(coloured)]
    assert pd.Series(coloured).rank().tolist() == temperatures.rank().tolist()


@pytest.mark.parametrize("left", [["temperature"], []])
def test_a_study_of_one_hyperparameter_or_none(kd: Study, left: list[str]) -> None:
    """One hyperparameter gives its slice, none gives no main figure; neither gives a plane."""
    study = changed(kd, space={name: kd.meta["space"][name] for name in left})
    figures = figures_of(study)
    assert ("main" in figures) == bool(left) and "plane" not in figures and "curves" in figures
    if left:
        assert figures["main"].caption.startswith("Each mark is a trial; lines are the baselines.")


def chosen(study: Study) -> Study:
    """The study with a choice among words, a truth value and a stepped number next to what it searched."""
    trials = study.trials
    of_trial = (trials["baseline"] == "").to_numpy()
    numbers = np.arange(len(trials))
    words = [CHOICES["values"][i % 3] if there else np.nan for i, there in zip(numbers, of_trial, strict=True)]
    truth = pd.Series(
        [i % 2 == 0 if there else np.nan for i, there in zip(numbers, of_trial, strict=True)], dtype=object
    )
    steps = np.where(of_trial, 8.0 * (1 + numbers % 4), np.nan)
    space = {
        "augment": CHOICES,
        "nesterov": {"type": "choice", "values": [False, True]},
        **study.meta["space"],
        "width": {"type": "int", "low": 8, "high": 32, "step": 8, "log": False},
    }
    return changed(study, trials.assign(augment=words, nesterov=truth.to_numpy(), width=steps), space=space)


def test_choices_are_categories(kd: Study) -> None:
    """A choice has an axis with a place for each value in the order of the search space, and a colour by its place;
    truth values read as such, whatever the table made of them; text is no markup."""
    study = chosen(kd)
    figures = figures_of(study)
    axis = figures["main"].figure.layout.xaxis
    assert axis.type == "category" and list(axis.categoryarray) == ["none", "flip", "&lt;b&gt;both&lt;/b&gt;"]
    marks = figures["main"].figure.data[1]
    rows = study.trials.set_index("trial_id").loc[list(marks.customdata)]
    assert [text.replace("&lt;", "<").replace("&gt;", ">") for text in marks.x] == list(rows["augment"])
    assert list(marks.marker.color) == [int(value) for value in rows["nesterov"]]
    assert list(marks.marker.colorbar.ticktext) == ["False", "True"]
    assert "nesterov: True" in " ".join(marks.text) and "nesterov: 1" not in " ".join(marks.text)
    assert list(figures["slice-nesterov"].figure.layout.xaxis.categoryarray) == ["False", "True"]
    assert {"slice-temperature", "slice-alpha", "slice-width", "plane"} <= set(figures)
    pair = plane.plane_names(summarise(study))
    assert pair == ("temperature", "alpha")  # the plane is of numbers
    assert "<b>both" not in json.dumps([f.figure.to_plotly_json() for f in figures.values()], default=list)


def test_choices_have_slices_for_every_objective(sws: Study) -> None:
    """A study with a cost draws each objective over a choice, with the front told apart."""
    figures = figures_of(chosen(sws))
    for name in ("slice-0-0", "slice-1-0"):
        drawing = figures[name].figure
        assert drawing.layout.xaxis.type == "category"
        assert set(trace(drawing, "on the front").x) <= set(drawing.layout.xaxis.categoryarray)


def test_a_value_that_was_not_among_the_choices_costs_its_mark_alone(kd: Study) -> None:
    """A word that a hand mistyped has no place on the axis, and the others keep theirs."""
    study = chosen(kd)
    first = study.trials.index[(study.trials["baseline"] == "") & (study.trials["state"] == "complete")][0]
    trials = study.trials.copy()
    trials.loc[first, "augment"] = "flop"
    marks = slice_of(changed(study, trials), "augment", "val_accuracy", colour="augment").data[1]
    assert [x is None for x in marks.x] == [i == trials.loc[first, "trial_id"] for i in marks.customdata]


class ByChoice(TradeOffs):
    """Means over a choice as `TradeOffs` gives them: one row a value, and a surface with a column for each."""

    def effect(self, key: str, name: str, points: int = 41) -> pd.DataFrame:
        mean = np.array([80.0, 90.0, 95.0])
        return pd.DataFrame({"value": CHOICES["values"], "mean": mean, "low": mean - 1, "high": mean + 2})

    def interaction(self, key: str, points: int = 25) -> dict[str, Any]:
        surface = np.arange(6.0).reshape(2, 3)
        ends = {"share": 0.2, "low": 0.1, "high": 0.3}
        return {"names": ("augment", "tau"), "x": CHOICES["values"], "y": [0.01, 0.1], "surface": surface, **ends}


def test_means_over_a_choice_stand_at_its_values(sws: Study) -> None:
    """The mean of an objective over a choice is one mark a value, without a line between them; a plane of a choice has
    its values as labels, and the trials at their places."""
    study = chosen(sws)
    s = summarise(study)
    target = Target("sparsity", "Sparsity", "max", s.searched["sparsity"])
    t = ByChoice(s, ["augment", "tau"], s.searched, {"sparsity": target}, {}, {}, [])
    marks = trace(effects.effect(t, "sparsity", "augment"), "mean")
    assert list(marks.x) == ["none", "flip", "&lt;b&gt;both&lt;/b&gt;"] and marks.mode == "markers"
    assert list(marks.y) == [80.0, 90.0, 95.0] and marks.text[1].startswith("flip: 90.00, 95 % interval 89.00 to")
    drawing = slice_of(study, "augment", "sparsity")
    assert "Each horizontal mark is the mean" in effects.overlay(drawing, t, "sparsity", "augment")
    over = trace(drawing, "mean")
    assert list(over.y) == [20.0, 10.0, 5.0]
    assert list(over.error_y.array) == [1.0, 1.0, 1.0] and list(over.error_y.arrayminus) == [2.0, 2.0, 2.0]
    plane_of_both = interactions.interaction(t, "sparsity")
    assert list(plane_of_both.layout.xaxis.ticktext) == list(marks.x) and list(plane_of_both.data[0].x) == [0, 1, 2]
    assert set(trace(plane_of_both, "trial").x) == {0, 1, 2} and list(plane_of_both.layout.xaxis.range) == [-0.5, 2.5]
    assert plane_of_both.data[0].type == "heatmap"  # stripes: nothing lies between two values of a choice


def test_three_objectives_have_a_front_without_a_line(sws: Study) -> None:
    """With a third objective the members of the front are marks: a line through them would show no trade-off."""
    study = changed(
        sws,
        sws.trials.assign(latency_ms=np.linspace(1, 2, len(sws.trials))),
        objectives={**sws.objectives, "latency_ms": "min"},
    )
    figures = figures_of(study)
    assert trace(figures["main"].figure, "Pareto front").mode == "markers" and "slice-2-0" in figures


def test_words_and_drawing_follow_from_the_same_data(sws: Study) -> None:
    """The accuracy range that the caption counts by is the one that is drawn."""
    s = summarise(sws)
    data = pareto.front_data(s)
    assert list(pareto.draw_front(data).layout.yaxis.range) == data.accuracies
    differences = fresh_seeds.difference_data(s)
    assert list(fresh_seeds.draw_differences(differences).layout.xaxis.range) == differences.window
    attained = fresh_seeds.attainment_data(s)
    assert list(fresh_seeds.draw_attainment(attained).layout.yaxis.range) == attained.window
    assert gallery.main_figure(s) is not None
