"""One public function a figure: what it draws is what the page has."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import plotly.graph_objects as go
import pytest
import synthetic

import analysis
from analysis import plots
from analysis.page import gallery
from analysis.stats.importance import TradeOffs, trade_offs
from analysis.stats.summary import summarise
from study.errors import UserError
from study.records.study_folder import Study

BY_ID: dict[str, Callable[[Study], go.Figure]] = {
    "main": plots.main,
    "plane": lambda s: plots.hyperparameter_plane(s, "temperature", "alpha"),
    "slice-0-0": lambda s: plots.hyperparameter_slice(s, s.hyperparameters[0]),
    "importance": plots.importance,
    "interaction-val_accuracy": plots.interaction,
    "interaction-sparsity": lambda s: plots.interaction(s, "sparsity"),
    "interaction-file_bytes": lambda s: plots.interaction(s, "file_bytes"),
    "interaction-given": lambda s: plots.interaction(s, "given"),
    "effect-given-tau": lambda s: plots.effect(s, "tau", "given"),
    "pairs": plots.hyperparameter_pairs,
    "gain": plots.gain,
    "parallel": plots.parallel_coordinates,
    "curves": plots.learning_curves,
    "sparsity-curves": lambda s: plots.learning_curves(s, "sparsity"),
    "progress-number": plots.search_progress,
    "progress-hours": lambda s: plots.search_progress(s, over_time=True),
    "timeline": plots.timeline,
    "latency": plots.accuracy_against_latency,
    "seeds-figure": plots.seed_differences,
    "attainment": plots.attainment,
    "knowledge": plots.teacher_probabilities,
    "survivors": plots.pruning_survivors,
    "scores": plots.pruning_scores,
    "weights": plots.weight_histogram,
    "joint": plots.weight_paths,
    "layers": plots.layer_sparsity,
    "occupancy": plots.codebook_use,
    "priors": plots.prior_cost,
    "layer-facts": plots.layer_facts,
    "sensitivity": plots.layer_sensitivity,
    "provisional": plots.early_sizes,
}
"""Figure of the page → how a reader draws it."""
VARIANTS = ("slice-", "effect-")
"""The page has one for each hyperparameter; one of them is compared. Its slices also show a mean, and are another."""


def studies(root: Path) -> list[Study]:
    """Studies that have all kinds of figures between them."""
    kd = synthetic.write_kd(root / "kd", trials=30)
    synthetic.write_knowledge(kd)
    sws = synthetic.write_sws(root / "sws")
    synthetic.write_layers(sws)
    pruned = synthetic.write_sized(root / "pruned", "magnitude", fresh=3)
    synthetic.write_pruned_trace(pruned, str(summarise(analysis.load(pruned)).front["trial_id"].iloc[0]))
    return [analysis.load(folder) for folder in (kd, sws, pruned, synthetic.write_traced(root / "t", "sws", 30, 6))]


def test_every_figure_of_the_page_is_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its id; and every function of `analysis.plots` is a figure of some page, or compares studies."""
    fitted: dict[Path, TradeOffs] = {}

    def fit_once(study: Study) -> TradeOffs:  # which takes a second or two
        return fitted.get(study.folder) or fitted.setdefault(study.folder, trade_offs(study))

    for module in (plots, gallery):
        monkeypatch.setattr(module, "trade_offs", fit_once)
    compared = set()
    for study in studies(tmp_path):
        s = summarise(study)
        main = gallery.main_figure(s)
        assert main is not None
        figures = [
            main,
            *gallery.seeds_figures(s),
            *(figure for group in gallery.groups(s) for figure in group.figures),
        ]
        for figure in figures:
            if figure.id not in BY_ID:
                assert figure.id.startswith(VARIANTS), figure.id
                continue
            compared.add(figure.id)
            own = BY_ID[figure.id](study)
            assert isinstance(own, go.Figure) and own.data
            if not figure.id.startswith("slice-"):
                assert own.to_json() == figure.figure.to_json(), figure.id
    assert set(BY_ID) - compared <= {"progress-hours", "timeline"}  # which need the times of trials
    public = {name for name, f in inspect.getmembers(plots, inspect.isfunction) if f.__module__ == "analysis.plots"}
    public = {name for name in public if not name.startswith("_")}
    called = {name for f in BY_ID.values() for name in (*f.__code__.co_names, f.__name__)}
    assert public - called == {"compared"}
    page = (Path(plots.__file__).parent / "README.md").read_text()
    assert all(f"`{name}`" in page for name in public)


def test_several_studies_are_compared(tmp_path: Path) -> None:
    """On one plane."""
    assert plots.compared([analysis.load(folder) for folder in synthetic.write_four(tmp_path)]).data


def test_a_figure_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """A study without what it shows, a name that is none, and a study without a complete trial."""
    study = analysis.load(synthetic.write_kd(tmp_path / "kd", trials=10))
    for draw in (plots.attainment, plots.layer_facts, lambda s: plots.hyperparameter_slice(s, "nope")):
        with pytest.raises(UserError, match="kd: "):
            draw(study)
    with pytest.raises(UserError, match="no trial is complete yet"):
        plots.importance(analysis.load(synthetic.write_bare(tmp_path / "bare", "kd", "running")))


def test_a_study_in_a_notebook_is_short(tmp_path: Path) -> None:
    """One line as text; as HTML the best trials by the first objective, with what the study says escaped."""
    study = analysis.load(synthetic.write_kd(tmp_path / "<b>kd", trials=30))
    assert repr(study).startswith("<study <b>kd: 30 trials (") and len(repr(study)) < 120 and "\n" not in repr(study)
    page = study._repr_html_()
    assert "&lt;b&gt;kd" in page and "<b>kd" not in page and page.count("<tr") <= 11
    best = study.trials.loc[study.trials["val_accuracy"].idxmax(), "trial_id"]
    assert page.index(f"<td>{best}</td>") < page.index("<td>", page.index("<td>") + 1)
