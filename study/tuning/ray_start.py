"""Starting and stopping Ray, quietly, on this machine or in a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import socket

import ray

from study.errors import UserError
from study.records.columns import Row
from study.settings import Settings
from study.tuning import ray_home, ray_waits

_NO_CLUSTER = "start one with ray start --head, or leave --address out"
"""What to do where no cluster answers."""


def start_ray(settings: Settings) -> str:
    """Join or start Ray; returns the dashboard's address, or "".

    Raises:
        UserError: it does not answer, or does not start.
    """
    if settings.resources.address:
        _answers(settings.resources.address)
    quiet = not settings.watching.verbose
    logging.getLogger("ray").setLevel(logging.ERROR if quiet else logging.INFO)
    for name in ("ray.tune", "ray.train", "ray.air"):  # a trial's error has its place: the reason in trials.csv
        logging.getLogger(name).setLevel(logging.CRITICAL if quiet else logging.INFO)
    where = settings.resources.address
    ray_home.secure_token(create=not where)
    local: Row = {}
    if not where:
        # Ray would start a process for each core at once, none of which has the environment that trials need.
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
        local = {"include_dashboard": settings.watching.dashboard, "dashboard_host": "127.0.0.1"}
        local["_temp_dir"] = ray_home.temporary_folder()
    try:
        with (
            ray_home.signals_left_alone(),
            ray_home.job_listed_as(job_title(settings)),
            contextlib.nullcontext()
            if where
            else ray_waits.only_what_serves(dashboard=settings.watching.dashboard, logs=not quiet),
        ):
            context = ray.init(
                address=where or "local",
                log_to_driver=not quiet,
                logging_level=logging.ERROR if quiet else logging.INFO,
                configure_logging=True,
                job_config=ray_home.OwnPath(metadata=job_metadata(settings)),
                runtime_env={
                    "env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")},
                    "worker_process_setup_hook": ray_home.put_last(ray_home.last_folders()),
                },
                **local,
            )
    except Exception as error:  # Ray raises many kinds
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if where:
            raise UserError(f"--address {where}: no Ray cluster answers there ({reason}); {_NO_CLUSTER}") from error
        raise UserError(f"Ray could not be started on this machine ({reason})") from error
    url = getattr(context, "dashboard_url", "")
    return f"http://{url}" if settings.watching.dashboard and url else ""


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
