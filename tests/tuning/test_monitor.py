"""What a running study shows outside itself: in Ray's dashboard, in the titles of processes, to Prometheus."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import bed
import pytest
from ray.dashboard.modules.metrics.dashboards import default_dashboard_panels

from study.errors import UserError
from study.methods.sws.settings import SWSSettings
from study.settings import resolve
from study.tuning import monitor, study_metrics
from study.tuning.monitor import check_monitor

installed = pytest.mark.skipif(not shutil.which("prometheus"), reason="Prometheus is not installed")
TRIALS = 1000
"""More than can end before all was seen."""


class Running(NamedTuple):
    """A study that runs under Prometheus."""

    command: bed.Command
    token: str

    def address(self, what: str) -> str:
        """Printed behind this word, without what follows the port."""
        return re.search(rf"{what}: (http://[\d.]+:\d+)", self.command.output)[1]  # type: ignore[index]

    def ask(self, path: str, what: str = "Ray dashboard") -> Any:
        request = urllib.request.Request(self.address(what) + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def series(self, query: str) -> list[dict[str, Any]]:
        asked = urllib.parse.urlencode({"query": query})
        return self.ask(f"/api/v1/query?{asked}", "Prometheus")["data"]["result"]

    def tasks(self) -> dict[str, str]:
        """Their states by their names."""
        answer = self.ask("/api/v0/tasks?detail=1&limit=10000&timeout=20")
        return {task["name"]: task["state"] for task in answer["data"]["result"]["result"]}


def start(folder: Path) -> bed.Command:
    """A study of short trials under Prometheus, in a process of its own."""
    log = folder / "log"
    flags = f"--num-samples {TRIALS} --pretrain-epochs 1 --epochs 3 --monitor --results-dir".split()
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "study.run", "sws", *flags, str(folder)],
            cwd=bed.ROOT, stdout=out, stderr=out, env=bed.environment(), process_group=0,
        )  # fmt: skip
    return bed.Command(process, log)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A study of many trials, and Ray's token, which is none of this user's."""
    if not shutil.which("prometheus"):
        pytest.skip("Prometheus is not installed")
    folder = tmp_path_factory.mktemp("monitored")
    os.environ["RAY_AUTH_TOKEN"], before = "0123456789abcdef" * 4, os.environ.get("RAY_AUTH_TOKEN")
    try:
        command = start(folder)
    finally:
        token = os.environ.pop("RAY_AUTH_TOKEN")
        if before:
            os.environ["RAY_AUTH_TOKEN"] = before
    bed.until(lambda: "Prometheus: " in command.output or command.process.poll() is not None)
    assert command.process.poll() is None, command.output
    yield Running(command, token)
    command.kill_all()


def eventually(true: Callable[[], bool], seconds: float = 150) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(2)
    return False


def test_the_job_is_listed_under_the_study(study: Running) -> None:
    """With its kind, its data and its trials."""
    (job,) = study.ask("/api/jobs/")
    assert job["entrypoint"].startswith(f"{bed.NAME}: {TRIALS} trials of sws on digits  (")
    shown = {"job_name": bed.NAME, "kind": "sws", "dataset": "digits", "trials": str(TRIALS)}
    assert shown.items() <= job["metadata"].items()


def test_trials_are_tasks_with_their_values(study: Running) -> None:
    """Those that ended and those that run; what Tune asks of its actors is not among them."""
    assert eventually(lambda: any(s == "FINISHED" for n, s in study.tasks().items() if re.search(r" t\d+: ", n)))
    tasks = study.tasks()
    assert tasks[f"{bed.NAME} uncompressed"] == "FINISHED"
    assert any(re.fullmatch(rf"{bed.NAME} t001: density=[\d.e-]+, components=\d+", name) for name in tasks)
    assert not [name for name in tasks if name.endswith((".train", ".reset", ".stop"))]


