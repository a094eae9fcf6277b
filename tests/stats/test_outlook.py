"""What more trials would probably bring, on costs whose course is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic

from analysis.figures.progress import progress_groups
from analysis.stats.outlook import FEWEST, doubling, gain_of_doubling
from analysis.stats.summary import summarise
from study.records.study_folder import load


@pytest.mark.parametrize("trials", [32, 64, 256])
def test_a_uniform_search_halves_its_distance_with_every_doubling(trials: int) -> None:
    """The least of n uniform numbers is 1 / (n + 1) on average, and that of twice as many gains half of it."""
    rng = np.random.default_rng(trials)
    gains = [doubling(rng.random((trials, 1)), np.array([np.nan])) for _ in range(100)]
    expected = 1 / (trials + 1) - 1 / (2 * trials + 1)
    assert np.mean(gains) == pytest.approx(expected, rel=0.4)


def test_a_search_that_has_all_there_is_brings_nothing() -> None:
    """Every trial is as good as the best; and rows without a value add nothing."""
    assert doubling(np.full((40, 1), 3.0), np.array([np.nan])) == 0.0
    both = np.array([[1.0, 2.0], [2.0, 1.0]] * 20)
    assert doubling(both, np.array([3.0, 3.0])) == pytest.approx(0.0, abs=1e-9)
    rng = np.random.default_rng(0)
    costs = rng.random((64, 2))
    costs[::5] = np.nan
    assert 0 < doubling(costs, np.array([1.0, 1.0])) < 0.5


def test_the_page_says_so_where_there_are_trials_enough(tmp_path: Path) -> None:
    """Below the figure by trial; not of a few trials."""
    for trials, said in ((2 * FEWEST, True), (8, False)):
        s = summarise(load(synthetic.write_sws(tmp_path / str(trials), trials=trials)))
        assert (gain_of_doubling(s) is not None) == said
        (group,) = progress_groups(s)
        captions = {figure.id: figure.caption for figure in group.figures}
        assert ("as many trials again would probably add" in captions["progress-number"]) == said
