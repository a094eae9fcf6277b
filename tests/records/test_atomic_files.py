"""Half-written files that a killed process left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from study.records.atomic_files import atomic_replacement, sweep

WRITING = """
import pathlib, sys, time
from study.records.atomic_files import atomic_replacement
with atomic_replacement(pathlib.Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("begun", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    """Its half is there while it lives and until somebody sweeps; what living processes write, and what others call
    alike, stays."""
    target = tmp_path / "models" / "t001.safetensors"
    process = subprocess.Popen([sys.executable, "-c", WRITING, str(target)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    (half,) = (tmp_path / "models").iterdir()
    sweep(tmp_path)
    assert half.exists()
    process.kill()
    process.wait()
    process.stdout.close()
    mine = [tmp_path / ".notes.tmp", tmp_path / ".a.0.tmp", tmp_path / f"a.{process.pid}.tmp"]
    for path in mine:
        path.touch()
    with atomic_replacement(tmp_path / "trials.csv") as own:
        own.write_text("new")
        sweep(tmp_path, older_than=60)
        assert half.exists()
        os.utime(half, (time.time() - 61,) * 2)
        sweep(tmp_path, older_than=60)
    assert not half.exists() and (tmp_path / "trials.csv").read_text() == "new"
    assert all(path.exists() for path in mine)
