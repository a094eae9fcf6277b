"""What the figures show is what the study's tables say."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest
import synthetic

from analysis.figures import comparison, fresh_seeds, pareto, plane, provisional, theme, trial_marks
from analysis.figures.axes import complement_axis, focus, log_axis, number_label
from analysis.figures.learning_curves import MOST_CURVES, learning_curve_figures, learning_curves
from analysis.figures.slices import slice_of
from analysis.page import gallery
from analysis.stats.held_out_results import fresh_seed_rows, mean_over_seeds, paired, search_test_rows
from analysis.stats.pareto_front import finished, pareto_front
from analysis.stats.published import RESULTS, published
from analysis.stats.standard_error import standard_error
from analysis.stats.summary import choose, summarise
from study.records.study_folder import Study, load

TAG = "<b onmouseover='window.hacked=1'><script>window.hacked=1</script>"


@pytest.fixture(scope="module")
def sws(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load(synthetic.write_sws(tmp_path_factory.mktemp("sws")))


@pytest.fixture(scope="module")
def kd(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load(synthetic.write_kd(tmp_path_factory.mktemp("kd")))


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return load(synthetic.write_sws(tmp_path_factory.mktemp("confirmed"), fresh=5))


def trace(drawn: go.Figure, name: str) -> go.Scatter:
    return next(t for t in drawn.data if t.name == name)


def test_front_line_is_the_pareto_front(sws: Study) -> None:
    """The line of the main figure runs through exactly the trials that no complete trial dominates."""
    line = trace(pareto.accuracy_vs_cost(sws), "Pareto front")
    assert set(line.customdata) == set(pareto_front(finished(sws.trials), sws.objectives)["trial_id"])
    assert list(line.x) == sorted(line.x, reverse=True)


def test_marks_stand_at_their_trials_scores(sws: Study) -> None:
    """Every complete trial is drawn once, at its accuracy and at the share of weights that it keeps."""
    marks = trace(pareto.accuracy_vs_cost(sws), "trial")
    rows = finished(sws.trials).set_index("trial_id").loc[list(marks.customdata)]
    assert len(marks.x) == len(finished(sws.trials))
    assert np.allclose(marks.x, 100 - rows["sparsity"]) and np.allclose(marks.y, rows["val_accuracy"])


def test_sparsity_axis_is_labelled_with_sparsity(sws: Study) -> None:
    """The axis is logarithmic in the remaining weights and runs backwards; each label plus its place makes 100."""
    axis = pareto.accuracy_vs_cost(sws).layout.xaxis
    assert axis.type == "log" and axis.range[0] > axis.range[1]
    assert all(float(text) + at == pytest.approx(100) for text, at in zip(axis.ticktext, axis.tickvals, strict=True))


def test_a_network_of_zeros_has_a_place_in_every_figure(tmp_path: Path) -> None:
    """Sparsity of exactly 100 %, of which nothing is left to take the logarithm of, stands inside every axis."""
    study = load(synthetic.write_sws(tmp_path, epochs=6, fresh=2))
    done, confirmed = finished(study.trials).index, study.confirmed
    trials = study.trials.assign(sparsity=study.trials["sparsity"].where(study.trials.index != done[3], 100.0))
    history = study.history.assign(phase="cluster")
    last = (history["trial_id"] == trials["trial_id"][done[3]]) & (history["epoch"] > 2)
    tested = confirmed.assign(sparsity=confirmed["sparsity"].where(confirmed.index != len(confirmed) - 1, 100.0))
    full = dataclasses.replace(
        study, trials=trials, history=history.assign(sparsity=history["sparsity"].mask(last, 100.0)), confirmed=tested
    )
    main, early = pareto.accuracy_vs_cost(full), provisional.provisional_sparsity(full)
    slices = [slice_of(full, name, "sparsity") for name in ("tau", "one_minus_pi_zero")]
    seeds = fresh_seeds.attainment_surfaces(full)
    for drawn, side in ((main, "x"), (seeds, "x"), (early, "x"), (early, "y"), *((d, "y") for d in slices)):
        axis = drawn.layout[f"{side}axis"]
        places = [v for t in drawn.data for v in (t[side] or ()) if v is not None]
        assert min(places) == pytest.approx(1e-3) and axis.range[1] < -3 and "99.999" in axis.ticktext


def test_only_the_papers_network_and_data_get_published_points(sws: Study, kd: Study) -> None:
    """LeNet-300-100 and LeNet-5 on MNIST have published points, in percent and with a definition; others have none."""
    points = published(sws.meta)
    assert len(points) == 5 and points["definition"].str.len().gt(20).all() and points["source"].str.len().gt(5).all()
    ours = points.set_index("method").loc["Soft weight-sharing (paper)"]
    assert (ours["sparsity"], ours["test_accuracy"], ours["rate"]) == (pytest.approx(95.7), pytest.approx(98.06), 64)
    assert len(published({**sws.meta, "models": {"network": {"name": "lenet5"}}})) == 7
    assert published({**sws.meta, "data": {"name": "fashion_mnist"}}).empty
    assert published(kd.meta).empty and published({}).empty


def test_published_bytes_stand_next_to_bytes_alone(tmp_path: Path, sws: Study) -> None:
    """On an axis of bytes, and of the ratio of bytes, are the published results that were counted in bytes; on one of
    sparsity those that state it. A rate by a formula is on no axis of bytes, and the caption says that there are
    such."""
    sized = load(synthetic.write_sized(tmp_path, "sws"))
    of_mnist = {"data": sws.meta["data"], "models": sws.meta["models"]}
    for cost, methods in {
        "file_bytes": {"Entropy-penalised reparameterisation"},
        "compression_ratio": {"Entropy-penalised reparameterisation"},
        "sparsity": {"Deep Compression", "Dynamic network surgery", "Soft weight-sharing (paper)",
                     "Sparse variational dropout"},
    }.items():  # fmt: skip
        direction = "min" if cost == "file_bytes" else "max"
        objectives = {"val_accuracy": "max", cost: direction}
        study = dataclasses.replace(sized, meta={**sized.meta, **of_mnist, "objectives": objectives})
        data = pareto.front_data(summarise(study))
        assert set(data.papers["method"]) == methods and data.papers[cost].notna().all()
        marks = trace(pareto.draw_front(data), pareto.PAPERS)
        assert len(marks.x) == len(methods) and all(np.isfinite(marks.x))
        sentence = f"{5 - len(methods)} other published result{'s' * (len(methods) < 4)} of this network report"
        assert sentence in pareto.front_figure(summarise(study)).caption


def test_a_published_rate_is_that_of_its_bytes() -> None:
    """Where a result has bytes, they are those of its network as float32 ÷ its rate, to within two hundredths."""
    weights = {"lenet_300_100": 266_610, "lenet5": 431_080, "VGG-16": 14_990_000, "ResNet-20-4": 4_290_000,
               "ResNet-50": 25_557_000}  # fmt: skip
    counted = [(name, r) for (_, name), results in RESULTS.items() for r in results if r.file_bytes]
    assert len(counted) == 7
    for name, result in counted:
        assert 4 * weights[name] / result.file_bytes == pytest.approx(result.rate, rel=0.02), result
        assert "bytes" in result.definition


def test_baselines_are_level_lines(kd: Study) -> None:
    """In KD's slices every complete baseline is a horizontal line at its validation accuracy."""
    drawn = slice_of(kd, "temperature", "val_accuracy", colour="alpha")
    levels = {shape.y0 for shape in drawn.layout.shapes if shape.type == "line"}
    assert levels == set(kd.trials.loc[kd.trials["baseline"] != "", "val_accuracy"])
    assert drawn.layout.xaxis.type == "log"


