"""What Ray would start and wait for on this machine, when it starts and when it ends, and need not; and what it would
do one after the other, and can do at the same time."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from study.tuning.ray_home import replaced

DASHBOARD_PACKAGES = ("aiohttp", "aiohttp_cors", "grpc", "opencensus", "opentelemetry", "prometheus_client", "pydantic")
"""What Ray's dashboard needs, and a smaller installation of Ray than `ray[default]` lacks."""
PRESTARTED = "--num_prestart_python_workers"
"""The node's flag for how many processes for trials it starts at once."""
AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
"""Of what Ray runs next to a node."""
LATER = b"later"
"""In place of the dashboard's address, as long as it is not there."""
POLL = 0.02
"""Seconds between two looks whether the node is there."""
PATIENCE = 30.0
"""Seconds after which Ray looks for itself, which raises the error that belongs to it."""
DASHBOARD_PATIENCE = 60.0
"""Seconds that the dashboard may take to start, in versions of Ray that do not say how many."""


@contextlib.contextmanager
def only_what_serves(*, dashboard: bool, logs: bool) -> Iterator[None]:
    """Start Ray on this machine with the processes that serve a study, at the same time.

    Ray would start the node once the dashboard answers, and then look every second whether the node is there; the node
    would wait until what runs next to it has chosen its ports. Here they start side by side, nobody waits for the
    dashboard (`dashboard_address`), and Ray looks more often. It would import what its dashboard is made of, to see
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
    internal_kv: Any = importlib.import_module("ray.experimental.internal_kv")
    started: list[Any] = []

    def start_node_once(node: Any) -> None:
        if not any(node is one for one in started):
            started.append(node)
            _choose_ports(node)
            start_node(node)

    def start_node_and_dashboard(node: Any, **options: Any) -> None:
        start_node_once(node)
        if dashboard:
            with replaced(internal_kv, _internal_kv_get=lambda key, *others, **options: LATER):
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
def process_ready(environment: Mapping[str, str]) -> Iterator[None]:
    """Start Ray on this machine with one process for trials that is there before the first trial asks for it.

    Ray would start one for each core: more than the first trial needs, which gets the cores.

    Args:
        environment: of this process, and of all that are started for trials later.
    """
    services: Any = importlib.import_module("ray._private.services")
    start_process = services.start_ray_process
    added = {
        "raylet": {**environment, "RAY_enable_worker_prestart": "1"},
        "dashboard": {"PYTHONSAFEPATH": "1"},  # or a `random.py` in the current folder hides Python's
    }

    def start(command: list[str], kind: str, *others: Any, **options: Any) -> Any:
        command = [f"{PRESTARTED}=1" if word.startswith(f"{PRESTARTED}=") else word for word in command]
        options["env_updates"] = {**(options.get("env_updates") or {}), **added.get(kind, {})}
        return start_process(command, kind, *others, **options)

    with replaced(services, start_ray_process=start):
        yield


class _Started(Exception):
    """Ray's processes are there."""


def connecting_later(init: Callable[[], object]) -> Callable[[], None]:
    """Let Ray start its processes; returns what connects this one to them, and can wait.

    Args:
        init: calls `ray.init`.
    """
    worker: Any = importlib.import_module("ray._private.worker")
    connect, rest = worker.connect, list[Callable[[], None]]()

    def connect_later(*arguments: Any, **options: Any) -> None:
        rest.append(partial(connect, *arguments, **options))
        raise _Started

    with replaced(worker, connect=connect_later), contextlib.suppress(_Started):
        init()

    def connect_now() -> None:
        for step in [*rest, *worker._post_init_hooks]:
            step()

    return connect_now


def dashboard_address() -> str:
    """The dashboard's address, once it is there.

    Raises:
        RuntimeError: it ended, or is not there after as long as Ray would wait.
    """
    node: Any = importlib.import_module("ray._private.worker")._global_node
    constants: Any = importlib.import_module("ray._private.ray_constants")
    until = time.monotonic() + getattr(constants, "RAY_DASHBOARD_STARTUP_TIMEOUT_S", DASHBOARD_PATIENCE)
    process = node.all_processes[constants.PROCESS_TYPE_DASHBOARD][0].process
    client, space = node.get_gcs_client(), constants.KV_NAMESPACE_DASHBOARD
    while not (address := client.internal_kv_get(constants.DASHBOARD_ADDRESS.encode(), space)):
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(
                f"its dashboard did not start, see {node.get_logs_dir_path()}/dashboard.log; "
                "--no-dashboard does without"
            )
        time.sleep(POLL)
    node._webui_url = address.decode()
    client.internal_kv_put(b"webui:url", address, True, space)
    return f"http://{node._webui_url}"


def session_folder() -> str:
    """Where the processes that this one has started keep their logs; "" where there are none."""
    node: Any = importlib.import_module("ray._private.worker")._global_node
    return str(node.get_session_dir_path()) if node else ""


@contextlib.contextmanager
def environment_of_the_node() -> Iterator[None]:
    """Run Tune on this machine without variables of the environment for trials alone: they have those of the command,
    and for others Ray would start other processes than the one that is there."""
    try:
        class_cache = importlib.import_module("ray.tune.execution.class_cache")
    except ImportError:  # another version of Ray
        class_cache = None
    with replaced(class_cache, DEFAULT_ENV_VARS={}, ENV_VARS_TO_PROPAGATE=()):
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


def _choose_ports(node: Any) -> None:
    """Say which ports are those of what runs next to the node, if it would wait until that has chosen some.

    Between here and there another program could take one; then Ray does not start.
    """
    raylet: Any = importlib.import_module("ray._raylet")
    if not hasattr(raylet, "persist_port"):  # an older version of Ray, which has chosen them by now
        return
    with contextlib.ExitStack() as taken:
        for name in AGENT_PORTS:
            port = taken.enter_context(socket.create_server(("", 0))).getsockname()[1]
            setattr(node._ray_params, name, port)
            raylet.persist_port(node.get_session_dir_path(), node.node_id, name, port)


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
