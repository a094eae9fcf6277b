"""What a trial's trace says, against SciPy and by hand, and the figures drawn of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
from scipy.stats import norm

from analysis.figures import provisional, weights
from analysis.figures.dark_knowledge import dark_knowledge, soften, teacher_trace
from analysis.figures.provisional import provisional_groups
from analysis.page import gallery
from analysis.stats import weight_trace
from analysis.stats.summary import summarise
from analysis.stats.weight_trace import Trace
from study.records import study_folder
from study.records.study_folder import Study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study whose headline trial left a trace."""
    folder = synthetic.write_sws(tmp_path_factory.mktemp("studies") / "sws")
    best = summarise(study_folder.load(folder)).best
    assert best is not None
    synthetic.write_trace(folder, best["trial_id"])
    return study_folder.load(folder)


@pytest.fixture(scope="module")
def trace(study: Study) -> Trace:
    return weight_trace.traced(study, list(summarise(study).front["trial_id"]))[1]


def test_expected_counts_are_the_mixtures(trace: Trace) -> None:
    """The expectation in every bin but the outermost is N times the mixture's mass there, by SciPy, and all of them add
    up to N; the counts do, too."""
    bins, parts, edges = weight_trace.histogram(trace, 2), weight_trace.mixture(trace, 2), trace["edges"]
    mass = sum(p * np.diff(norm(m, s).cdf(edges)) for m, s, p in parts.to_numpy())
    np.testing.assert_allclose(bins["expected"][1:-1], 30_000 * mass[1:-1], rtol=1e-9, atol=1e-9)
    assert bins["expected"].sum() == pytest.approx(30_000) and bins["weights"].sum() == 30_000


def test_quantised_weights_have_no_mixture(trace: Trace) -> None:
    """The last frame shows the codebook's values alone."""
    last = len(trace["epoch"]) - 1
    assert weight_trace.mixture(trace, last).empty and weight_trace.histogram(trace, last)["expected"].isna().all()
    assert (weight_trace.histogram(trace, last)["weights"] > 0).sum() == 5


def test_cost_of_a_weight_is_scipys(trace: Trace) -> None:
    """−log p under the mixture, and under a Gaussian as wide as the trained weights, which is the L2 prior."""
    parts, at = weight_trace.mixture(trace, 3), np.array([-0.7, 0.0, 0.1, 2.0])
    density = sum(p * norm(m, s).pdf(at) for m, s, p in parts.to_numpy())
    np.testing.assert_allclose(weight_trace.penalty(parts, at)[:3], -np.log(density[:3]), rtol=1e-9)
    assert np.isfinite(weight_trace.penalty(parts, at)).all()  # where the density itself is zero in float64
    curve = weight_trace.priors(trace)
    np.testing.assert_allclose(curve["l2"], -norm(0, 0.1).logpdf(curve["weight"]), rtol=0.02, atol=0.05)
    near = curve[curve["weight"].abs() < 0.002]
    assert near["last"].min() < near["first"].min()  # the zero component has grown narrow


def test_layers_and_codebook_add_up(trace: Trace) -> None:
    """Zeros of the layers are the weights of the codebook's zero, and every weight has a value."""
    layers, values = weight_trace.layers(trace), weight_trace.codebook(trace)
    assert values["weights"].sum() == layers["weights"].sum() == 30_000
    assert (layers["weights"] - layers["nonzero"]).sum() == values.loc[values["value"] == 0, "weights"].sum()
    assert values["value"].is_monotonic_increasing


