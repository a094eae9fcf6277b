"""What the report shows of importances, and what it says where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic

from analysis.figures.importance import importance_groups
from analysis.page import gallery
from analysis.stats import importance
from analysis.stats.importance import TradeOffs
from analysis.stats.summary import summarise
from study.records import study_folder


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> TradeOffs:
    folder = synthetic.write_sws(tmp_path_factory.mktemp("studies") / "sws", trials=120)
    return importance.trade_offs(study_folder.load(folder))


def test_scatter_plots_carry_the_mean_effect_on_their_own_axis(found: TradeOffs) -> None:
    """The line over a scatter plot of sparsity, whose axis shows what remains, is 100 minus the mean effect."""
    s = found.summary
    shown = {f.id: f for group in gallery.groups(s) for f in group.figures}
    name = s.study.hyperparameters[0]
    drawn = shown["slice-1-0"].figure
    line = next(trace for trace in drawn.data if trace.name == "mean")
    np.testing.assert_allclose(line.y, 100 - found.effect("sparsity", name)["mean"])
    assert "others averaged" not in shown["slice-1-0"].caption and "averaged" in shown["slice-1-0"].caption


def test_every_target_has_its_figures(found: TradeOffs) -> None:
    """Importances once, a plane for accuracy and for size, and effects on accuracy among the small networks."""
    groups = importance_groups(found)
    ids = [f.id for group in groups for f in group.figures]
    assert ids[0] == "importance" and {"interaction-val_accuracy", "interaction-sparsity"} <= set(ids)
    assert [i for i in ids if i.startswith("effect-given-")] == [f"effect-given-{n}" for n in found.names]
    assert len(set(ids)) == len(ids)
    assert [group.narrow for group in groups] == [False, True]  # effects stand side by side


def test_too_few_trials_are_a_sentence(tmp_path: Path) -> None:
    """Without trials enough the page says so where the figures would be."""
    study = study_folder.load(synthetic.write_sws(tmp_path / "sws", trials=10))
    (group,) = importance_groups(importance.trade_offs(study))
    assert not group.figures and "it takes 20" in group.lead
    assert "slice-0-0" in [f.id for g in gallery.groups(summarise(study)) for f in g.figures]


def test_distillation_shows_its_gain(tmp_path: Path) -> None:
    """A KD study has the gain over the student alone on the plane, in the place of an interaction."""
    study = study_folder.load(synthetic.write_kd(tmp_path / "kd", trials=120))
    ids = [f.id for group in importance_groups(importance.trade_offs(study)) for f in group.figures]
    assert "gain" in ids and not [i for i in ids if i.startswith("interaction")]