def test_processes_and_logs_name_their_trial(study: Running) -> None:
    """A process has study, trial, epoch and values in its title; each line of its log begins with the trial."""

    def titles() -> list[str]:
        return [process.cmdline()[0] for process in study.command.workers()]

    wanted = rf"ray::{bed.NAME} t\d+ (starting|epoch \d+ done): density="
    assert eventually(lambda: any(re.match(wanted, title) for title in titles()), 60), titles()
    session = re.search(r"--config (.+)/metrics/grafana/grafana.ini", study.command.output)[1]  # type: ignore[index]
    files = [file.read_text() for file in Path(session, "logs").glob("worker-*.out")]
    lines = [line for text in files for line in text.splitlines()]
    of_trials = [line for line in lines if line and not line.startswith(":")]
    assert any(re.match(r"t\d+  epoch \d+: ", line) for line in of_trials)
    assert not [line for line in of_trials if not re.match(r"[\w' ]+  \S", line)]


def test_prometheus_has_what_the_study_exports(study: Running) -> None:
    """Every series, by the name that the code gives it, and the dashboard knows that Prometheus is there."""

    def missing() -> list[str]:
        return [name for name in study_metrics.exported_names() if not study.series(name)]

    assert eventually(lambda: not missing()), missing()
    assert {row["metric"]["study"] for row in study.series("ray_study_best")} == {bed.NAME}
    assert {row["metric"]["state"] for row in study.series("ray_study_trials")} == {
        "running", "complete", "pruned", "failed"
    }  # fmt: skip
    (volume,) = study.series("ray_study_hypervolume")
    assert 0 < float(volume["value"][1]) <= 1
    assert study.ask("/api/prometheus_health")["result"]


def test_ctrl_c_ends_prometheus_and_nothing_names_the_token(study: Running, tmp_path: Path) -> None:
    """It ends with the study. What the command printed into a file has no token."""
    address = study.address("Prometheus")
    study.command.process.send_signal(signal.SIGINT)
    assert study.command.wait(120) == 130, study.command.output
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{address}/-/ready", timeout=5)
    assert study.token not in study.command.output


@installed
def test_prometheus_accepts_the_configuration(tmp_path: Path) -> None:
    """Ray's template, with a path of ours in it."""
    templates = pytest.importorskip("ray.dashboard.modules.metrics.templates")
    file = tmp_path / "prometheus.yml"
    file.write_text(templates.PROMETHEUS_YML_TEMPLATE.format(prom_metrics_service_discovery_file_path="/x.json"))
    assert os.spawnvp(os.P_WAIT, "promtool", ["promtool", "check", "config", str(file)]) == 0
    line = monitor.command(file, "http://127.0.0.1:9090")
    assert "--web.listen-address=127.0.0.1:9090" in line


@installed
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv is not installed")
def test_prometheus_ends_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    """The kernel ends it where the driver cannot."""
    (tmp_path / "prometheus.yml").write_text("global: {}\n")
    url = f"http://127.0.0.1:{monitor._free_port()}"
    script = f"import subprocess, time; subprocess.Popen({monitor.command(tmp_path / 'prometheus.yml', url)!r}).wait()"
    driver = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    assert eventually(lambda: monitor._answers(url), 60)
    driver.kill()
    driver.wait()
    assert eventually(lambda: not monitor._answers(url), 30)


def test_the_grafana_dashboard_names_exported_metrics_alone() -> None:
    """The study's, all of them, and of Ray's those that its own dashboard has."""
    board = json.loads(monitor.DASHBOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [variable["query"] for variable in board["templating"]["list"]]
    named = set(re.findall(r"ray_\w+", " ".join(queries)))
    ours = {name for name in named if name.startswith("ray_study_")}
    assert ours == set(study_metrics.exported_names())
    rays = Path(default_dashboard_panels.__file__).read_text()
    assert not [name for name in named - ours if not re.search(rf"\b{name}\b", rays)]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"address": "auto"}, "--monitor is for the Ray that a study starts itself"),
        ({"dashboard": False}, "--monitor: Ray's dashboard writes what Prometheus reads"),
        ({}, "--monitor: Prometheus is not installed; apt-get install prometheus"),
    ],
)
def test_what_monitor_needs_is_one_line(
    flags: dict[str, Any], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names what is missing, before Ray starts; without the flag nothing is asked for."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(monitor.HOST, raising=False)
    settings = resolve(SWSSettings()).changed(monitor=True, **flags)
    with pytest.raises(UserError, match=f"^{re.escape(line)}"):
        check_monitor(settings)
    check_monitor(settings.changed(monitor=False))
    monkeypatch.setenv(monitor.HOST, "http://elsewhere:9090")
    with pytest.raises(UserError, match="^--monitor"):
        check_monitor(settings)
