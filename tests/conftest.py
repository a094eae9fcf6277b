"""How the tests share the machine: two processes, a module in one of them, all that start Ray in the same one."""

from __future__ import annotations

import pytest

STARTS_RAY = ("test_cluster", "test_faults", "test_study")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that start Ray come first, since together they take longest, and use both cores."""
    for item in items:
        name = item.path.stem
        item.add_marker(pytest.mark.xdist_group("ray" if name in STARTS_RAY else name))
    items.sort(key=lambda item: item.path.stem not in STARTS_RAY)
