"""Domains of a search as `study.json` holds them, and their values as tables do."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from study.records import study_folder
from study.records.search_domains import Choice, Domain, Range, Value, domain_from_json

DOMAINS: list[tuple[Domain, list[Value]]] = [
    (Range(0.1, 0.9), [0.1, 1 / 3, 0.9]),
    (Range(1e-4, 0.2, log=True), [1e-4, 0.017320508075688773]),
    (Range(0.0, 1.0, step=0.25), [0.0, 0.25, 1.0]),
    (Range(4, 64, log=True, integer=True), [4, 17, 64]),
    (Range(10, 50, step=10, integer=True), [10, 30]),
    (Choice((2, 4, 8)), [2, 4, 8]),
    (Choice((0.5, 1.0, 2)), [0.5, 1.0, 2]),
    (Choice(("none", "flip")), ["none", "flip"]),
    (Choice((True, False)), [True, False]),
    (Choice(("8", "16")), ["8", "16"]),
    (Choice(("lenet5", 3, 0.5)), ["lenet5", 3, 0.5]),
]


@pytest.mark.parametrize("domain", [domain for domain, _ in DOMAINS])
def test_a_domain_survives_json(domain: Domain) -> None:
    """What `as_json` wrote is read back as the same domain, steps, logarithms, and types of choices included."""
    again = domain_from_json(json.loads(json.dumps(domain.as_json())))
    assert again == domain
    assert [type(value) for value in again.ends()] == [type(value) for value in domain.ends()]


@pytest.mark.parametrize(("domain", "values"), DOMAINS)
def test_a_value_survives_a_table(domain: Domain, values: list[Value], tmp_path: Path) -> None:
    """A cell of a CSV file is read back as the value and the type that the search had, also in a column that has gaps,
    which pandas reads as floats, or words, as it does of a choice of truths or of numbers among words."""
    for cells in (values, [*values, None]):
        study_folder.write_frame(tmp_path / "table.csv", pd.DataFrame({"value": pd.Series(cells, dtype=object)}))
        column = study_folder.read_frame(tmp_path / "table.csv", ["value"])["value"]
        for value, cell in zip(values, column, strict=False):
            assert domain.cast(cell) == value and type(domain.cast(cell)) is type(value), (cell, value)


def test_a_cell_that_is_no_choice_is_refused() -> None:
    """The message names the cell and the choices; True is not 1."""
    with pytest.raises(ValueError, match="'shift' is none of none, flip"):
        Choice(("none", "flip")).cast("shift")
    with pytest.raises(ValueError):
        Choice((2, 4)).cast(3)
    assert Choice(("1.0", "1")).cast("1") == "1", "what is written alike comes before what is equal"
    for choice, cell in ((Choice((1, 0)), True), (Choice((True, False)), 1), (Choice((True, False)), "0.0")):
        with pytest.raises(ValueError):
            choice.cast(cell)


def test_ends_and_middle_are_values_of_the_domain() -> None:
    """By hand: a logarithmic range has the geometric mean in its middle, an integer one whole numbers."""
    assert (Range(1.0, 100.0, log=True).middle(), Range(1.0, 3.0).middle()) == (10.0, 2.0)
    assert Range(4, 64, log=True, integer=True).middle() == 16
    assert list(Range(4, 64, integer=True).ends()) == [4, 64]
    assert Range(0.0, 1.0, step=0.25).middle() == 0.5 and Range(4, 60, step=4, integer=True).middle() == 32
    assert Range(0.0, 0.75, step=0.25).middle() == 0.25, "between two steps, the lower one"
    assert str(Range(0.0, 1.0, step=0.25)) == "0 to 1 in steps of 0.25" and str(Range(1, 3)) == "1 to 3"
    assert list(Choice(("a", "b", "c")).ends()) == ["a", "b", "c"] and Choice(("a", "b", "c")).middle() == "b"
