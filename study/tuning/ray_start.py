"""Starting and stopping Ray, quietly, on this machine or in a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from typing import Any

import ray

from study.errors import UserError
from study.settings import Settings
from study.tuning import ray_home, ray_waits
from study.tuning.worker.compression_study_worker import environment

_NO_CLUSTER = "start one with ray start --head, or leave --address out"
"""What to do where no cluster answers."""
_NOT_STARTED = "Ray could not be started on this machine ({})"
_begun: list[Callable[[], None]] = []
"""What is left to do of a start of Ray on this machine; its processes are there."""


@contextlib.contextmanager
def begun(settings: Settings) -> Iterator[None]:
    """Have Ray's processes start on this machine, and one of them load what trials need, while this command loads
    PyTorch, reads the data and checks everything. `start_ray` takes them over. They end afterwards in any case.

    Raises:
        UserError: Ray does not start.
    """
    try:
        _begin(settings)
        yield
    finally:
        unused = ray_waits.session_folder() if _begun else ""
        stop_ray()
        if unused:
            shutil.rmtree(unused, ignore_errors=True)


def start_ray(settings: Settings) -> str:
    """Join or start Ray; returns the dashboard's address, or "".

    Raises:
        UserError: it does not answer, or does not start.
    """
    if settings.resources.address:
        return _join(settings)
    if not _begun:
        _begin(settings)
    with _starting(_NOT_STARTED.format):
        _begun.pop()()
        return ray_waits.dashboard_address() if settings.watching.dashboard else ""


def _begin(settings: Settings) -> None:
    """Start Ray's processes on this machine."""
    dashboard, verbose = settings.watching.dashboard, settings.watching.verbose
    ray_home.secure_token(create=True)
    # Packed trials wait for what trains them, and need nothing of it themselves.
    loads = "" if settings.resources.pack > 1 else "study.tuning.trainable"
    with (
        ray_waits.only_what_serves(dashboard=dashboard, logs=verbose),
        ray_waits.process_ready(environment(ray_home.last_folders(), loads)),
        _starting(_NOT_STARTED.format),
    ):
        rest = ray_waits.connecting_later(
            lambda: _init(
                settings,
                address="local",
                include_dashboard=dashboard,
                dashboard_host="127.0.0.1",
                _temp_dir=ray_home.temporary_folder(),
            )
        )
    _begun.append(rest)


def _join(settings: Settings) -> str:
    """Join a cluster; returns its dashboard's address, or ""."""
    where = str(settings.resources.address)
    _answers(where)
    ray_home.secure_token(create=False)
    with _starting(lambda reason: f"--address {where}: no Ray cluster answers there ({reason}); {_NO_CLUSTER}"):
        context = _init(
            settings,
            address=where,
            runtime_env={
                "env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")},
                "worker_process_setup_hook": ray_home.put_last(ray_home.last_folders()),
            },
        )
    url = getattr(context, "dashboard_url", "")
    return f"http://{url}" if settings.watching.dashboard and url else ""


def _init(settings: Settings, **options: Any) -> Any:
    """`ray.init`, quietly, with what the dashboard shows of the job."""
    quiet = not settings.watching.verbose
    logging.getLogger("ray").setLevel(logging.ERROR if quiet else logging.INFO)
    for name in ("ray.tune", "ray.train", "ray.air"):  # a trial's error has its place: the reason in trials.csv
        logging.getLogger(name).setLevel(logging.CRITICAL if quiet else logging.INFO)
    with ray_home.job_listed_as(job_title(settings)):
        return ray.init(
            log_to_driver=not quiet,
            logging_level=logging.ERROR if quiet else logging.INFO,
            configure_logging=True,
            job_config=ray_home.OwnPath(metadata=job_metadata(settings)),
            **options,
        )


@contextlib.contextmanager
def _starting(message: Callable[[str], str]) -> Iterator[None]:
    """Let signals mean what they did, and make one line of what Ray raises, which is of many kinds.

    Args:
        message: of the reason.
    """
    try:
        with ray_home.signals_left_alone():
            yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(message(reason)) from error


def job_title(settings: Settings) -> str:
    """What Ray's dashboard lists a study's job as."""
    return f"{settings.folder.name}: {settings.budget.num_samples} trials of {settings.kind} on {settings.dataset}"


def job_metadata(settings: Settings) -> dict[str, str]:
    """What Ray's dashboard shows of the job."""
    return {
        "job_name": settings.folder.name,
        "kind": settings.kind,
        "dataset": settings.dataset,
        "trials": str(settings.budget.num_samples),
        "folder": str(settings.folder.resolve()),
    }


def stop_ray() -> None:
    """Leave the cluster, or end the Ray that `start_ray` started."""
    _begun.clear()
    ray_waits.end_autoscaler()
    ray.shutdown()


def _answers(address: str) -> None:
    """See that something listens at HOST:PORT, for which Ray itself would wait minutes.

    Raises:
        UserError: nothing does.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        if address != "auto":
            raise UserError(f"--address {address}: give HOST:PORT of a Ray head node, or auto")
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--address {address}: no Ray cluster answers there ({error}); {_NO_CLUSTER}") from error
