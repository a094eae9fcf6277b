"""What Ray would wait for when it starts on this machine, and when it ends, and need not."""

from __future__ import annotations

import contextlib
import importlib
import time
from collections.abc import Iterator
from typing import Any

POLL = 0.02
"""Seconds between two looks whether the node is there."""
PATIENCE = 30.0
"""Seconds after which Ray looks for itself, which raises the error that belongs to it."""


@contextlib.contextmanager
def parts_side_by_side() -> Iterator[None]:
    """Start Ray so that its parts start at the same time.

    Ray would start the node once the dashboard answers, and then look every second whether the node is there. Here the
    node starts before the dashboard, and Ray looks more often: a second less.
    """
    node_class: Any = importlib.import_module("ray._private.node").Node
    services: Any = importlib.import_module("ray._private.services")
    start_dashboard, start_node = node_class.start_api_server, node_class.start_ray_processes
    get_node = services.get_node
    started: list[Any] = []

    def start_node_once(node: Any) -> None:
        if not any(node is one for one in started):
            started.append(node)
            start_node(node)

    def start_node_and_dashboard(node: Any, **options: Any) -> None:
        start_node_once(node)
        start_dashboard(node, **options)

    def get_node_soon(gcs_address: str, node_id: str) -> Any:
        _await_node(services, gcs_address, node_id)
        return get_node(gcs_address, node_id)

    node_class.start_api_server, node_class.start_ray_processes = start_node_and_dashboard, start_node_once
    services.get_node = get_node_soon
    try:
        yield
    finally:
        node_class.start_api_server, node_class.start_ray_processes = start_dashboard, start_node
        services.get_node = get_node


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
