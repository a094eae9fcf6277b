"""How a network was pruned: frames by hand, the figures of them, and pages that have them or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic

from analysis.figures import pruning as figures
from analysis.figures.report_figure import ReportFigure
from analysis.page import study_page
from analysis.stats.pruning import ALL, Scores, boundary, scores, survivors
from analysis.stats.summary import summarise
from study.records import paths, study_folder

TINY = {
    "epoch": np.array([0, 1, 2, 2]),
    "phase": np.array(["before", "prune", "quantise", "quantised"]),
    "layers": np.array(["a", "b"]),
    "layer_weights": np.array([8, 2]),
    "layer_nonzero": np.array([1, 0]),
    "nonzero/0": np.array([8, 2]),
    "nonzero/1": np.array([4, 2]),
    "nonzero/2": np.array([2, 1]),
}


def pruned_study(folder: Path, kind: str = "magnitude", power: float = 1.0) -> tuple[Path, str]:
    """A study whose headline trial was pruned step by step, and the trial's name."""
    made = synthetic.write_sized(folder, kind, trials=12)
    best = summarise(study_folder.load(made)).best
    assert best is not None
    synthetic.write_pruned_trace(made, best["trial_id"], power=power)
    return made, str(best["trial_id"])


def figures_of(folder: Path) -> dict[str, ReportFigure]:
    return {figure.id: figure for figure in study_page.page_of(study_folder.load(folder)).figures}


def test_survivors_by_hand() -> None:
    """Of two layers and both together: counts and shares of every epoch, and of the stored network."""
    frame = survivors(TINY)
    assert frame[frame["layer"] == "a"]["share"].tolist() == [100.0, 50.0, 25.0, 12.5]
    assert frame[frame["layer"] == "b"]["survivors"].tolist() == [2, 2, 1, 0]
    assert frame[frame["layer"] == ALL]["share"].tolist() == [100.0, 60.0, 30.0, 10.0]
    assert frame[frame["layer"] == ALL]["phase"].tolist() == TINY["phase"].tolist()


def test_nothing_survives_a_method_that_pins_nothing() -> None:
    """Without counts by epoch, or where no weight is at zero before the network is quantised, there are no rows."""
    bare = {name: array for name, array in TINY.items() if not name.startswith("nonzero/")}
    assert survivors(bare).empty
    assert survivors({**bare, "nonzero/0": TINY["nonzero/0"]}).empty


def test_a_layer_without_survivors_ends_its_line() -> None:
    """A logarithmic axis has no place for zero: the line stops, and its hover text has the count."""
    lines = {line.name: line for line in figures.draw_survivors(survivors(TINY)).data}
    assert lines["b"].y == (100.0, 100.0, 50.0, None) and lines["b"].text[-1] == "0 of 2"
    assert lines["all together"].line.width > lines["a"].line.width


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_boundary_has_the_thresholds_score(power: float) -> None:
    """Every point of it has w² v̂ᵖ = threshold, so survivors of the sample lie on it or to its right, others left."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"weight": rng.uniform(0.1, 1, 50), "gradient": rng.uniform(0.01, 2, 50)})
    own = frame["weight"] ** 2 * frame["gradient"] ** (2 * power)
    threshold = float(own.median())
    frame["survives"] = own >= threshold
    scored = Scores(frame, power, threshold, 0.5, 25, 25, 3, 0)
    gradients = frame["gradient"].to_numpy()
    at = boundary(scored, gradients)
    np.testing.assert_allclose(at**2 * gradients ** (2 * power), threshold)
    assert ((frame["weight"] >= at) == frame["survives"]).all()


def test_the_page_of_a_pruned_network_shows_both_figures(tmp_path: Path) -> None:
    """Survivors by layer, and weights by magnitude and gradient, with the share that magnitude would have pruned."""
    folder, name = pruned_study(tmp_path / "study")
    drawn = figures_of(folder)
    trace = study_folder.read_trace(folder, name)
    scored = scores(trace)
    assert scored is not None and scored.survivors == 1000 and scored.hidden == 3000
    assert f"have pruned {scored.disputed / 10:.3g} % of the 1,000 survivors" in drawn["scores"].caption
    assert "10 % of all weights have no gradient" in drawn["scores"].caption
    lines = {line.name: line for line in drawn["scores"].figure.data}
    assert set(lines) == {"pruned", "survivors", "the score’s threshold", "magnitude’s threshold"}
    assert len(lines["survivors"].x) == len(lines["pruned"].x) == 1000
    assert len(set(lines["magnitude’s threshold"].x)) == 1
    assert "<b>last</b>.weight" in drawn["survivors"].caption
    assert [line.name for line in drawn["survivors"].figure.data][-1] == "all together"
    text = study_page.build(study_folder.load(folder))
    assert f"How {name} was pruned" in text and "Survivors by epoch." in text


def test_other_pages_have_neither(tmp_path: Path) -> None:
    """Magnitude's score decides by magnitude alone, so there is nothing to compare; soft weight-sharing pins nothing;
    without a trace, there is nothing at all."""
    by_magnitude = figures_of(pruned_study(tmp_path / "magnitude", power=0.0)[0])
    assert "survivors" in by_magnitude and "scores" not in by_magnitude
    folder = synthetic.write_sws(tmp_path / "soft")
    assert not {"survivors", "scores"} & figures_of(folder).keys()
    best = summarise(study_folder.load(folder)).best
    assert best is not None
    synthetic.write_trace(folder, best["trial_id"])
    soft = figures_of(folder)
    assert "weights" in soft and not {"survivors", "scores"} & soft.keys()


def test_a_damaged_trace_costs_its_own_figures_alone(tmp_path: Path) -> None:
    """Cut in half, or with a score that does not fit, the trace counts as none: the page is there without it."""
    folder, name = pruned_study(tmp_path / "study")
    path = paths.trace_of(folder, name)
    with np.load(path) as file:
        arrays = dict(file)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert not {"survivors", "scores", "weights"} & figures_of(folder).keys()
    np.savez_compressed(path, **{**arrays, "score_counts": np.zeros(4, int)})
    assert not {"survivors", "scores", "weights"} & figures_of(folder).keys()
    assert "curves" in figures_of(folder)


def test_a_figure_that_cannot_be_drawn_leaves_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a trace holds that its check lets pass, the page says in the figures' place that they are not drawn."""
    folder, _ = pruned_study(tmp_path / "study")
    monkeypatch.setattr(figures, "scores", lambda trace: 1 / 0)
    text = study_page.build(study_folder.load(folder))
    assert "Not drawn, since a file of this study is damaged (ZeroDivisionError" in text and 'id="weights"' in text


def test_of_a_deep_network_the_layers_of_most_weights_are_drawn() -> None:
    """In the network's order, and the caption says how many there are."""
    sizes = np.arange(1, 31) * 10
    trace = {
        "epoch": np.array([0, 1]), "phase": np.array(["before", "quantised"]), "layer_weights": sizes,
        "layers": np.array([f"layer{i}" for i in range(30)]), "layer_nonzero": sizes // 10, "nonzero/0": sizes // 5,
    }  # fmt: skip
    rows = survivors(trace)
    assert figures.layers_drawn(rows) == [f"layer{i}" for i in range(21, 30)]
    assert "9 layers of most weights are drawn, out of 30" in figures._survivors_figure(rows).caption