def test_plane_colours_are_gains_over_the_student_alone(kd: Study) -> None:
    """The (temperature, alpha) plane is coloured by accuracy minus that of the student alone."""
    marks = trace(plane.accuracy_plane(kd), "complete")
    alone = kd.trials.loc[kd.trials["baseline"] == "student alone", "val_accuracy"].iloc[0]
    scores = kd.trials.set_index("trial_id").loc[list(marks.customdata), "val_accuracy"]
    assert np.allclose(marks.marker.color, scores - alone, atol=1e-4)


@pytest.mark.parametrize("hyperparameter", ["tau", "components", "one_minus_pi_zero"])
def test_axes_follow_the_search_space(sws: Study, hyperparameter: str) -> None:
    """A hyperparameter that was searched on a log scale is drawn on one."""
    drawn = slice_of(sws, hyperparameter, "val_accuracy")
    assert drawn.layout.xaxis.type == (None if hyperparameter == "components" else "log")
    value = sws.trials.set_index("trial_id").loc[list(drawn.data[1].customdata), hyperparameter]
    assert np.allclose(drawn.data[1].x, value)


def test_curves_are_history_and_are_capped(tmp_path: Path) -> None:
    """Drawn curves are the history's own rows, and a large study draws only a sample of them."""
    study = load(synthetic.write_kd(tmp_path, trials=300, epochs=6))
    drawn = learning_curves(study)
    thin = [t for t in drawn.data if t.line.color == theme.GREY]
    assert len({owner for t in thin for owner in t.customdata}) == MOST_CURVES
    best = next(t for t in drawn.data if str(t.name).startswith("trial "))
    rows = study.history[study.history["trial_id"] == best.customdata[0]]
    assert np.allclose(best.y, rows["val_accuracy"]) and list(best.x) == list(rows["epoch"])


