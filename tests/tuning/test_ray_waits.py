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


def test_without_the_dashboard_ray_starts_what_trials_run_on_and_no_more() -> None:
    """Nobody reads a server's pages, an autoscaler's news or logs that are not printed; trials run as ever."""
    import ray

    settings = resolve(SWSSettings())
    try:
        ray_start.start_ray(settings.changed(dashboard=False))
        node: Any = importlib.import_module("ray._private.worker")._global_node
        assert set(node.all_processes) - {"reaper"} == {"gcs_server", "raylet"}
        assert ray.get(ray.remote(lambda: 3).remote()) == 3
    finally:
        ray_start.stop_ray()


def test_a_package_that_the_dashboard_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray names it, without importing them all."""
    assert ray_waits._dependency_error() is None
    monkeypatch.setattr(ray_waits, "DASHBOARD_PACKAGES", ("no_such_package",))
    assert "no_such_package" in str(ray_waits._dependency_error())


def test_tune_does_not_import_what_it_would_count() -> None:
    usage: Any = importlib.import_module("ray.air._internal.usage")
    counting = usage.tag_callbacks
    with ray_waits.callbacks_uncounted():
        assert usage.tag_callbacks([]) is False and usage.tag_callbacks is not counting
    assert usage.tag_callbacks is counting


def test_another_version_of_ray_may_lack_what_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it starts and counts as it does by itself."""
    usage: Any = importlib.import_module("ray.air._internal.usage")
    monkeypatch.delattr(usage, "tag_callbacks")
    with ray_waits.callbacks_uncounted():
        assert not hasattr(usage, "tag_callbacks")
    assert not hasattr(usage, "tag_callbacks")


def test_ray_is_as_it_was_after_an_error() -> None:
    """A program that starts a study from Python goes on to use Ray as Ray is."""
    node_class: Any = importlib.import_module("ray._private.node").Node
    services: Any = importlib.import_module("ray._private.services")
    utils: Any = importlib.import_module("ray._private.utils")

    def parts() -> list[object]:
        starting = [
            getattr(node_class, f"start_{part}") for part in ("api_server", "ray_processes", "monitor", "log_monitor")
        ]
        return [*starting, services.get_node, utils.get_dashboard_dependency_error]

    before = parts()
    with pytest.raises(RuntimeError), ray_waits.only_what_serves(dashboard=False, logs=False):
        assert all(a is not b for a, b in zip(before, parts(), strict=True))
        raise RuntimeError
    assert parts() == before
