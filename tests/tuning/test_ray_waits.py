"""That Ray starts and ends without waiting for what it need not."""

from __future__ import annotations

import importlib
import signal
from typing import Any

import pytest

from study.methods.sws.settings import SWSSettings
from study.settings import resolve
from study.tuning import ray_start, ray_waits


def test_the_node_starts_before_the_dashboard_and_the_autoscaler_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has started once, is asked for until it is there, and is what the driver connects to. The autoscaler ends by a
    signal that it cannot be deaf to."""
    import ray

    asked: list[str] = []
    waiting = ray_waits._await_node

    def wait(services: Any, gcs_address: str, node_id: str) -> None:
        asked.append(node_id)
        waiting(services, gcs_address, node_id)

    monkeypatch.setattr(ray_waits, "_await_node", wait)
    try:
        ray_start.start_ray(resolve(SWSSettings()))
        node: Any = importlib.import_module("ray._private.worker")._global_node
        started = {kind: [one.process for one in processes] for kind, processes in node.all_processes.items()}
        alive = [one["NodeID"] for one in ray.nodes() if one["Alive"]]
    finally:
        ray_start.stop_ray()
    assert list(started).index("raylet") < list(started).index("dashboard") and len(started["raylet"]) == 1
    assert asked[:1] == alive
    assert [process.returncode for process in started["monitor"]] == [-signal.SIGKILL]


def test_ray_is_as_it_was_after_an_error() -> None:
    """A program that starts a study from Python goes on to use Ray as Ray is."""
    node_class: Any = importlib.import_module("ray._private.node").Node
    services: Any = importlib.import_module("ray._private.services")

    def parts() -> list[object]:
        return [node_class.start_api_server, node_class.start_ray_processes, services.get_node]

    before = parts()
    with pytest.raises(RuntimeError), ray_waits.parts_side_by_side():
        assert all(a is not b for a, b in zip(before, parts(), strict=True))
        raise RuntimeError
    assert parts() == before