def test_curves_of_trials_are_counted_without_the_baselines(kd: Study) -> None:
    """All three baselines have a curve too, and a trial without any epoch has none."""
    searched = kd.trials.loc[kd.trials["baseline"] == "", "trial_id"]
    baselines = kd.trials.loc[kd.trials["baseline"] != "", "trial_id"]
    for count in (1, 12):
        history = kd.history[kd.history["trial_id"].isin([*baselines, *searched[:count]])]
        figure = learning_curve_figures(summarise(dataclasses.replace(kd, history=history)))[0]
        assert figure.caption.startswith(f"{count} trial{'s' * (count > 1)} thin and grey")


def test_a_large_study_draws_a_sample_and_the_whole_front(tmp_path: Path) -> None:
    """Beyond the cap the marks are a sample, while every member of the front is still there."""
    study = load(synthetic.write_sws(tmp_path, trials=3000, epochs=2))
    drawn = pareto.accuracy_vs_cost(study)
    assert len(trace(drawn, "trial").x) == trial_marks.MOST_MARKS
    assert len(trace(drawn, "Pareto front").x) == len(pareto_front(finished(study.trials), study.objectives))


@pytest.mark.parametrize("kind", ["kd", "sws"])
@pytest.mark.parametrize("state", ["none", "failed", "running"])
def test_figures_of_studies_without_scores(tmp_path: Path, kind: str, state: str) -> None:
    """A study with no trial, or with failed or running ones only, still gives figures, empty ones."""
    synthetic.write_bare(tmp_path, kind, state)
    study = load(tmp_path)
    for drawn in [pareto.accuracy_vs_cost(study)] if kind == "sws" else [plane.accuracy_plane(study)]:
        assert not [t for t in drawn.data if t.name == "complete" and t.x]
    for name in study.hyperparameters:
        slice_of(study, name, "val_accuracy")
    learning_curves(study)


def test_text_of_a_study_is_no_markup_in_a_figure(kd: Study) -> None:
    """Baselines' names and reasons reach Plotly, which renders a little HTML, only escaped."""
    trials = kd.trials.replace({"baseline": {"teacher": "<a href='x'>t</a>"}})
    trials.loc[trials["state"] == "failed", "reason"] = "<b>bold</b>"
    hostile = dataclasses.replace(kd, trials=trials)
    for drawn in (
        plane.accuracy_plane(hostile),
        learning_curves(hostile),
        slice_of(hostile, "alpha", "val_accuracy", colour="temperature"),
    ):
        text = json.dumps(drawn.to_plotly_json(), default=list)
        assert "<a href" not in text and "<b>bold" not in text
    rows = pd.DataFrame(
        {
            "trial_id": ["b000", "b001"] * 2,
            "baseline": ["<a href='x'>t</a>", "<b>bold</b>"] * 2,
            "seed": [1, 1, 2, 2],
            "test_accuracy": [95.0, 94.0, 95.5, 94.1],
        }
    )
    drawn = fresh_seeds.paired_differences(dataclasses.replace(hostile, confirmed=rows))
    assert drawn.data and not any(tag in json.dumps(drawn.to_plotly_json(), default=list) for tag in ("<a", "<b>bold"))
    assert "&lt;b&gt;bold" in json.dumps(plane.accuracy_plane(hostile).to_plotly_json(), default=list)


