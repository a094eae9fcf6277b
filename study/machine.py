"""Ray on this machine, or a cluster: starting it quietly, and what its nodes can hold."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

# Before Ray is imported: it reads these then, and its own tables would write over the display.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray

from study.errors import UserError
from study.settings import Common


def start_ray(settings: Common) -> str:
    """Join or start Ray; returns the dashboard's address, or ""."""
    quiet = not settings.verbose
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR if quiet else logging.INFO)
    local: dict[str, Any] = {"include_dashboard": settings.dashboard, "dashboard_host": "127.0.0.1"}
    try:
        context = ray.init(
            address=settings.address or "local",
            log_to_driver=not quiet,
            logging_level=logging.ERROR if quiet else logging.INFO,
            configure_logging=True,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}},
            **({} if settings.address else local),
        )
    except (ConnectionError, ValueError, TimeoutError) as error:
        raise UserError(
            f"--address {settings.address}: no Ray cluster answers there ({str(error).splitlines()[0]})"
        ) from error
    url = getattr(context, "dashboard_url", "")
    return f"http://{url}" if settings.dashboard and url else ""


def resources(settings: Common) -> tuple[float, int]:
    """GPUs of each trial, and trials at one time. Refuses what no node can hold, which Ray would wait for."""
    nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
    has_gpu = any(n.get("GPU", 0) for n in nodes)
    gpus = settings.gpus_per_trial if settings.gpus_per_trial is not None else (0.25 if has_gpu else 0.0)
    cpus = settings.cpus_per_trial
    if gpus and not has_gpu:
        raise UserError(f"--gpus-per-trial {gpus:g}: there is no GPU here; leave the flag out, or give 0")
    if cpus > max(n.get("CPU", 0) for n in nodes):
        most = max(n.get("CPU", 0) for n in nodes)
        raise UserError(f"--cpus-per-trial {cpus:g}: the largest machine has {most:g} CPUs; give that or less")
    if gpus > max(n.get("GPU", 0) for n in nodes) or (gpus > 1 and gpus != int(gpus)):
        raise UserError(f"--gpus-per-trial {gpus:g}: give a fraction of one GPU, or a whole number that a machine has")
    held = sum(
        min(int(n.get("CPU", 0) / cpus + 1e-9), int(n.get("GPU", 0) / gpus + 1e-9) if gpus else sys.maxsize)
        for n in nodes
    )
    if held < 1:
        raise UserError(f"--cpus-per-trial {cpus:g} --gpus-per-trial {gpus:g}: no machine holds both together")
    return gpus, min(held, settings.max_concurrent or held)
