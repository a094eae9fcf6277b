"""A pytest plugin of `run.py --measure`: which test runs each line, whether itself or in its fixtures, and how long."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

_seconds: dict[str, float] = defaultdict(float)


def _context(name: str) -> None:
    measuring = coverage.Coverage.current()
    if measuring is not None:
        measuring.switch_context(name)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    _context(f"{item.nodeid}|fixtures")
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    _context(f"{item.nodeid}|test")
    yield
    _context("")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid] += report.duration


def pytest_sessionfinish() -> None:
    file = Path(os.environ["MUTATION_SECONDS"])
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**before, **_seconds}))