def test_quotes_reach_a_figure_as_they_are(kd: Study, tmp_path: Path) -> None:
    """Plotly does not decode &quot;, so no text of any figure has it: quotes are safe there, and brackets escaped."""
    trials = kd.trials.replace({"baseline": {"teacher": 'the "big" <one>'}})
    trials.loc[trials["state"] == "failed", "reason"] = 'no "cuda" & <b>'
    folder = synthetic.rename(synthetic.write_sws(tmp_path, epochs=6, fresh=2), "tau", 'a "b"')
    quoted = dataclasses.replace(kd, trials=trials)
    for study, wanted in ((quoted, 'no "cuda" &amp; &lt;b&gt;'), (load(folder), 'a "b"')):
        s = summarise(study)
        figures = [
            gallery.main_figure(s),
            *gallery.seeds_figures(s),
            *(f for g in gallery.groups(s) for f in g.figures),
        ]
        text = " ".join(json.dumps(f.figure.to_plotly_json(), default=list) for f in figures if f)
        assert "&quot;" not in text and "&#x27;" not in text and wanted.replace('"', '\\"') in text


def test_names_of_columns_are_no_markup_in_a_figure(tmp_path: Path) -> None:
    """A hyperparameter called like an element is text on axes, colour bars and hovers of every figure of the page."""
    study = load(synthetic.rename(synthetic.write_sws(tmp_path, epochs=6, fresh=2), "tau", TAG))
    s = summarise(study)
    figures = [gallery.main_figure(s), *gallery.seeds_figures(s), *(f for g in gallery.groups(s) for f in g.figures)]
    drawn = [f.figure for f in figures if f] + [
        slice_of(study, "components", "val_accuracy", colour=TAG),
        slice_of(study, "components", TAG),
        learning_curves(study, TAG),
    ]
    text = [json.dumps(figure.to_plotly_json(), default=list) for figure in drawn]
    assert not [said for said in text if "<b onmouseover" in said]
    assert sum("&lt;b onmouseover" in said for said in text) >= 8


