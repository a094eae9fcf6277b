"""Trials in experiment trackers: MLflow's real server on this machine, W&B offline, TensorBoard's files."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.errors import UserError
from study.methods.kd.settings import KDSettings
from study.tuning.trackers.tracker import PACKAGES, StudyFacts, Tracker, Trackers, check_installed, open_trackers

VALUES = {"temperature": 2.0, "loss": "kd", "trial_id": "t001", "seed": 3}


def settings_of(folder: Path, *track: str) -> KDSettings:
    return KDSettings.of(kind="kd", results_dir=folder, name="kd-digits", track=track)


def row_of(trial_id: str, **more: object) -> dict:
    return {
        "trial_id": trial_id,
        "state": "running",
        "reason": "",
        "baseline": "",
        "temperature": 2.0,
        "loss": "kd",
    } | more


def run_a_trial(trackers: Trackers, folder: Path, epochs: range, state: str = "complete") -> None:
    """As the recorder reports it."""
    trackers.start(row_of("t001"), VALUES)
    for epoch in epochs:
        trackers.epoch("t001", {"epoch": epoch, "phase": "train", "val_accuracy": 90.0 + epoch})
    if state != "running":
        file = folder / "t001.codebook"
        file.write_bytes(b"compressed")
        trackers.end(row_of("t001", state=state, val_accuracy=93.0, compression_ratio=40.0), VALUES, file)
        file.unlink()  # the recorder removes it where the trial is dominated


def report_of(trackers: Trackers, folder: Path) -> None:
    (folder / "report.html").write_text("<p>report</p>")
    trackers.report(folder / "report.html")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "kd-digits"
    made.mkdir()
    return made


def test_a_tracker_that_fails_harms_nothing(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """It says so once, and the others get everything."""

    class Broken:
        def __getattr__(self, name: str) -> object:
            raise ConnectionError("gone")

    class Listening(list):
        def start(self, *arguments: object) -> None:
            self.append("start")

        def epoch(self, trial_id: str, epoch: int, metrics: object) -> None:
            self.append(epoch)

        def end(self, trial_id: str, state: str, metrics: object, file: bytes | None) -> None:
            self.append((state, file))

        def close(self) -> None:
            self.append("close")

    heard = Listening()
    trackers = Trackers({"broken": Broken(), "listening": heard})  # type: ignore[dict-item]
    run_a_trial(trackers, folder, range(1, 3))
    trackers.close()
    assert heard == ["start", 1, 2, ("complete", b"compressed"), "close"]
    assert capsys.readouterr().err == "--track broken: ConnectionError: gone; the study goes on\n"


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_that_is_missing_is_one_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to type; without the flag nothing is needed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    check_installed(settings_of(tmp_path))
    with pytest.raises(UserError, match=rf"^--track {name}: needs the package .*type pip install {PACKAGES[name]}, or"):
        check_installed(settings_of(tmp_path, name))


def test_tensorboard_shows_epochs_and_hyperparameters(folder: Path) -> None:
    """Each epoch once, also of a trial that was cut off and reports its epochs again; the HParams tab has its values
    and its results."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.plugins.hparams import metadata

    settings = settings_of(folder.parent, "tensorboard")
    for epochs, state in ((range(1, 3), "running"), (range(1, 4), "complete")):
        trackers = open_trackers(settings, folder)
        run_a_trial(trackers, folder, epochs, state)
        trackers.close()
    trackers = open_trackers(settings, folder)
    report_of(trackers, folder)
    trackers.close()
    events = accumulators.EventAccumulator(str(folder / "tensorboard" / "t001")).Reload()
    accuracies = [(event.step, event.value) for event in events.Scalars("val_accuracy")]
    assert accuracies == [(1, 91.0), (2, 92.0), (3, 93.0), (3, 93.0)]  # the last is that of the end
    assert [event.value for event in events.Scalars("compression_ratio")] == [40.0]
    summaries = events.summary_metadata
    started = metadata.parse_session_start_info_plugin_data(
        summaries[metadata.SESSION_START_INFO_TAG].plugin_data.content
    )
    shown = {name: value.number_value or value.string_value for name, value in started.hparams.items()}
    assert shown == {"temperature": 2.0, "loss": "kd", "seed": 3.0, "kind": "kd", "dataset": "digits"}
    (text,) = [e for e in events.Tensors("tags/text_summary")]
    assert b"trial_id: t001" in text.tensor_proto.string_val[0]