def test_provisional_sparsity_is_that_of_the_epoch() -> None:
    """After a quarter, half and three quarters of the clustering epochs; other phases and unfinished trials are not
    asked."""
    history = pd.DataFrame(
        {
            "trial_id": ["a"] * 6 + ["b"] * 4,
            "epoch": [1, 2, 3, 4, 5, 6, 1, 2, 3, 4],
            "phase": ["cluster"] * 4 + ["codebook"] * 2 + ["cluster"] * 4,
            "sparsity": [10.0, 20, 30, 40, 77, 88, 1, 2, 3, 4],
        }
    )
    trials = pd.DataFrame(
        {"trial_id": ["a", "b"], "state": ["complete", "failed"], "baseline": ["", ""], "sparsity": [88.0, np.nan]}
    )
    made = Study(Path("."), {"objectives": {}, "space": {}}, trials, history, pd.DataFrame())
    rows = weight_trace.provisional(made)
    assert rows[["trial_id", "share", "provisional", "final"]].to_numpy().tolist() == [
        ["a", 0.25, 10.0, 88.0],
        ["a", 0.5, 20.0, 88.0],
        ["a", 0.75, 30.0, 88.0],
    ]
    assert weight_trace.provisional(dataclasses.replace(made, history=history[["trial_id", "epoch"]])).empty
    short = history[(history["epoch"] < 3) & (history["trial_id"] == "a")]  # three quarters of two epochs are both
    assert weight_trace.provisional(dataclasses.replace(made, history=short))["share"].tolist() == [0.25, 0.5]
    assert weight_trace.provisional(dataclasses.replace(made, history=short[short["epoch"] == 1])).empty


def test_early_values_have_a_figure_where_there_are_some(tmp_path: Path) -> None:
    """Three marks for each trial that has both values; the caption counts the trials without a final one. No figure
    where no epoch compresses, where no trial has a final value, or where no share is reported."""
    study = study_folder.load(synthetic.write_sws(tmp_path / "sws", trials=10))
    complete = study.trials[(study.trials["state"] == "complete") & (study.trials["baseline"] == "")]
    ((figure,),) = [group.figures for group in provisional_groups(summarise(study))]
    assert figure.title == "Provisional against final sparsity." and f"of {len(complete)} trials" in figure.alt
    assert "not drawn" not in figure.caption and f"{provisional.MOST_TRIALS} trials" not in figure.caption
    marks = [trace for trace in figure.figure.data if trace.mode == "markers"]
    assert [len(trace.x) for trace in marks] == [len(complete)] * 3
    trials = study.trials.copy()
    trials.loc[trials["trial_id"] == complete["trial_id"].iloc[0], "sparsity"] = np.nan
    without = dataclasses.replace(study, trials=trials)
    ((figure,),) = [group.figures for group in provisional_groups(summarise(without))]
    assert f"of {len(complete) - 1} trials" in figure.alt and "1 trial has no finite sparsity" in figure.caption
    assert len(figure.figure.data[0].x) == len(complete) - 1
    for bare in (
        dataclasses.replace(study, history=study.history.assign(phase="train")),
        dataclasses.replace(study, trials=study.trials.assign(sparsity=np.nan)),
        dataclasses.replace(study, history=study.history.drop(columns="sparsity")),
        study_folder.load(synthetic.write_kd(tmp_path / "kd", trials=10)),
    ):
        assert provisional_groups(summarise(bare)) == []


@pytest.mark.parametrize("draw", [weights.weight_histogram, weights.joint])
def test_the_slider_goes_from_the_trained_network_to_the_quantised_one(trace: Trace, draw) -> None:  # type: ignore
    """One step a frame, the active one as drawn, the last quantised; frames replace the same traces and are few."""
    figure = draw(trace)
    steps = figure.layout.sliders[0].steps
    assert [step.label for step in steps][:2] == ["before", "cluster, epoch 1"] and steps[-1].label == "quantised"
    assert len(figure.frames) == len(steps) <= weights.MOST_FRAMES
    assert all(len(frame.data) == len(frame.traces) for frame in figure.frames)
    assert figure.frames[figure.layout.sliders[0].active].data[0].y == figure.data[0].y


def test_many_epochs_are_thinned(tmp_path: Path) -> None:
    """Of a long trial at most MOST_FRAMES are shown, the first and the last among them."""
    synthetic.write_trace(tmp_path, "t", epochs=47)
    trace = study_folder.read_trace(tmp_path, "t")
    shown = weight_trace.moments(trace, 20)
    assert len(shown) == 20 and shown[0] == 0 and shown[-1] == len(trace["epoch"]) - 1


