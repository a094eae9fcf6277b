"""A study folder with one file damaged at random is read, or refused in one line; see tests/faults for more."""

from __future__ import annotations

from pathlib import Path

import damaged_folders
import pytest


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return damaged_folders.good_folders(tmp_path_factory.mktemp("good"))


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_damage_is_refused_or_does_no_harm(first: int, good: list[Path], tmp_path: Path) -> None:
    """Ten of the folders of the command, the same ones each time; some of them are refused."""
    outcomes = {seed: damaged_folders.try_one(good, seed, tmp_path) for seed in range(first, first + 10)}
    assert not {seed: told for seed, told in outcomes.items() if told[1].startswith("FAULT")}
    assert "refused" in {outcome for _, outcome in outcomes.values()}
