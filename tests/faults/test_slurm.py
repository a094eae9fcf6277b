"""The Slurm script on a Slurm of one node, which runs as long as the test: Debian's slurm-wlm and munge, as root."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bed
import pytest

from study.run import parse

SCRIPT = bed.ROOT / "study" / "recipes" / "slurm.sbatch"
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch")


def free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("", 0))
        return int(opened.getsockname()[1])


CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
KillWait=30
ReturnToService=2
NodeName={host} CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which Slurm's commands find this cluster."""
    if os.getuid() != 0 or not all(map(shutil.which, NEEDED)):
        pytest.skip("needs root, and Debian's slurm-wlm and munge")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    folder.chmod(0o755)
    host, ports = socket.gethostname(), (free_port(), free_port())
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, ports=ports, folder=folder))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    environment = {
        **bed.environment(), "SLURM_CONF": str(folder / "slurm.conf"), "HOME": str(folder), "USER": "root",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    munge = [f"--{what}={folder}/munge.{what.removesuffix('-file')}" for what in ("key-file", "pid-file", "log-file")]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--seed-file={folder}/seed", *munge],
        ["slurmctld", "-D", "-L", f"{folder}/slurmctld.log"],
        ["slurmd", "-D", "-L", f"{folder}/slurmd.log"],
    ]
    daemons = []
    for command in commands:
        daemons.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, process_group=0))
        time.sleep(2)
    try:
        bed.until(lambda: "idle" in ask(environment, "sinfo", "-h", "-o", "%t"), 60)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def ask(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, cwd=bed.ROOT)
    return done.stdout + done.stderr


def restarts(environment: dict[str, str], job: str) -> int:
    return int(re.search(r"Restarts=(\d+)", ask(environment, "scontrol", "show", "job", job))[1])  # type: ignore[index]


def state(environment: dict[str, str], job: str) -> str:
    return re.search(r"JobState=(\w+)", ask(environment, "scontrol", "show", "job", job))[1]  # type: ignore[index]


@pytest.mark.slow
def test_a_job_is_requeued_and_the_study_is_complete(slurm: dict[str, str], tmp_path: Path) -> None:
    """The signal before the time limit, and then Slurm's own requeue, which kills all: the same job goes on each time,
    and the study has exactly the trials asked for, nothing twice."""
    log, trials = tmp_path / "job.log", 2 * bed.TRIALS
    arguments = [*bed.STUDY, "--num-samples", str(trials), "--results-dir", str(tmp_path / "results")]
    said = ask(slurm, "sbatch", "--cpus-per-task=2", f"--output={log}", str(SCRIPT), *arguments)
    job = re.search(r"Submitted batch job (\d+)", said)[1]  # type: ignore[index]
    folder = tmp_path / "results" / bed.NAME

    def output() -> str:
        return log.read_text() if log.exists() else said

    def until(condition: Callable[[], bool]) -> None:
        try:
            bed.until(lambda: condition() or state(slurm, job) in ("FAILED", "CANCELLED", "TIMEOUT"), 400)
        finally:
            assert condition(), f"{state(slurm, job)}: {output()[-3000:]}"

    try:
        until(lambda: bed.searching(folder) and bed.trials_ended(folder) >= 1)
        ask(slurm, "scancel", "--batch", "--signal=USR1", job)
        until(lambda: restarts(slurm, job) == 1 and state(slurm, job) == "RUNNING")
        assert "the time limit is near: requeued" in output()
        before = bed.trials_ended(folder)
        assert before < trials
        until(lambda: bed.trials_ended(folder) > before)
        assert bed.trials_ended(folder) < trials
        ask(slurm, "scontrol", "requeue", job)
        until(lambda: state(slurm, job) == "COMPLETED")
        assert restarts(slurm, job) == 2
        bed.judge(folder, trials)
        token = Path(slurm["HOME"], ".ray", "auth_token")
        assert token.stat().st_mode & 0o077 == 0 and token.read_text() not in output()
    finally:
        ask(slurm, "scancel", job)


def test_the_script_is_bash_and_its_example_is_understood() -> None:
    """Its syntax is checked, and the command in its comment is one that study.run takes."""
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0
    example = re.search(r"slurm.sbatch (kd .*)", SCRIPT.read_text())[1].split()  # type: ignore[index]
    assert parse(example).files.results_dir == Path("/shared/results")
