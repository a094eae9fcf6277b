"""Mapped images in a cluster whose nodes, simulated on this machine, have caches of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import bed
import numpy as np
import pytest
from PIL import Image
from ray._private.internal_api import node_stats
from ray.cluster_utils import Cluster

from study.records import columns, paths, study_folder
from study.tuning import node_data
from study.tuning.node_data import Lines, shown

SIDE, COUNT, TRIALS = 24, 400, 3
IMAGES = 2 * COUNT * 3 * SIDE * SIDE
"""Bytes of the training and validation images."""
STUDY = (
    f"sws --variant soft --name folder --dataset folder --image-size {SIDE} --network lenet5 --num-samples {TRIALS} "
    "--pretrain-epochs 1 --epochs 6 --codebook-epochs 1 --sigma 0.02 --precision-rate 0.05 --no-dashboard"
).split()
COMMAND = "import sys; from study.data import mapped; mapped.SHARE = 0.0; from study.run import main; sys.exit(main())"
"""`study.run`, for which these few images are large."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes, one darker than the other; not compressed, so that each file can become another of its size."""
    rng = np.random.default_rng(0)
    for part, count in (("train", COUNT), ("test", 20)):
        for brightest, name in ((200, "cat"), (256, "dog")):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, brightest, (SIDE, SIDE, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.bmp")
    return tmp_path / "photos"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """The driver's node, and another one, where trials run."""
    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **cache(tmp_path, 0)}
    )
    made.add_node(num_cpus=1, **cache(tmp_path, 1))
    made.wait_for_nodes()
    yield made
    made.shutdown()


def cache(tmp_path: Path, node: int) -> dict[str, dict[str, str]]:
    return {"env_vars": {"XDG_CACHE_HOME": str(tmp_path / f"cache{node}")}}


def entries(tmp_path: Path, node: int) -> list[str]:
    """All that lies where entries do in the cache of a node, whatever its name."""
    folder = tmp_path / f"cache{node}" / "compression-study/folders"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def start(tmp_path: Path, photos: Path, *more: str) -> bed.Command:
    log = tmp_path / "log"
    files = ["--data-dir", str(photos), "--results-dir", str(tmp_path / "results")]
    environment = {**bed.environment(), **cache(tmp_path, 0)["env_vars"]}
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *STUDY, *files, *more],
            cwd=bed.ROOT, stdout=out, stderr=out, env=environment, process_group=0,
        )  # fmt: skip
    return bed.Command(process, log)


@pytest.mark.slow
def test_every_node_makes_its_own_files(cluster: Cluster, photos: Path, tmp_path: Path) -> None:
    """A node that lacks them does so before the study starts. One that joins, when the first is lost, does so before
    its first trial. Each cache has one entry, all trials are complete, and object stores got less than the images."""
    command = start(tmp_path, photos, "--address", cluster.address)
    try:
        bed.until(lambda: bed.searching(tmp_path / "results/folder") or command.process.poll() is not None)
        assert len(entries(tmp_path, 1)) == 1, command.output
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        joined_node = cluster.add_node(num_cpus=1, **cache(tmp_path, 2))
        bed.until(lambda: bool(entries(tmp_path, 2)) or command.process.poll() is not None)
        assert command.wait() == 0, command.output[-3000:]
    finally:
        command.kill_all()
    first, second, joined = (entries(tmp_path, node) for node in range(3))
    assert first == second == joined and len(first) == 1 and not first[0].startswith(".")
    assert f": decodes --data-dir {photos}, once\n" in command.output and ": is ready after " in command.output
    trials = study_folder.read_frame(tmp_path / "results/folder" / paths.TRIALS, columns.TRIAL_COLUMNS)
    assert set(trials["state"]) == {"complete"} and (trials["baseline"] == "").sum() == TRIALS
    for node in (cluster.head_node, joined_node):
        stored = node_stats(node.node_ip_address, node.node_manager_port).store_stats.cumulative_created_bytes
        assert 0 < stored < IMAGES


@pytest.mark.slow
def test_a_node_with_other_files_is_refused(cluster: Cluster, photos: Path, tmp_path: Path) -> None:
    """By its address, with what differs, status 2, before anything is written; it has no entry. The driver's node has
    its own since an earlier command, when the file was another."""
    assert start(tmp_path, photos, "--dry-run").wait() == 0
    file = photos / "train/cat/7.bmp"
    times = file.stat()
    Image.new("RGB", (SIDE, SIDE), "red").save(file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    command = start(tmp_path, photos, "--address", cluster.address)
    assert command.wait() == 2, command.output
    (line,) = [line for line in command.output.splitlines() if line.startswith("error: ")]
    address = next(iter(cluster.worker_nodes)).node_ip_address
    assert line.startswith(f"error: node {address}: --data-dir {photos}: the files have the names and sizes of those ")
    assert entries(tmp_path, 1) == [] and not (tmp_path / "results/folder").exists()


def test_lines_come_at_intervals(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal: a line of each node after every interval, and none before."""
    now = [0.0]
    monkeypatch.setattr(node_data.time, "monotonic", lambda: now[0])
    with shown({"a": "10.0.0.7", "b": "10.0.0.8"}) as show:
        for second in range(0, 61, 10):
            now[0] = float(second)
            show({"a": ("decoded", 2000 * second, 400_000), "b": ("written", 5, 7)})
    assert capsys.readouterr().out.splitlines() == [
        "node 10.0.0.7: 60,000 of 400,000 images decoded",
        "node 10.0.0.8: 5 of 7 images written",
        "node 10.0.0.7: 120,000 of 400,000 images decoded",
        "node 10.0.0.8: 5 of 7 images written",
    ]
    Lines().say("", "at once")
    assert capsys.readouterr().out == ""


def test_a_terminal_has_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """About the node that is behind the others; it is gone at the end."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with shown({"a": "10.0.0.7", "b": "10.0.0.8"}) as show:
        show({"a": ("written", 5, 400_000), "b": ("decoded", 7, 400_000)})
    out, err = capsys.readouterr()
    assert out == "" and "node 10.0.0.8, the last of 2: 7 of 400,000 images decoded" in err
    assert "10.0.0.7" not in err