@pytest.mark.parametrize(
    "draw",
    [
        lambda study: pareto.accuracy_vs_cost(study),
        lambda study: slice_of(study, "tau", "sparsity"),
        lambda study: learning_curves(study),
    ],
)
def test_a_figure_shows_itself_in_a_notebook(sws: Study, draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside the page a figure renders by itself: Jupyter gets it as its own type with its template, and `to_html` is
    a whole document that fetches nothing."""
    drawn = draw(sws)
    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")
    bundle = drawn._repr_mimebundle_(None, None)["application/vnd.plotly.v1+json"]
    assert len(bundle["data"]) == len(drawn.data) > 0 and bundle["layout"]["template"]["layout"]["font"]["color"]
    page = drawn.to_html(include_plotlyjs=True)
    assert "<html>" in page and "Plotly.newPlot" in page and not re.search("<(script|link)[^>]*(src|href)=", page)


def test_standard_error_by_hand() -> None:
    """Two successes and two failures are added: 98 of 100 becomes 100 of 104. Even 100 % is not certain."""
    assert standard_error(98.0, 100) == pytest.approx(100 * np.sqrt((100 / 104) * (4 / 104) / 104))
    assert standard_error(100.0, 360) > 0.3


def test_test_results_stand_apart_from_fresh_seeds(confirmed: Study, sws: Study) -> None:
    """Open diamonds are the search's own networks, once each; filled ones means over fresh seeds with their interval,
    and only where there are such."""
    drawn = pareto.accuracy_vs_cost(confirmed)
    own, again = trace(drawn, "on test data"), trace(drawn, "fresh seeds, on test data")
    rows = search_test_rows(confirmed).set_index("trial_id").loc[list(own.customdata)]
    assert (
        len(set(own.customdata)) == len(own.x) == len(search_test_rows(confirmed)) - 1
    )  # the uncompressed network is a line
    assert np.allclose(own.x, 100 - rows["sparsity"]) and np.allclose(own.y, rows["test_accuracy"])
    means = mean_over_seeds(confirmed, "uncompressed").set_index("trial_id").loc[list(again.customdata)]
    assert np.allclose(again.y, means["test_accuracy"]) and np.allclose(again.error_y.array, means["test_half"])
    assert len(again.x) == 6 and "fresh seeds, on test data" not in {t.name for t in pareto.accuracy_vs_cost(sws).data}


def test_paired_differences_are_drawn_seed_by_seed(confirmed: Study, sws: Study) -> None:
    """Every shared seed is a mark, every configuration but the reference a row with mean and interval; without fresh
    seeds the figure is empty."""
    drawn = fresh_seeds.paired_differences(confirmed)
    one, mean = trace(drawn, "one seed"), trace(drawn, "mean with 95 % interval")
    assert np.allclose(one.x, paired(fresh_seed_rows(confirmed), "uncompressed")["difference"]) and len(one.x) == 6 * 5
    table = mean_over_seeds(confirmed, "uncompressed").set_index("trial_id").loc[list(mean.customdata)]
    assert np.allclose(mean.x, table["difference"]) and np.allclose(mean.error_x.array, table["difference_half"])
    assert set(one.y) == set(mean.y) and "uncompressed" not in set(mean.y)
    rows = [trial for trial in summarise(confirmed).fresh["trial_id"] if trial in set(mean.customdata)]
    assert list(mean.customdata) == rows  # in the table's order, from the top: categories start at the bottom
    axis = drawn.layout.yaxis
    assert list(axis.categoryarray) == list(mean.y)[::-1] and axis.range[0] < 0 and axis.range[1] > len(rows) - 1
    assert not fresh_seeds.paired_differences(sws).data


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_differences_are_seen_with_zero_and_whole_intervals(tmp_path: Path, seeds: int) -> None:
    """However wide few seeds make them, the line at zero, every mark and both ends of every interval are in sight."""
    for seed in range(4):
        study = load(synthetic.write_kd(tmp_path / str(seed), 24, seed=seed, epochs=3, fresh=seeds))
        drawn = fresh_seeds.paired_differences(study)
        low, high = drawn.layout.xaxis.range
        one, mean = trace(drawn, "one seed"), trace(drawn, "mean with 95 % interval")
        ends = [m + side * half for m, half in zip(mean.x, mean.error_x.array, strict=True) for side in (-1, 1)]
        assert low < min(0.0, *one.x, *ends) and max(0.0, *one.x, *ends) < high


def test_a_caption_counts_all_that_the_axis_hides(tmp_path: Path) -> None:
    """Trials, baselines and test results below the window are counted, each by its kind; in slices, which draw
    neither test results nor compressed baselines, trials alone. Bars of fresh seeds end within it."""
    study = load(synthetic.write_sws(tmp_path, fresh=2))
    trials, confirmed = study.trials.copy(), study.confirmed.copy()
    front = set(summarise(study).front["trial_id"])
    ruined = next(i for i in finished(trials)["trial_id"] if i not in front)
    trials.loc[trials["trial_id"].isin([ruined, "b001"]), "val_accuracy"] = 10.0
    confirmed.loc[confirmed["trial_id"].isin(["b001", confirmed["trial_id"].iloc[2]]), "test_accuracy"] = 10.0
    s = summarise(dataclasses.replace(study, trials=trials, confirmed=confirmed))
    main = gallery.main_figure(s)
    assert main is not None
    low, high = main.figure.layout.yaxis.range
    results = [y for name in (pareto.TESTED, pareto.FRESH) for y in trace(main.figure, name).y]
    trials_below = int((s.searched["val_accuracy"] < low).sum())
    said = "1 trial" if trials_below == 1 else f"{trials_below} trials"
    assert f" {said}, 1 baseline and {sum(y < low for y in results)} test results lie below the visible" in main.caption
    bars = trace(pareto.accuracy_vs_cost(study), pareto.FRESH)
    ends = [y + e for y, e in zip(bars.y, bars.error_y.array, strict=True)]
    assert max(ends) < pareto.accuracy_vs_cost(study).layout.yaxis.range[1]
    slices = [f for group in gallery.groups(s) for f in group.figures if f.id.startswith("slice-0")]
    assert len(slices) == 3 and not [f for f in slices if "baseline lies" in f.caption]
    assert all(re.search(r" \d+ trials? lies? below", f.caption) for f in slices)


def test_a_constraint_cuts_the_drawn_front(sws: Study) -> None:
    """With `min_accuracy` the front has no trial below it, all trials stay as marks, and a line shows the bound."""
    bound = dataclasses.replace(sws, meta={**sws.meta, "settings": {**sws.meta["settings"], "min_accuracy": 97.5}})
    free, drawn = pareto.accuracy_vs_cost(sws), pareto.accuracy_vs_cost(bound)
    assert min(trace(drawn, "Pareto front").y) >= 97.5 > min(trace(free, "Pareto front").y)
    assert len(trace(drawn, "trial").x) == len(trace(free, "trial").x)
    assert 97.5 in {shape.y0 for shape in drawn.layout.shapes if shape.type == "line"}


def test_the_answer_is_the_sparsest_trial_within_one_standard_error() -> None:
    """Of a front, the sparsest trial at most one standard error below the reference is chosen, else the best one."""
    front = pd.DataFrame({"val_accuracy": [98.1, 97.9, 96.0], "sparsity": [80.0, 95.0, 99.0]})
    objectives = {"val_accuracy": "max", "sparsity": "max"}
    assert choose(front, objectives, level=98.2, error=0.4)[0]["sparsity"] == 95.0  # type: ignore[index]
    assert choose(front, objectives, level=99.9, error=0.4)[0]["sparsity"] == 80.0  # type: ignore[index]
    assert choose(front.iloc[:0], objectives, level=98.2, error=0.4) == (None, False)


def test_a_focused_axis_keeps_what_must_be_seen() -> None:
    """One ruined trial does not flatten the others, and a kept value nearby is always inside."""
    low, high = focus([97.0, 98.0], [98.0, 97.5, 97.0, 10.0]) or (0, 0)
    assert 90 < low < 97.0 and high > 98.0
    assert focus([], []) is None


@pytest.mark.parametrize(
    "values",
    [
        [12300, 13100],
        [1.1e6, 1.3e6],
        [221000, 240000],
        [101672, 101690],
        [1.4, 1.6],
        [11, 13],
        [0.22, 0.25],
        [0.00009, 0.000091],
        [600, 60_000],
        [0.2, 40],
    ],
)
def test_an_axis_has_two_labels_however_close_its_values(values: list[float]) -> None:
    """Where no round number lies between close sizes or shares, the smallest and the largest label the axis; labels are
    different, say what they stand at, and lie inside it, as do the values."""
    axes = [(complement_axis("", 100.0, values), 100.0)] if max(values) < 100 else []
    for axis, total in [*axes, *([(log_axis("", values), 0.0)] if min(values) > 100 else [])]:
        said = [abs(total - float(text.replace(",", ""))) for text in axis["ticktext"]]
        assert len(set(said)) == len(axis["ticktext"]) >= 2 and said == pytest.approx(axis["tickvals"], rel=1e-3)
        high, low = axis["range"]
        assert all(low < np.log10(v) < high for v in [*values, *axis["tickvals"]])
    assert log_axis("", [13_000])["ticktext"] == ["13,000"]
    assert comparison._short_axis(pd.Series([1.1e6, 1.3e6]))["ticktext"] == ["1.1 MB", "1.3 MB"]
    assert comparison._short_axis(pd.Series([101_672, 101_690]))["ticktext"] == ["101,672", "101,690"]


def test_a_number_on_an_axis_has_the_digits_that_it_needs() -> None:
    """Whole numbers and large ones have all digits before the point, others as many significant ones as asked for."""
    by_hand = {1: "1", 2.5: "2.5", 2.25: "2.25", 2.256: "2.26", 1000: "1,000", 1234.5: "1,234",
               12345.6: "12,346", 1e6: "1,000,000", 0.5: "0.5", 0.0625: "0.0625", 0.06251: "0.0625"}  # fmt: skip
    assert {value: number_label(value) for value in by_hand} == by_hand
    assert (
        number_label(1234.5, 6) == "1234.5" and number_label(2.256, 4) == "2.256" and number_label(5000, 6) == "5,000"
    )


def contrast(colour: str, other: str) -> float:
    """WCAG 2.2's contrast of two "#rrggbb", from its definition of relative luminance."""
    levels = []
    for text in (colour, other):
        channels = np.array([int(text[at : at + 2], 16) for at in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        levels.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(levels) / min(levels)


def test_text_on_any_colour_can_be_read() -> None:
    """Of black and white the one with the greater contrast, at least 4.5, on a grid of colours, in both notations."""
    steps = range(0, 256, 17)
    for red, green, blue in ((r, g, b) for r in steps for g in steps for b in steps):
        colour = f"#{red:02x}{green:02x}{blue:02x}"
        ink = theme.ink_on(colour)
        chosen, rejected = (contrast(colour, i) for i in (ink, "#000000" if ink == "#FFFFFF" else "#FFFFFF"))
        assert chosen >= 4.5 and chosen >= rejected - 0.05, colour
        assert theme.ink_on(f"rgb({red}, {green}, {blue})") == ink


def test_a_short_axis_has_ticks_at_the_round_numbers_in_it() -> None:
    """At 1, 2 and 5 of each power of ten if three of them lie in it, at more digits otherwise; by hand."""
    assert log_axis("", [0.9, 60])["ticktext"] == ["1", "2", "5", "10", "20", "50"]
    assert log_axis("", [2.5, 6.5])["ticktext"] == ["3", "4", "5", "7"]
    assert log_axis("", [250, 390])["ticktext"] == ["300", "400"]
    assert log_axis("", [15, 22])["ticktext"] == ["15", "22"], "only 20 is round, and one label makes no axis"
    forwards, backwards = (log_axis("", [2.5, 6.5], backwards=way)["range"] for way in (False, True))
    assert forwards == backwards[::-1] and forwards == sorted(forwards)


def test_the_size_of_the_front_is_said_in_words(tmp_path: Path) -> None:
    """One trial forms a front, several form one."""
    for trials, words in ((1, "1 trial forms the Pareto front."), (20, "trials form the Pareto front.")):
        study = load(synthetic.write_sws(tmp_path / str(trials), trials=trials, epochs=6))
        assert pareto.front_figure(summarise(study)).alt.endswith(words)


@pytest.mark.parametrize(("alike", "marked"), [(1, False), (2, False), (3, True), (4, True)])
def test_a_phase_is_marked_where_most_trials_enter_it(alike: int, marked: bool, sws: Study) -> None:
    """Of four trials more than half must change phase at one epoch; the line stands just before it, with its name."""
    rows = [
        {"trial_id": trial, "epoch": epoch, "phase": "cluster" if epoch < start else "<b>retrain", "val_accuracy": 90.0}
        for trial, start in zip(("t000", "t001", "t002", "t003"), [7] * alike + [8, 9, 10, 11], strict=False)
        for epoch in range(1, 13)
    ]
    drawn = learning_curves(dataclasses.replace(sws, history=pd.DataFrame(rows)))
    lines = [shape.x0 for shape in drawn.layout.shapes if shape.type == "line" and shape.x0 == shape.x1]
    assert lines == ([6.5] if marked else [])
    assert [note.text for note in drawn.layout.annotations] == (["&lt;b&gt;retrain →"] if marked else [])


def test_summary_is_the_same_whatever_the_order_of_rows(sws: Study) -> None:
    """Shuffling trials.csv changes neither the front nor the answer."""
    shuffled = dataclasses.replace(sws, trials=sws.trials.sample(frac=1, random_state=1))
    first, second = summarise(sws), summarise(shuffled)
    assert first.best is not None and second.best is not None
    assert first.best["trial_id"] == second.best["trial_id"]
    assert list(first.front["trial_id"]) == list(second.front["trial_id"])
