"""Studies from Python: the same study as from a shell, the same words for bad input, and nothing loaded in vain."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy
import pandas as pd
import pytest

import study
from study import KD, KD_SWS, SWS, UserError, from_python, launch, run
from study.methods import registry
from study.methods.kd.settings import KDSettings
from study.records import columns, paths
from study.records.study_folder import read_frame

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "tests" / "fixtures" / "notebook" / "kd.ipynb"
QUICK: dict[str, Any] = {
    "num_samples": 3, "epochs": 2, "teacher_epochs": 2, "max_concurrent": 1, "dashboard": False,
}  # fmt: skip
"""As in the notebook."""
ATTEMPTS = 3
"""Ray gives up where it has not started after 30 s, as on a machine that is very busy; then nothing has been tried."""


def trials_of(folder: Path) -> pd.DataFrame:
    """Its trials without what the clock says."""
    frame = read_frame(folder / paths.TRIALS, columns.TRIAL_COLUMNS)
    return frame.drop(columns=["seconds", *columns.TIME_COLUMNS])


def in_a_shell(folder: Path) -> Path:
    """The study of the notebook, as a command in this folder."""
    command = [sys.executable, "-m", "study.run", "kd", *from_python._arguments("kd", QUICK)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(ATTEMPTS):
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        if "Ray could not be started" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    return folder / "results" / "kd-digits"


@pytest.mark.slow
def test_a_notebook_and_a_shell_run_the_same_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One trial at a time, `trials.csv` is the same but for the times. The notebook shows plain lines, no control codes
    of a terminal, tables of the results, and bad input as one line."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    shell, notebook = tmp_path / "shell", tmp_path / "notebook"
    shell.mkdir()
    notebook.mkdir()
    for _ in range(ATTEMPTS):
        pages = nbformat.read(NOTEBOOK, as_version=4)
        try:
            nbclient.NotebookClient(pages, timeout=280, resources={"metadata": {"path": str(notebook)}}).execute()
            break
        except nbclient.exceptions.CellExecutionError as error:
            assert "Ray could not be started" in str(error)
    pd.testing.assert_frame_equal(trials_of(in_a_shell(shell)), trials_of(notebook / "results" / "kd-digits"))
    cells = [cell.outputs for cell in pages.cells if cell.cell_type == "code"]
    printed = "".join(output.text for outputs in cells for output in outputs if output.output_type == "stream")
    shown = [output.data for outputs in cells for output in outputs if output.output_type == "execute_result"]
    assert not re.search(r"[\x1b\r]", printed)
    assert re.search(r"^ +3/3 +t003 +(complete|pruned) ", printed, re.MULTILINE) and "Nothing to do" in printed
    assert "--num-sample 3: not understood; did you mean --num-samples?" in printed
    launched, table, recorded, axis, again = shown
    assert "3 of 3 trials" in launched["text/html"] and "report.html" in launched["text/html"]
    assert "temperature" in table["text/html"]
    assert "3 trials" in recorded["text/html"] and len(recorded["text/plain"]) < 200
    assert "epoch" in axis["text/plain"] and "3 of 3 trials, ended" in again["text/plain"]


def test_a_study_in_the_background_can_be_stopped(tmp_path: Path) -> None:
    """`block=False` returns at once; `stop` ends it as Ctrl-C does, and nothing is raised for it."""
    running = launch(KD(num_samples=500, results_dir=str(tmp_path), dashboard=False, max_concurrent=1), block=False)
    try:
        assert running.running and "0 of 500 trials, running" in repr(running)
        assert running.trials.empty and running.front.empty and "running" in running._repr_html_()
        while running.running and not (running.folder / paths.STUDY).exists():
            time.sleep(0.2)
    finally:
        running.stop()
    assert not running.running and "ended" in repr(running)
    assert running.folder == tmp_path / "kd-digits" and running.report == running.folder / "report.html"


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ("--num-sample 3", {"num_sample": 3}),
        ("--num-samples 0.5", {"num_samples": 0.5}),
        ("--num-samples 0", {"num_samples": 0}),
        ("--seed=-1", {"seed": -1}),
        ("--searcher tpee", {"searcher": "tpee"}),
        ("--temperature 3", {"temperature": 3}),
        ("--name ../x", {"name": "../x"}),
        ("--variant soft", {"variant": "soft"}),
        ("--data-dir s3://bucket/x", {"data_dir": "s3://bucket/x"}),
    ],
)
def test_bad_input_has_the_words_of_the_command_line(
    arguments: str, values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """One class of exception, and the same line, before any process starts."""
    assert run.main(["kd", *arguments.split()]) == 2
    with pytest.raises(UserError) as refused:
        launch(KD(**values))
    assert capsys.readouterr().err == f"error: {refused.value}\n"


def test_what_only_the_study_finds_out_is_the_same_exception(tmp_path: Path) -> None:
    """Its process ends with the line that a shell would show."""
    with pytest.raises(UserError, match=r"^--teacher-checkpoint /nope\.pt: no such file"):
        launch(KD(teacher_checkpoint="/nope.pt", results_dir=tmp_path))
    assert not list(tmp_path.iterdir())


def test_names_are_those_of_the_flags() -> None:
    """Every flag is a keyword; switches, lists and None are typed as a shell would have them."""
    values = {"dashboard": False, "dry_run": True, "range": ["temperature=2:8", "alpha=0:1"], "name": None, "seed": 7}
    typed = "kd --no-dashboard --dry-run --range temperature=2:8 --range alpha=0:1 --seed 7"
    assert KD(**values) == run.parse(typed.split())
    assert KD() == KDSettings() and SWS(skip=["a", "b"]) == run.parse(["sws", "--skip", "a,b"])
    assert KD(learning_rate=1e-05).flat()["learning_rate"] == 1e-05
    for kind in (KD, SWS, KD_SWS, study.MAGNITUDE, study.PTQ):
        assert set(kind.__signature__.parameters) == kind().flat().keys() - {"contiguous", "default_rate"}
    assert {name.upper() for name in registry.names()} <= set(dir(study))
    with pytest.raises(AttributeError, match="NOTHING"):
        getattr(study, "NOTHING")  # noqa: B009


def test_the_process_of_a_study_writes_plain_lines_and_finds_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook asks for colours, which are no use in its cells; what is on this Python's path is on the other's."""
    for name in from_python.COLOURS:
        monkeypatch.setenv(name, "1")
    monkeypatch.syspath_prepend(str(Path(numpy.__file__).parent))  # as Ray puts a folder of its own there
    monkeypatch.syspath_prepend(str(tmp_path))
    environment = from_python._environment()
    assert not set(from_python.COLOURS) & environment.keys() and environment["NO_COLOR"] == "1"
    assert environment["PYTHONPATH"].split(os.pathsep)[0] == str(tmp_path)
    assert not any("site-packages" in folder for folder in environment["PYTHONPATH"].split(os.pathsep))


@pytest.mark.parametrize(
    ("code", "unloaded"),
    [
        ("import study", "torch ray optuna pandas plotly tyro rich numpy study.settings"),
        ("from study import KD, launch, UserError; KD(num_samples=3)", "torch ray optuna pandas plotly"),
        ("from study import KD, launch; import study.tuning; import os; os.environ['RAY_AIR_NEW_OUTPUT']", "torch ray"),
    ],
)
def test_nothing_is_loaded_in_vain(code: str, unloaded: str) -> None:
    """`import study` loads Python's own modules alone, settings load no Ray, and what Ray reads at its import is set
    before that."""
    code += f"; import sys; print(sorted(set({unloaded.split()!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
