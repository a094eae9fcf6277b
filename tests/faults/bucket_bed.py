"""A study whose results lie in a bucket: its driver is killed at random moments, and its copy on this machine deleted.

    python tests/faults/bucket_bed.py --kills 10

The bucket is of moto's S3 server on 127.0.0.1. After every death what the bucket has must be a study that can be
continued, which has lost no trial that it had. In the end exactly the trials asked for are there, and nothing twice.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bed
import psutil

sys.path.insert(0, str(bed.ROOT / "tests"))

import buckets

from study.records import columns, paths, study_folder
from study.records.ledger import Ledger

RESULTS = f"s3://{buckets.BUCKET}/some/results"
LATEST = 40.0
"""Seconds after its first epoch at which a driver is killed at the latest."""
BUSY = "Ray could not be started on this machine"
"""Said where too much runs next to this: the command is then given again, and no death is counted."""


def start(cache: Path, study: list[str]) -> bed.Command:
    log = Path(tempfile.mkstemp(suffix=".log")[1])
    environment = {**bed.environment(), "COMPRESSION_STUDY_CACHE": str(cache), "COMPRESSION_STUDY_LEASE_SECONDS": "5"}
    command = [sys.executable, "-m", "study.run", *study, "--results-dir", RESULTS]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=bed.ROOT, stdout=out, stderr=out, env=environment, process_group=0)
    return bed.Command(process, log)


def killed(command: bed.Command, cache: Path, after: float) -> bool:
    """Kill the driver so many seconds after its first epoch, and wait until what it started has ended; False if it had
    ended before."""
    status, began = None, time.time()

    def trains() -> bool:
        checkpoints = cache.glob(f"*/*/{paths.CHECKPOINTS}/*.pt")
        return any(path.stat().st_mtime > began for path in checkpoints) or command.process.poll() is not None

    bed.until(trains)
    try:
        status = command.process.wait(after)
    except subprocess.TimeoutExpired:
        family = command.family()
        os.kill(command.process.pid, signal.SIGKILL)
        command.process.wait()
        _, alive = psutil.wait_procs(family, 10)
        for process in alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
    assert status in (None, 0) or BUSY in command.output, f"status {status}: {command.output[-2000:]}"
    return status is None


def downloaded(name: str) -> Path:
    """What the bucket has of the study, in a new folder."""
    folder = Path(tempfile.mkdtemp()) / name
    root = f"{RESULTS.removeprefix('s3://')}/{name}"
    store = buckets.store()
    for path in store.find(root):
        relative = path.removeprefix(f"{root}/")
        if not relative.startswith(".lease"):
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            store.get_file(path, str(folder / relative))
    return folder


def final_rows(folder: Path) -> dict[str, columns.Row]:
    """Rows of trials that have ended, once it is sure that this study can be continued."""
    if not (folder / paths.STUDY).exists():
        return {}
    ledger = Ledger.open(folder)
    ended = {i: row for i, row in ledger.trials.items() if row["state"] in columns.FINAL_STATES}
    for trial_id, row in ended.items():
        if row["baseline"] != "uncompressed":  # its history comes with the shared work
            epochs = len(ledger.history.get(trial_id, []))
            there = (folder / paths.CHECKPOINTS / f"{paths.trial_folder(trial_id)}.pt").exists()
            assert epochs == row["epochs"] or there, f"{trial_id} has lost epochs"
    return ended


def injure(kills: int, study: list[str], name: str, latest: float = LATEST) -> tuple[int, int, int]:
    """Run the study to its end, with so many deaths on the way.

    Args:
        latest: seconds after its first epoch at which a driver is killed at the latest.
    Returns: deaths, copies deleted, and trials that had ended before the last death.
    """
    draw, cache = random.Random(0), Path(tempfile.mkdtemp())
    deaths = deleted = 0
    ended: dict[str, columns.Row] = {}
    while deaths < kills:
        command = start(cache, study)
        if not killed(command, cache, draw.uniform(0, latest)):
            if BUSY in command.output:
                continue
            print("the study ended before the next death", flush=True)
            break
        deaths += 1
        copy = downloaded(name)
        now = final_rows(copy)
        assert all(now.get(i) == row for i, row in ended.items()), "a trial that had ended is lost, or another one"
        ended = now
        print(f"death {deaths}: {sorted(ended)}", flush=True)
        shutil.rmtree(copy.parent)
        if deaths % 3 == 2:
            shutil.rmtree(cache)
            cache.mkdir()
            deleted += 1
    began = time.monotonic()
    command = start(cache, study)
    while (status := command.wait()) and BUSY in command.output:
        command = start(cache, study)
    assert status == 0, f"status {status}: {command.output[-3000:]}"
    print(f"the last command took {time.monotonic() - began:.0f} s", flush=True)
    shutil.rmtree(cache)
    return deaths, deleted, len(ended)


def judge(folder: Path, wanted: int) -> None:
    """Raise AssertionError unless exactly the trials asked for are there, each with every epoch once, and nothing is
    left behind. Unlike `bed.judge` it takes a trial that cannot be scored, of which there is one among the first 12."""
    study = study_folder.load(folder)
    trials = study.trials
    searched = trials[trials["baseline"] == ""]
    assert len(searched) == wanted and trials["trial_id"].is_unique, trials.to_string()
    assert not searched[study.hyperparameters].duplicated().any(), "a configuration twice"
    assert set(trials["state"]) <= {"complete", "failed"}, trials[["trial_id", "state", "reason"]].to_string()
    for trial_id in searched.loc[searched["state"] == "complete", "trial_id"]:
        epochs = study.history.loc[study.history["trial_id"] == trial_id, "epoch"].tolist()
        assert epochs == list(range(1, bed.EPOCHS + 1)), f"epochs of {trial_id}: {epochs}"
    assert len(study.confirmed) and not study.confirmed[["trial_id", "seed"]].duplicated().any(), "tested twice, or not"
    assert (folder / paths.REPORT).is_file() and not list((folder / paths.CHECKPOINTS).glob("*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--trials", type=int, default=bed.TRIALS)
    options = parser.parse_args()
    with buckets.s3_server():
        study = [*bed.STUDY, "--num-samples", str(options.trials)]
        deaths, deleted, ended = injure(options.kills, study, bed.NAME)
        folder = downloaded(bed.NAME)
        judge(folder, options.trials)
        shutil.rmtree(folder.parent)
    print(f"{deaths} deaths, {deleted} copies deleted, {ended} rows before the last: exactly {options.trials} trials")


if __name__ == "__main__":
    main()
