"""Which trials are retrained with fresh seeds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
import synthetic

from analysis import selection
from analysis.stats.summary import summarise
from study.errors import UserError
from study.records import study_folder


def test_the_answer_and_members_over_the_front_are_confirmed(tmp_path: Path) -> None:
    """The headline trial first, then the front's most accurate and others down to its small end; none twice."""
    study = study_folder.load(synthetic.write_sws(tmp_path / "sws"))
    s = summarise(study)
    ranked = s.front.sort_values("val_accuracy", ascending=False)["trial_id"].tolist()
    for count in (1, 2, 3, 4, 7):
        chosen = selection.to_confirm(study, count)
        assert s.best is not None and chosen[0] == s.best["trial_id"]
        assert len(set(chosen)) == len(chosen) == count and set(chosen) <= set(ranked)
        assert (ranked[-1] in chosen) == (count > 1) and (ranked[0] in chosen) == (count > 2)
    answer = s.best["trial_id"]
    assert set(selection.to_confirm(study, len(ranked) - 1)) < set(ranked) and answer in ranked[1:-1]


def test_collapsed_networks_are_not_confirmed(tmp_path: Path) -> None:
    """A member of the front that is nearer to chance than to the best accuracy is sparse and of no use."""
    study = study_folder.load(synthetic.write_sws(tmp_path / "sws"))
    ruined = pd.DataFrame(
        [
            {
                **study.trials.iloc[-1],
                "trial_id": f"ruined{i}",
                "state": "complete",
                "baseline": "",
                "val_accuracy": 50.0 - 10 * i,
                "sparsity": 99.99 + 0.001 * i,
            }
            for i in range(3)
        ]
    )
    study = dataclasses.replace(study, trials=pd.concat([study.trials, ruined], ignore_index=True))
    assert {"ruined0", "ruined1", "ruined2"} <= set(summarise(study).front["trial_id"])
    assert not [trial for trial in selection.to_confirm(study, 6) if trial.startswith("ruined")]


def test_of_one_objective_the_best_are_confirmed(tmp_path: Path) -> None:
    """A KD study confirms its most accurate complete trials, in their order."""
    study = study_folder.load(synthetic.write_kd(tmp_path / "kd"))
    ranked = summarise(study).searched.sort_values("val_accuracy", ascending=False, kind="stable")
    assert selection.to_confirm(study, 3) == ranked["trial_id"].tolist()[:3]


def test_a_front_that_the_constraint_empties_is_told_of(tmp_path: Path) -> None:
    """Not as if the study had not ended."""
    study = study_folder.load(synthetic.write_sws(tmp_path / "sws"))
    settings = {**study.meta["settings"], "min_accuracy": 99.9}
    study = dataclasses.replace(study, meta={**study.meta, "settings": settings})
    with pytest.raises(UserError, match="no trial reaches its --min-accuracy"):
        selection.front(study)
