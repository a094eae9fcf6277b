"""Hyperparameters on the scale of their search: ranges, steps and choices go to [0, 1] and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis.stats.search_space import as_words, from_unit, grid, is_whole, is_words, levels, to_unit, varies
from analysis.stats.summary import numeric

LOG = {"type": "float", "low": 1e-3, "high": 1e-1, "log": True}
STEPPED = {"type": "float", "low": 0.5, "high": 0.9, "step": 0.1, "log": False}
NUMBERS = {"type": "choice", "values": [32, 64, 256]}
WORDS = {"type": "choice", "values": ["none", "flip"]}
TRUTHS = {"type": "choice", "values": [True, False]}


@pytest.mark.parametrize(
    ("domain", "values", "places"),
    [
        (LOG, [1e-3, 1e-2, 1e-1], [0.0, 0.5, 1.0]),
        (STEPPED, [0.5, 0.7, 0.9], [0.0, 0.5, 1.0]),
        (NUMBERS, [32.0, 64.0, 256.0], [0.0, 0.5, 1.0]),
        (WORDS, ["none", "flip"], [0.0, 1.0]),
        (TRUTHS, ["True", "False"], [0.0, 1.0]),
    ],
)
def test_values_go_to_the_unit_interval_and_back(
    domain: dict[str, Any], values: list[Any], places: list[float]
) -> None:
    """A range by its scale, the middle of a logarithmic one at its geometric mean; choices at equal distances."""
    column = pd.Series(values).to_numpy()
    assert to_unit(column, domain) == pytest.approx(places)
    back = from_unit(np.array(places), domain).tolist()
    assert back == (values if isinstance(values[0], str) else pytest.approx(values))


def test_what_is_no_choice_has_no_place() -> None:
    """A baseline's value outside the choices, or none at all, is not a number rather than a choice."""
    assert np.isnan(to_unit(np.array([16.0, np.nan]), NUMBERS)).all()
    assert np.isnan(to_unit(np.array(["crop", np.nan], dtype=object), WORDS)).all()


def test_choices_stand_for_themselves() -> None:
    """Averages over a choice are over its members, and a response is shown at each of them, not between."""
    assert levels(NUMBERS).tolist() == grid(NUMBERS, 41).tolist() == [0.0, 0.5, 1.0]
    assert levels(STEPPED) == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0]), "and so do steps"
    assert len(levels({"type": "float", "low": 0.0, "high": 1.0, "step": 0.01})) == 40
    assert len(levels(LOG)) == 40 and len(grid(LOG, 41)) == 41


def test_kinds_of_domains() -> None:
    """Words differ from numbers, whole numbers from others, and a single choice or an empty range does not vary."""
    assert [is_words(d) for d in (WORDS, TRUTHS, NUMBERS, LOG)] == [True, True, False, False]
    assert [is_whole(d) for d in (NUMBERS, STEPPED, {"type": "int", "low": 1, "high": 9})] == [True, False, True]
    assert varies(WORDS) and varies(STEPPED)
    assert not varies({"values": ["flip"]}) and not varies({"low": 1.0, "high": 1.0}) and not varies({})


def test_a_choice_among_words_stays_words() -> None:
    """Truths and numbers that a table made of a choice's words are words again; a choice among numbers is numbers."""
    mixed = {"type": "choice", "values": [2, "auto"]}
    assert as_words(pd.Series([True, np.nan, "False"]), TRUTHS).tolist()[::2] == ["True", "False"]
    assert as_words(pd.Series([2.0, 2.0]), mixed).tolist() == ["2", "2"]
    frame = pd.DataFrame({"merge": [True, False], "augment": ["flip", "none"], "batch_size": ["32", "64"]})
    space = {"merge": TRUTHS, "augment": WORDS, "batch_size": NUMBERS}
    table = numeric(frame, [], space)
    assert table["merge"].tolist() == ["True", "False"] and table["augment"].tolist() == ["flip", "none"]
    assert table["batch_size"].tolist() == [32.0, 64.0]


def test_a_known_column_has_numbers_and_an_unknown_one_may_have_words() -> None:
    """Text among a metric's numbers, and what is infinite, is missing; a column that nobody declared stays as it is if
    it has a word, and becomes numbers if it has none; a column that is not there is added."""
    frame = pd.DataFrame(
        {"val_accuracy": ["97.5", "high", "inf"], "remark": ["1", "fine", "2"], "gain": ["1", None, "-inf"]}
    )
    table = numeric(frame, ["sparsity", "baseline"])
    assert table["val_accuracy"].tolist()[0] == 97.5 and table["val_accuracy"].isna().tolist() == [False, True, True]
    assert table["remark"].tolist() == ["1", "fine", "2"]
    assert table["gain"].dtype == float and table["gain"].tolist()[0] == 1 and table["gain"][1:].isna().all()
    assert table["sparsity"].isna().all() and table["baseline"].tolist() == ["", "", ""]
