"""Networks that are not told apart from guessing answer nothing, win nothing and stretch no axis."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from scipy.stats import binom

from analysis import query, selection
from analysis.figures.pareto import front_data
from analysis.stats.guessing import LEVEL, chance, guessing_bound, told_from_guessing
from analysis.stats.several_studies import merge_studies
from analysis.stats.summary import summarise
from analysis.text.comparison import comparison_caveats
from analysis.text.headline import headline
from study.errors import UserError
from study.records.study_folder import Study, load


def meta(classes: int, images: int, **data: Any) -> dict[str, Any]:
    return {"data": {"classes": list(range(classes)), "validation": images, "test": images, **data}}


@pytest.mark.parametrize(("classes", "images", "tries"), [(10, 360, 64), (2, 20, 5), (2, 3, 5), (100, 5000, 2000)])
def test_the_bound_is_binomial(classes: int, images: int, tries: int) -> None:
    """It is the smallest number of right guesses that is exceeded with a probability of at most LEVEL / tries."""
    right = round(guessing_bound(meta(classes, images), tries) * images / 100)
    assert binom.sf(right, images, 1 / classes) <= LEVEL / tries < binom.sf(right - 1, images, 1 / classes)


def test_always_the_largest_class_is_guessing() -> None:
    """Of 100 images 80 are of one class: 80 % and a little more is a guess, which it is not of equal classes; one part
    may be less even than the other; a missing accuracy is not told apart, and without a bound everything is."""
    uneven = meta(2, 100, largest_class={"validation": 80, "test": 50})
    assert (chance(uneven), chance(uneven, "test"), chance(meta(2, 100))) == (80, 50, 50)
    scores = pd.Series([80.0, 86.0, 95.0, np.nan])
    assert told_from_guessing(scores, uneven).tolist() == [False, False, True, False]
    assert told_from_guessing(scores, uneven, part="test").tolist() == [True, True, True, False]
    assert told_from_guessing(scores, {"data": {}}).all()


@pytest.fixture(scope="module")
def collapsed(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study in which three trials have the smallest files of all, and guess."""
    study = load(synthetic.write_sized(tmp_path_factory.mktemp("sized"), "magnitude", trials=24))
    trials = study.trials.copy()
    done = trials.index[(trials["state"] == "complete") & (trials["baseline"] == "")][:3]
    trials.loc[done, "val_accuracy"] = [10.0, 11.1, 12.5]
    trials.loc[done, "file_bytes"] = [3.0, 4.0, 5.0]
    return dataclasses.replace(study, trials=trials)


def test_a_guessing_network_is_on_no_front_and_no_axis(collapsed: Study) -> None:
    """The three are no answer and no members of the front or of what is retrained; the axis of sizes does not reach
    down to them, and headline and caption say how many there are."""
    s = summarise(collapsed)
    guesses = set(s.guesses["trial_id"])
    assert len(guesses) == 3 and s.best is not None and not guesses & set(s.front["trial_id"])
    assert not guesses & set(selection.to_confirm(collapsed, 9))
    assert 10 ** min(front_data(s).costs["range"]) > 100
    said = " ".join(headline(s).details)
    assert "3 of 2" in said and "are not told apart from guessing" in said and "among 10 classes" in said
    every = collapsed.trials.assign(val_accuracy=10.0)
    with pytest.raises(UserError, match="no trial is told apart from guessing"):
        selection.front(dataclasses.replace(collapsed, trials=every))


def test_a_guessing_network_wins_no_comparison(collapsed: Study, tmp_path: Path) -> None:
    """The merged front has none of the three, and the page says that they were left out."""
    other = load(synthetic.write_sized(tmp_path, "kd_sws", trials=24))
    m = merge_studies([collapsed, other])
    assert m.front["file_bytes"].min() > 100 and m.entries[0].guesses == 3
    assert "3 complete trials are not told apart from guessing and are left out." in " ".join(comparison_caveats(m))


def test_a_question_for_the_best_is_answered_by_no_guess(
    collapsed: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The smallest file is that of a network that learned something, and how many were left out is said; a question for
    the worst accuracy finds a guess."""
    folder = synthetic.write(tmp_path, collapsed.meta, collapsed.trials, collapsed.history, collapsed.confirmed)
    assert query.main([str(folder), "min file_bytes", "--csv", "-"]) == 0
    said = capsys.readouterr()
    assert "3 trials not told apart from guessing" in said.err
    answer = said.out.splitlines()[1].split(",")[0]
    assert answer not in set(summarise(collapsed).guesses["trial_id"])
    assert query.main([str(folder), "min val_accuracy", "--csv", "-"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[1].split(",")[0] in set(summarise(collapsed).guesses["trial_id"]) and not said.err