def test_names_of_layers_are_text(trace: Trace) -> None:
    """Plotly would read markup in a name."""
    assert "<b>" not in str(weights.layer_sparsity(trace).data[0].y)


def test_the_headline_trial_is_shown(study: Study, tmp_path: Path) -> None:
    """Its name is in the headings; without any trace there is no such group."""
    s = summarise(study)
    assert s.best is not None
    headings = [group.heading for group in gallery.closeup_groups(s)]
    name = s.best["trial_id"]
    assert headings[:2] == [f"The weights of {name}, epoch by epoch", f"What is left of {name}"]
    bare = study_folder.load(synthetic.write_sws(tmp_path / "bare"))
    assert not [g for g in gallery.closeup_groups(summarise(bare)) if "weights" in g.heading]


def test_the_teacher_softens(tmp_path: Path) -> None:
    """Probabilities add up to one, are the softmax of logits / T, and near uniform at a high temperature; the best
    trial's temperature is one of the slider's, and says so."""
    folder = synthetic.write_kd(tmp_path / "kd")
    synthetic.write_knowledge(folder)
    study = study_folder.load(folder)
    trace = teacher_trace(study)
    at_two = soften(trace, 2.0)
    np.testing.assert_allclose(at_two.sum(axis=1), 1)
    by_hand = np.exp(trace["logits"][0].astype(float) / 2)
    np.testing.assert_allclose(at_two[0], by_hand / by_hand.sum(), rtol=1e-6)
    assert np.abs(soften(trace, 1e6) - 0.1).max() < 1e-4
    s = summarise(study)
    figure = dark_knowledge(study, s.best)
    assert sum("the headline trial" in step.label for step in figure.layout.sliders[0].steps) == 1
    assert len(figure.layout.images) == 10 and figure.layout.images[0].source.startswith("data:image/png;base64,")
    assert s.best is not None
    fewer = dark_knowledge(study, s.best.drop("temperature"))  # a space of one's own need not search it
    assert len(fewer.layout.sliders[0].steps) == len(figure.layout.sliders[0].steps) - 1
    assert teacher_trace(study_folder.load(synthetic.write_kd(tmp_path / "bare"))) == {}


def test_dark_knowledge_says_how_many_images_it_shows(tmp_path: Path) -> None:
    """Of a hundred classes the first ten are shown, and said to be so; of ten, all."""
    folder = synthetic.write_kd(tmp_path / "kd")
    for classes in (10, 100):
        synthetic.write_knowledge(folder, classes)
        meta = study_folder.read_meta(folder)
        study_folder.write_meta(
            folder, {**meta, "data": {**meta["data"], "classes": [f"c{i}" for i in range(classes)]}}
        )
        (item,) = gallery.closeup_groups(summarise(study_folder.load(folder)))[0].figures
        assert ("the first 10 of 100" in item.caption) == (classes == 100) and item.alt.startswith("Table of 10 images")


def test_a_cell_of_the_dark_knowledge_names_both_classes(tmp_path: Path) -> None:
    """Whatever the classes are called, a hover says whose image it is, and a share too small to print has words."""
    folder = synthetic.write_kd(tmp_path / "kd")
    synthetic.write_knowledge(folder)
    meta = study_folder.read_meta(folder)
    study_folder.write_meta(folder, {**meta, "data": {**meta["data"], "classes": [f"c{i}" for i in range(10)]}})
    study = study_folder.load(folder)
    trace, cells = teacher_trace(study), dark_knowledge(study).frames[0].data[0]
    share, labels = soften(trace, 1.0), trace["labels"]
    for i, row in enumerate(cells.text):
        for j, text in enumerate(row):
            p = share[i, labels[j]]
            about = f"{100 * p:.0f}" if p >= 0.005 else "below 0.5"
            assert text == f"image of c{labels[i]}: {about} % c{labels[j]}"
    assert "below 0.5" in str(cells.text) and cells.hovertemplate.startswith("%{text}") and cells.customdata is None
