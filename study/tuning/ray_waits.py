"""What Ray would start and wait for on this machine, when it starts and when it ends, and need not."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import time
from collections.abc import Iterator
from typing import Any

from study.tuning.ray_home import replaced

DASHBOARD_PACKAGES = ("aiohttp", "aiohttp_cors", "grpc", "opencensus", "opentelemetry", "prometheus_client", "pydantic")
"""What Ray's dashboard needs, and a smaller installation of Ray than `ray[default]` lacks."""
POLL = 0.02
"""Seconds between two looks whether the node is there."""
PATIENCE = 30.0
"""Seconds after which Ray looks for itself, which raises the error that belongs to it."""


@contextlib.contextmanager
def only_what_serves(*, dashboard: bool, logs: bool) -> Iterator[None]:
    """Start Ray on this machine with the processes that serve a study, at the same time.

    Ray would start the node once the dashboard answers, and then look every second whether the node is there. Here the
    node starts before the dashboard, and Ray looks more often. It would import what its dashboard is made of, to see
    whether it is installed, and start the server of a dashboard that nobody asked for, an autoscaler that has no
    machines to add, and what reads the logs of workers, whether they are printed or not.

    Args:
        dashboard: there is one. It tells the autoscaler's news, so there is that, too.
        logs: what workers print is printed.
    """
    node_class: Any = importlib.import_module("ray._private.node").Node
    services: Any = importlib.import_module("ray._private.services")
    start_dashboard, start_node, get_node = (
        node_class.start_api_server,
        node_class.start_ray_processes,
        services.get_node,
    )
    started: list[Any] = []

    def start_node_once(node: Any) -> None:
        if not any(node is one for one in started):
            started.append(node)
            start_node(node)

    def start_node_and_dashboard(node: Any, **options: Any) -> None:
        start_node_once(node)
        if dashboard:
            start_dashboard(node, **options)

    def get_node_soon(gcs_address: str, node_id: str) -> Any:
        _await_node(services, gcs_address, node_id)
        return get_node(gcs_address, node_id)

    with (
        replaced(node_class, start_api_server=start_node_and_dashboard, start_ray_processes=start_node_once),
        replaced(node_class, **({} if dashboard else {"start_monitor": _start_nothing})),
        replaced(node_class, **({} if logs else {"start_log_monitor": _start_nothing})),
        replaced(services, get_node=get_node_soon),
        replaced(importlib.import_module("ray._private.utils"), get_dashboard_dependency_error=_dependency_error),
    ):
        yield


@contextlib.contextmanager
def callbacks_uncounted() -> Iterator[None]:
    """Run Tune without its count of who uses wandb, mlflow and comet: it imports those that are installed, which takes
    wandb 0.7 s."""
    try:
        counting = importlib.import_module("ray.air._internal.usage")
    except ImportError:  # another version of Ray
        counting = None
    with replaced(counting, tag_callbacks=lambda callbacks: False):
        yield


def _start_nothing(node: Any) -> None:
    """In place of a process that a study has no use for."""


def _dependency_error() -> ImportError | None:
    """Why there cannot be a dashboard: a package of those that it needs is not installed."""
    for name in DASHBOARD_PACKAGES:
        if importlib.util.find_spec(name) is None:
            return ImportError(f"No module named {name!r}")
    return None


def _await_node(services: Any, gcs_address: str, node_id: str) -> None:
    state = importlib.import_module("ray._private.state").GlobalState()
    state._initialize_global_state(services._get_gcs_client_options(gcs_address))
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and all(node["NodeID"] != node_id for node in state.node_table()):
        time.sleep(POLL)


def end_autoscaler() -> None:
    """End the process that would add machines to a cluster, where this process has started it.

    It has nothing to keep, and is deaf to the signal with which Ray ends it first: Ray would wait a second.
    """
    node = importlib.import_module("ray._private.worker")._global_node
    for started in getattr(node, "all_processes", {}).get("monitor", []):
        started.process.kill()
