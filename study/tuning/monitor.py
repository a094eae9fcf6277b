"""`--monitor`: Prometheus next to a study, which keeps the time series of Ray's dashboard and of the study itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import ray._private.worker as ray_worker

from study.errors import UserError
from study.settings import Settings

HOST = "RAY_PROMETHEUS_HOST"
"""The variable by which Ray's dashboard knows where Prometheus answers; it reads it when it starts."""
USUAL_PORT = 9090
PATIENCE = 120.0
"""Seconds, on a busy machine, until Ray's dashboard has written the configuration, and until Prometheus answers."""
DASHBOARD = Path(__file__).parent / "grafana" / "study.json"
"""Of the study's metrics, for Grafana."""


class Monitor:
    """Debian's Prometheus on 127.0.0.1 while a study runs, with the configuration that Ray writes for it.

    Nothing happens where the settings do not ask for it. `start` and `stop` are called once each, in this order, with
    Ray running.
    """

    def __init__(self, settings: Settings) -> None:
        self.wanted = settings.watching.monitor
        self.process: subprocess.Popen[bytes] | None = None
        self.url, self.folder, self.named = "", Path(), False
        if not self.wanted:
            return
        self.url = os.environ[HOST] = f"http://127.0.0.1:{_free_port()}"
        self.named = True

    def start(self) -> None:
        """Start Prometheus, once the dashboard has written its configuration.

        Raises:
            UserError: it does not start.
        """
        if not self.wanted:
            return
        session = Path(ray_worker._global_node.get_session_dir_path())  # type: ignore[attr-defined]
        self.folder = session / "metrics"
        config = self.folder / "prometheus" / "prometheus.yml"
        log = session / "logs" / "prometheus.log"
        until = time.monotonic() + PATIENCE
        while not config.exists() and time.monotonic() < until:
            time.sleep(0.2)
        if not config.exists():
            raise UserError("--monitor: Ray's dashboard did not start, so there is nothing to read; leave it out")
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command(config, self.url), stdin=subprocess.DEVNULL, stdout=file, stderr=file, process_group=0
            )
        while not _answers(self.url):
            if self.process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise UserError(f"--monitor: Prometheus did not start; {log} says why")
            time.sleep(0.2)
        with contextlib.suppress(OSError):  # Ray's own Grafana configuration reads this folder
            shutil.copy(DASHBOARD, self.folder / "grafana" / "dashboards" / "study_grafana_dashboard.json")

    def addresses(self) -> list[str]:
        """Lines that tell where it is."""
        if self.process is None:
            return []
        return [
            f"Prometheus: {self.url}/graph?g0.expr=ray_study_best&g0.tab=0&g0.range_input=15m",
            f"Grafana, if installed: grafana-server --config {self.folder}/grafana/grafana.ini",
        ]

    def stop(self) -> None:
        """End Prometheus; its time series go with Ray's session."""
        if self.named:
            os.environ.pop(HOST, None)
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


def check_monitor(settings: Settings) -> None:
    """See that `--monitor` can work here, before anything starts.

    Raises:
        UserError: what is missing, and what to do.
    """
    if not settings.watching.monitor:
        return
    if settings.resources.address:
        raise UserError(
            "--monitor is for the Ray that a study starts itself; with --address start Prometheus on the head node, "
            "with SESSION/metrics/prometheus/prometheus.yml of Ray's folder there"
        )
    if not settings.watching.dashboard:
        raise UserError("--monitor: Ray's dashboard writes what Prometheus reads; leave --no-dashboard out")
    if os.environ.get(HOST):
        raise UserError(f"--monitor: {HOST} names a Prometheus already; unset it, or leave --monitor out")
    if not shutil.which("prometheus"):
        raise UserError("--monitor: Prometheus is not installed; apt-get install prometheus, or leave --monitor out")


def command(config: Path, url: str) -> list[str]:
    """What starts Prometheus. Where Linux can do it, the kernel ends it should the study's process be killed."""
    with_us = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
    return [
        *with_us,
        "prometheus",
        f"--config.file={config}",
        f"--web.listen-address={url.removeprefix('http://')}",
        f"--storage.tsdb.path={config.parent / 'data'}",
        "--log.level=warn",
    ]


def _free_port() -> int:
    for port in (USUAL_PORT, 0):
        with contextlib.suppress(OSError), socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(("127.0.0.1", port))
            return int(tried.getsockname()[1])
    raise UserError("--monitor: no port of 127.0.0.1 is free")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
