"""Starting and stopping Ray, quietly; on this machine also in the background, while a command loads what it needs."""

from __future__ import annotations

import logging
import os
import socket
import threading

import ray

from study.errors import UserError
from study.records.columns import Row
from study.settings import Settings
from study.tuning import ray_home

_NO_CLUSTER = "start one with ray start --head, or leave --address out"
"""What to do where no cluster answers."""


class _Beginning(threading.Thread):
    """A start of Ray in the background.

    The thread lives as long as Ray: the daemons end with the thread that started them (PR_SET_PDEATHSIG).
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="start of Ray", daemon=True)
        self.settings, self.dashboard = settings, ""
        self.error: Exception | None = None
        self._ready, self._over = threading.Event(), threading.Event()

    def run(self) -> None:
        try:
            self.dashboard = _start(self.settings)
        except Exception as error:  # raised where it is waited for
            self.error = error
        self._ready.set()
        self._over.wait()

    def result(self) -> str:
        """What `start_ray` returns or raises, once Ray is there."""
        self._ready.wait()
        if self.error:
            raise self.error
        return self.dashboard

    def end(self) -> None:
        """End Ray; a start that nobody waited for ends with this process, and its daemons with it."""
        if not self._ready.is_set():
            return
        ray.shutdown()
        self._over.set()
        self.join()


_begun: list[_Beginning] = []
"""The start in the background, if there was one."""


def begin_ray(settings: Settings) -> None:
    """Start Ray on this machine in the background; `start_ray` waits for it.

    Its daemons take seconds to come up, in which a command loads PyTorch, reads its data and tries its networks.
    """
    import ray.tune  # noqa: F401  # here, since two threads that import parts of one package wait for each other

    _begun.append(_Beginning(settings))
    _begun[0].start()


def start_ray(settings: Settings) -> str:
    """Join or start Ray, or wait until it has started that was begun; returns the dashboard's address, or "".

    Raises:
        UserError: it does not answer, or does not start.
    """
    return _begun[0].result() if _begun else _start(settings)


def _start(settings: Settings) -> str:
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
        with ray_home.signals_left_alone(), ray_home.job_listed_as(job_title(settings)):
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
    """Leave the cluster, or end the Ray that was started here, or begun."""
    if _begun:
        _begun.pop().end()
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