def test_wandb_offline_has_every_trial(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that run at the same time have a run each, with hyperparameters, tags, epochs and the compressed file; the
    report has one as well. Nothing is sent. Online, without an account, it is one line."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(folder))
    trackers = open_trackers(settings_of(folder.parent, "wandb"), folder)
    trackers.start(row_of("t002"), {**VALUES, "trial_id": "t002"})
    run_a_trial(trackers, folder, range(1, 4))
    trackers.epoch("t002", {"epoch": 1, "val_accuracy": 80.0})
    report_of(trackers, folder)
    trackers.close()
    from study.tuning.trackers.wandb_runs import run_id

    files = {file.stem: file.read_bytes() for file in folder.glob("wandb/offline-run-*/*.wandb")}
    names = ("t001", "t002", "kd-digits report")
    runs = {name: files.pop(f"run-{run_id(str(folder), name)}") for name in names}
    assert not files
    for text in (b"temperature", b"study_folder", b"seed 3", b"val_accuracy", b"t001.codebook", b"compressed-network"):
        assert text in runs["t001"]
    assert b"report.html" in runs["kd-digits report"] and b"codebook" not in runs["t002"]
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(UserError, match="^--track wandb: no account; type wandb login, or set WANDB_API_KEY, or"):
        open_trackers(settings_of(folder.parent, "wandb"), folder)


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[str]:
    """Its address. `mlflow-skinny` has the client alone; then these tests are skipped."""
    if importlib.util.find_spec("mlflow") is None or importlib.util.find_spec("mlflow.server") is None:
        pytest.skip("no MLflow here")
    if importlib.util.find_spec("flask") is None or importlib.util.find_spec("huey") is None:
        pytest.skip("no MLflow server here")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = ["--backend-store-uri", f"sqlite:///{tmp_path}/m.db", "--artifacts-destination", str(tmp_path / "files")]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen([*command, *places], stdout=log, stderr=log, process_group=0)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 180
        while not answers(address):
            assert time.monotonic() < until and process.poll() is None, (tmp_path / "server.log").read_text()
            time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait()


def answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(f"{address}/health", timeout=2).status == 200)
    except OSError:
        return False


def test_mlflow_has_every_trial(folder: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run for each trial, with tags, hyperparameters, every epoch once, and the compressed file, also where a trial
    was cut off and reports its epochs again; and a run with the report."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    settings = settings_of(folder.parent, "mlflow")
    for epochs, state in ((range(1, 3), "running"), (range(1, 4), "complete")):
        trackers = open_trackers(settings, folder)
        run_a_trial(trackers, folder, epochs, state)
        trackers.close()
    for _ in range(2):  # the same command again writes the report again
        trackers = open_trackers(settings, folder)
        report_of(trackers, folder)
        trackers.close()
    client = open_client()
    experiment = client.get_experiment_by_name("kd-digits")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == {"t001", "kd-digits report"}
    run = runs["t001"]
    facts = StudyFacts.of(settings, folder)
    assert facts.tags("t001", 3).items() <= run.data.tags.items() and run.info.status == "FINISHED"
    assert run.data.params == {"temperature": "2.0", "loss": "kd", "seed": "3"}
    history = client.get_metric_history(run.info.run_id, "val_accuracy")
    assert [(m.step, m.value) for m in history] == [(1, 91.0), (2, 92.0), (3, 93.0)]
    assert run.data.metrics["compression_ratio"] == 40.0
    files = [client.list_artifacts(runs[name].info.run_id) for name in ("t001", "kd-digits report")]
    assert [[file.path for file in listed] for listed in files] == [["t001.codebook"], ["report.html"]]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"^--track mlflow: http://127.0.0.1:9 does not answer .*set MLFLOW_TRACKING_URI"
    ):
        open_trackers(settings, folder)


def open_client():  # type: ignore[no-untyped-def]
    from mlflow.tracking import MlflowClient

    return MlflowClient()


def test_every_tracker_has_all_that_a_tracker_has() -> None:
    """Their methods are those of `Tracker`."""
    from study.tuning.trackers.mlflow_runs import MLflowRuns
    from study.tuning.trackers.tensorboard_files import TensorBoardFiles
    from study.tuning.trackers.wandb_runs import WandbRuns

    wanted = {name for name in vars(Tracker) if not name.startswith("_")}
    for tracker in (MLflowRuns, WandbRuns, TensorBoardFiles):
        assert wanted <= vars(tracker).keys()
