"""A study on several machines, which Ray's own test cluster simulates: one is lost and one joins in the middle."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bed
import psutil
import pytest
from ray.cluster_utils import Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    made.shutdown()


def trains(node: object) -> bool:
    """Whether a trial runs on this node: its raylet has a worker with Tune's actor in it."""
    daemons = [p.process for processes in node.all_processes.values() for p in processes]  # type: ignore[attr-defined]
    for daemon in daemons:
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(daemon.pid).children(recursive=True):
                if bed.is_trial(process):
                    return True
    return False


@pytest.mark.slow
def test_a_node_is_lost_and_another_joins(cluster: Cluster, tmp_path: Path) -> None:
    """Three nodes; one dies with a trial on it, a new one joins and gets a trial; the study ends complete."""
    nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
    cluster.wait_for_nodes()
    trials = 2 * bed.TRIALS  # so that some are left to start when the new node is there
    command = bed.start(tmp_path, "--address", cluster.address, "--num-samples", str(trials))
    try:
        bed.until(lambda: bed.searching(tmp_path / bed.NAME) and any(trains(n) for n in nodes))
        lost = next(n for n in nodes if trains(n))
        cluster.remove_node(lost, allow_graceful=False)
        joined = cluster.add_node(num_cpus=1)
        bed.until(lambda: trains(joined) or command.process.poll() is not None)
        assert trains(joined), "no trial ran on the node that joined: " + command.output
        assert command.wait() == 0, command.output[-3000:]
        bed.judge(tmp_path / bed.NAME, trials)
    finally:
        command.kill_all()


def test_no_cluster_there_is_one_line(tmp_path: Path) -> None:
    """An address where nothing answers is named, with status 2."""
    done = subprocess.run(
        [sys.executable, "-m", "study.run", *bed.STUDY, "--results-dir", str(tmp_path), "--address", "127.0.0.1:1"],
        cwd=bed.ROOT, capture_output=True, text=True, timeout=600, env=bed.environment(),
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("error: --address 127.0.0.1:1: "), done.stderr
    assert len(done.stderr.splitlines()) == 1
