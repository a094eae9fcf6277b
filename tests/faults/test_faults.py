"""A study that is injured ends with exactly the trials that were asked for. The long version is bed.py.

Those marked slow run by `python -m pytest -m slow`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import bed
import pytest
import synthetic

from study.errors import UserError
from study.records import paths, study_folder
from study.records.ledger import Ledger
from study.records.study_folder import Study

FAULTY = (
    "kd --student faulty:build --student-width 0.125 --teacher vgg11 --teacher-width 0.125 --teacher-epochs 1 "
    "--epochs 2 --scheduler none --no-dashboard"
).split()


def study(folder: Path, fates: str, *arguments: str) -> tuple[subprocess.CompletedProcess, Study]:
    """A KD study whose trials meet these fates, in the order in which they begin to train."""
    (folder / "fates").write_text(fates)
    environment = {**bed.environment(), "FATES": str(folder / "fates"), "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-m", "study.run", *FAULTY, "--results-dir", str(folder), *arguments],
        cwd=bed.ROOT, capture_output=True, text=True, timeout=900, env=environment,
    )  # fmt: skip
    return done, study_folder.load(folder / "kd-digits")


@pytest.mark.slow
def test_a_trial_that_comes_to_harm_fails_alone(tmp_path: Path) -> None:
    """An exception, a NaN, a hung trial, a process that is killed, memory beyond the limit: each is failed with its
    reason, all others are complete, and the sampler knows."""
    done, found = study(
        tmp_path,
        "ok ok raise ok nan ok hang ok kill ok memory ok",  # the first two are baselines
        *"--num-samples 10 --max-concurrent 1 --max-failures 0 --trial-timeout 20 --memory-per-trial 8".split(),
    )
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    trials = found.trials[found.trials["baseline"] == ""].set_index("trial_id")
    assert len(trials) == 10
    failed = trials[trials["state"] == "failed"]["reason"]
    assert list(trials["state"]) == ["failed", "complete"] * 5, trials[["state", "reason"]].to_string()
    raised, nan, hung, killed, memory = failed
    assert "this student raises" in raised
    assert nan == "the training loss became nan (after epoch 0)"
    assert hung.startswith("hung: no epoch ended within --trial-timeout 20 s (at ") and "faulty.py" in hung
    assert "process" in killed or "died" in killed
    assert "memory" in memory


SMALL = (
    "magnitude --num-samples 1 --pretrain-epochs 1 --epochs 1 --codebook-epochs 1 --no-dashboard --results-dir results"
).split()


@pytest.mark.slow
def test_a_study_on_an_unfriendly_machine(tmp_path: Path) -> None:
    """No home folder, a TMPDIR that is too long for sockets, a current folder with files named like modules, a terminal
    of ASCII letters, and nobody who reads the output after its first line: the study is complete, status 0."""
    (tmp_path / ("x" * 120)).mkdir()
    for name in ("random", "torch", "ray", "analysis", "search_spaces", "plotly"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    environment = {
        **bed.environment(), "HOME": "/proc/none", "TMPDIR": str(tmp_path / ("x" * 120)), "PYTHONPATH": str(bed.ROOT),
        "LC_ALL": "C", "PYTHONIOENCODING": "ascii",
    }  # fmt: skip
    command = [sys.executable, "-m", "study.run", *SMALL]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0 and not errors, errors[-2000:]
    assert first.startswith("magnitude-digits: 1 trials to run")
    found = study_folder.load(tmp_path / "results" / "magnitude-digits")
    assert set(found.trials["state"]) == {"complete"} and (found.folder / paths.REPORT).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_asks_to_stop(number: int, tmp_path: Path) -> None:
    """To the whole process group: one line, its status, and the same command ends the study whole."""
    bed.interrupted(tmp_path, 1, number)
    bed.judge(tmp_path / bed.NAME)


@pytest.mark.slow
def test_a_folder_that_is_removed(tmp_path: Path) -> None:
    """One line, no loop, and nothing half is left: the same command starts again."""
    bed.folder_removed(tmp_path)
    bed.judge(tmp_path / bed.NAME)


@pytest.mark.slow
def test_a_trial_whose_process_dies_is_tried_again(tmp_path: Path) -> None:
    """With retries a death is no failure: the trial ends complete, with every epoch once."""
    done, found = study(tmp_path, "ok ok kill ok", "--num-samples", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(found.trials["state"]) == {"complete"}
    assert found.history[found.history["trial_id"] == "t001"]["epoch"].tolist() == [1, 2]


@pytest.mark.slow
def test_a_study_most_of_which_fails_stops(tmp_path: Path) -> None:
    """When more than half of the trials fail no further ones start; the commonest reason is printed, status 1."""
    done, found = study(tmp_path, "raise " * 60, *"--num-samples 30 --max-failures 0".split())
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("Stopped: ") and "trials failed" in line and "this student raises" in line
    assert 0 < (found.trials["state"] == "failed").sum() < 10


@pytest.mark.slow
def test_a_machine_that_reboots(tmp_path: Path) -> None:
    """Driver and Ray die at once, the newest checkpoint is cut: the same command ends the study whole."""
    bed.machine_rebooted(tmp_path)
    bed.judge(tmp_path / bed.NAME)


@pytest.mark.slow
def test_a_full_disk(tmp_path: Path) -> None:
    """A full disk is one line and no lost trial; with room again the same command ends the study whole."""
    try:
        with bed.small_disk(tmp_path / "try", 1):
            pass
    except OSError as error:
        pytest.skip(str(error))
    bed.disk_full(tmp_path / "results")
    bed.judge(tmp_path / "results" / bed.NAME)


def test_a_table_that_is_corrupted(tmp_path: Path) -> None:
    """Rubbish in trials.csv is refused by the file's name, and left as it is."""
    folder = tmp_path / bed.NAME
    folder.mkdir()
    study_folder.write_meta(folder, synthetic.meta_of("sws", 64))
    (folder / paths.TRIALS).write_bytes(b"trial_id,state\n\xff\xfe\x00")
    with pytest.raises(UserError, match=paths.TRIALS):
        Ledger.open(folder)
    assert (folder / paths.TRIALS).read_bytes() == b"trial_id,state\n\xff\xfe\x00"
