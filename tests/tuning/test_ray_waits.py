"""That Ray starts and ends without waiting for what it need not."""

from __future__ import annotations

import importlib
import os
import signal
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from study.methods.sws.settings import SWSSettings
from study.settings import resolve
from study.tuning import ray_start, ray_waits


def test_the_node_starts_before_the_dashboard_and_the_autoscaler_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has started once, is asked for until it is there, and is what the driver connects to. The dashboard has an
    address, for Ray too, whatever files are called in the current folder. The autoscaler ends by a signal that it
    cannot be deaf to."""
    (tmp_path / "random.py").write_text("raise SystemExit('hidden')")
    monkeypatch.chdir(tmp_path)
    asked: list[str] = []
    waiting = ray_waits._await_node

    def wait(services: Any, gcs_address: str, node_id: str) -> None:
        asked.append(node_id)
        waiting(services, gcs_address, node_id)

    monkeypatch.setattr(ray_waits, "_await_node", wait)
    try:
        url = ray_start.start_ray(resolve(SWSSettings()))
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5):
            pass
        of_ray = importlib.import_module("ray._private.services").get_webui_url_from_internal_kv()
        node: Any = importlib.import_module("ray._private.worker")._global_node
        started = {kind: [one.process for one in processes] for kind, processes in node.all_processes.items()}
        alive = [one["NodeID"] for one in ray.nodes() if one["Alive"]]
    finally:
        ray_start.stop_ray()
    assert list(started).index("raylet") < list(started).index("dashboard") and len(started["raylet"]) == 1
    assert asked[:1] == alive
    assert url == f"http://{of_ray}" and url.startswith("http://127.0.0.1:")
    assert [process.returncode for process in started["monitor"]] == [-signal.SIGKILL]


def test_without_the_dashboard_ray_starts_what_trials_run_on_and_no_more() -> None:
    """Nobody reads a server's pages, an autoscaler's news or logs that are not printed. One process is there for the
    first trial, has loaded what it needs, and runs it: Ray would start one for each core, and others for trials."""

    def loaded() -> tuple[int, list[str]]:
        import sys

        return os.getpid(), [name for name in ("torch", "study.tuning.trainable") if name in sys.modules]

    try:
        ray_start.start_ray(resolve(SWSSettings.of(dashboard=False)))
        node: Any = importlib.import_module("ray._private.worker")._global_node
        assert set(node.all_processes) - {"reaper"} == {"gcs_server", "raylet"}
        pid, modules = ray.get(ray.remote(loaded).remote())
        pids = [int(path.stem.split("-")[3]) for path in Path(node.get_logs_dir_path()).glob("worker-*.err")]
    finally:
        ray_start.stop_ray()
    assert pids == [pid] and modules == ["torch", "study.tuning.trainable"]


def test_processes_of_packed_trials_load_nothing_before() -> None:
    """There are many of them, and they only wait."""

    def has_torch() -> bool:
        import sys

        return "torch" in sys.modules

    try:
        ray_start.start_ray(resolve(SWSSettings.of(dashboard=False, variant="soft", pack=4)))
        assert not ray.get(ray.remote(has_torch).remote())
    finally:
        ray_start.stop_ray()


def test_trials_of_tune_have_the_environment_of_the_command() -> None:
    """Or Ray would start other processes for them, in which nothing is loaded; afterwards Tune is as it was."""
    class_cache: Any = importlib.import_module("ray.tune.execution.class_cache")
    before = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    with ray_waits.environment_of_the_node():
        cache = class_cache._ActorClassCache()
        assert cache.get(type("Trial", (), {}))._default_options["runtime_env"].serialize() == "{}"
    assert (class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE) == before and before[0]


def test_a_dashboard_that_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says how to go on without it."""
    ended = SimpleNamespace(process=SimpleNamespace(poll=lambda: 1))
    client = SimpleNamespace(internal_kv_get=lambda key, namespace: None)
    node = SimpleNamespace(
        all_processes={"dashboard": [ended]}, get_gcs_client=lambda: client, get_logs_dir_path=lambda: "/logs"
    )
    monkeypatch.setattr("ray._private.worker._global_node", node)
    with pytest.raises(RuntimeError, match=r"its dashboard did not start, see /logs/dashboard.log; --no-dashboard"):
        ray_waits.dashboard_address()


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
        return [*starting, services.get_node, services.start_ray_process, utils.get_dashboard_dependency_error]

    before = parts()
    with (
        pytest.raises(RuntimeError),
        ray_waits.only_what_serves(dashboard=False, logs=False),
        ray_waits.process_ready({}),
    ):
        assert all(a is not b for a, b in zip(before, parts(), strict=True))
        raise RuntimeError
    assert parts() == before
