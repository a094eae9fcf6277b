"""Whole small studies through the real Ray Tune and Optuna, on digits, in a process of their own."""

from __future__ import annotations

import html
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pandas as pd
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from search_spaces import sws as search_spaces_sws
from study import evaluate, reproduce
from study.artifacts import cache, checkpoints
from study.artifacts.cache import SharedWork
from study.compression.quantised_weights import shared_parameters
from study.errors import UserError
from study.evaluate import Options
from study.models import registry
from study.pipeline import driver, fresh_seeds, preflight, shared_work
from study.records import columns, paths, study_folder
from study.records.ledger import Ledger
from study.run import parse
from study.settings import Settings, resolve
from study.training.precision import PRECISIONS
from study.tuning.cluster import MOST_THREADS
from study.tuning.display import Display
from study.tuning.recorder import Recorder
from study.tuning.space import SearchSpace
from study.tuning.tune_run import Job

ROOT = Path(__file__).parents[2]
SWS_SPACE = SearchSpace.load("sws")
SMALL = "--teacher-epochs 1 --epochs 2 --student-width 0.125 --teacher vgg11 --teacher-width 0.125"
KD = ["kd", *SMALL.split(), "--no-dashboard"]
SWS = (
    "sws --variant soft --pretrain-epochs 9 --epochs 2 --codebook-epochs 1 --sigma 0.02 --precision-rate 0.05 "
    "--no-dashboard"
).split()


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "study.run", *arguments, "--results-dir", str(folder)]


def run(folder: Path, *arguments: str) -> str:
    done = subprocess.run(command(folder, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr.strip(), done.stderr  # Ray's own noise is gone
    return done.stdout


def optuna_states(folder: Path) -> list[str]:
    storage = JournalStorage(JournalFileBackend(str(folder / paths.JOURNAL)))
    study = optuna.load_study(study_name=folder.name, storage=storage)
    return [t.state.name for t in study.trials]


@pytest.fixture(scope="module")
def kd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A KD study of two trials."""
    folder = tmp_path_factory.mktemp("kd")
    run(folder, *KD, "--num-samples", "2", "--scheduler", "none")
    return folder / "kd-digits"


@pytest.fixture(scope="module")
def sws(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SWS study of two trials."""
    folder = tmp_path_factory.mktemp("sws")
    run(folder, *SWS, "--num-samples", "2")
    return folder / "sws-digits"


MAGNITUDE = "magnitude --pretrain-epochs 2 --epochs 2 --codebook-epochs 1 --teacher self --no-dashboard".split()
KD_SWS = ["kd_sws", *SMALL.split(), *"--cluster-epochs 2 --codebook-epochs 1 --sigma 0.02 --no-dashboard".split()]


@pytest.mark.slow
def test_magnitude_study_is_complete(tmp_path: Path) -> None:
    """Trials over density and codebook size, and post-training quantisation; every trial's size is that of its file,
    the front's files are stored, and what is tested is decoded from them."""
    run(tmp_path, *MAGNITUDE, "--num-samples", "2")
    study = study_folder.load(tmp_path / "magnitude-digits")
    trials = study.trials.set_index("trial_id")
    assert set(trials.state) == {"complete"} and {"8-bit quantisation", "paper settings"} < set(trials.index)
    searched = trials[trials.baseline == ""]
    assert (searched.sparsity - 100 * (1 - searched.density)).abs().max() < 0.01
    assert ((trials.file_bytes * trials.compression_ratio / trials.file_bytes["uncompressed"]) - 1).abs().max() < 1e-6
    for trial_id in set(study.confirmed.trial_id) - {"uncompressed"}:
        file = study.folder / paths.MODELS / f"{trial_id}.codebook"
        assert file.stat().st_size == trials.file_bytes[trial_id]
        score = evaluate.report(Options((file,)))
        tested = study.confirmed.set_index("trial_id").test_accuracy[trial_id]
        assert score["accuracy"] == pytest.approx(tested)
        assert score["sparsity"] == pytest.approx(trials.sparsity[trial_id])


@pytest.mark.slow
def test_the_default_study_of_soft_weight_sharing_is_complete(tmp_path: Path) -> None:
    """Density and number of values are searched, next to magnitude's score; what is tested is decoded from the file."""
    run(tmp_path, *"sws --pretrain-epochs 6 --epochs 8 --num-samples 2 --no-dashboard".split())
    study = study_folder.load(tmp_path / "sws-digits")
    trials = study.trials.set_index("trial_id")
    assert list(trials.index) == ["uncompressed", "magnitude's score", "t001", "t002"]
    assert set(trials.state) == {"complete"}, trials.reason
    searched = trials[trials.baseline == ""]
    assert (1 - searched.sparsity / 100 <= searched.density + 1e-4).all() and searched.components.between(4, 16).all()
    assert {"prune", "quantise"} <= set(study.history.phase)
    for trial_id in set(study.confirmed.trial_id) - {"uncompressed"}:
        score = evaluate.report(Options((study.folder / paths.MODELS / f"{trial_id}.codebook",)))
        assert score["accuracy"] == pytest.approx(study.confirmed.set_index("trial_id").test_accuracy[trial_id])


PTQ = "ptq --pretrain-epochs 2 --calibration-examples 64 --no-dashboard".split()


@pytest.mark.slow
def test_ptq_study_is_complete_and_grows(tmp_path: Path) -> None:
    """One trial, then a second one by a larger number: bits, powers and plain rounding; every trial has its one epoch,
    the first is not run again, sizes are those of the files, and what is tested is decoded from them."""
    run(tmp_path, *PTQ, "--num-samples", "1")
    first = study_folder.load(tmp_path / "ptq-digits").trials.set_index("trial_id")
    run(tmp_path, *PTQ, "--num-samples", "2")
    study = study_folder.load(tmp_path / "ptq-digits")
    trials = study.trials.set_index("trial_id")
    assert list(trials.index) == ["uncompressed", "8-bit rounding", "4-bit rounding", "t001", "t002"]
    assert set(trials.state) == {"complete"}, trials.reason
    assert trials.loc[first.index].seconds.equals(first.seconds)
    searched = trials[trials.baseline == ""]
    assert searched.bits_per_weight.between(1, 6).all() and searched.sensitivity_power.between(0, 1).all()
    assert (study.history.groupby("trial_id").epoch.count()[["t001", "t002", "8-bit rounding"]] == 1).all()
    weights = trials.file_bytes["uncompressed"] / 4
    assert ((searched.file_bytes - searched.bits_per_weight * weights / 8).abs() < 0.1 * weights / 8 + 3000).all()
    for trial_id in set(study.confirmed.trial_id) - {"uncompressed"}:
        score = evaluate.report(Options((study.folder / paths.MODELS / f"{trial_id}.codebook",)))
        tested = study.confirmed.set_index("trial_id").test_accuracy[trial_id]
        assert score["accuracy"] == pytest.approx(tested)
    page = (study.folder / "report.html").read_text()
    assert "Post-training quantisation" in page and "power of the sensitivity" in page


def weights_of(network: dict, data: dict) -> int:
    model = registry.build(network["name"], tuple(data["shape"]), len(data["classes"]), **network["options"])
    return sum(p.numel() for p in shared_parameters(model))


@pytest.mark.slow
def test_kd_sws_study_is_complete(tmp_path: Path) -> None:
    """A student of its own width is distilled and then clustered under the same teacher; its phases follow each other,
    its size is its file's, and it is compared with the teacher."""
    run(tmp_path, *KD_SWS, "--num-samples", "1", "--student-examples", "0")
    study = study_folder.load(tmp_path / "kd_sws-digits")
    trials = study.trials.set_index("trial_id")
    assert set(trials.index) == {"teacher", "without the teacher", "t001"}
    assert set(trials.state) == {"complete"}, trials.reason
    assert trials.file_bytes["teacher"] == 4 * weights_of(study.meta["models"]["teacher"], study.meta["data"])
    mine = study.history[study.history.trial_id == "t001"]
    assert list(mine.phase) == ["train", "train", "cluster", "cluster", "codebook"]
    assert list(mine.epoch) == [1, 2, 3, 4, 5]
    trace = study_folder.read_trace(study.folder, "t001")
    assert list(zip(trace["epoch"], trace["phase"], strict=True))[:3] == [(2, "before"), (3, "cluster"), (4, "cluster")]
    drop = trials.val_accuracy["teacher"] - trials.val_accuracy["t001"]
    assert trials.accuracy_drop["t001"] == pytest.approx(drop)
    assert (study.folder / paths.MODELS / "t001.codebook").stat().st_size == trials.file_bytes["t001"]


def test_kd_study_is_complete(kd: Path) -> None:
    """Two trials and all three baselines, each with every epoch, in the study folder; the front tested once."""
    study = study_folder.load(kd)
    searched = study.trials[study.trials.baseline == ""]
    assert set(study.trials[study.trials.baseline != ""].baseline) == {"teacher", "student alone", "label smoothing"}
    assert list(searched.state) == ["complete", "complete"]
    assert searched.temperature.between(1, 20).all() and searched.alpha.between(0, 1).all()
    assert (study.history.groupby("trial_id").epoch.count()[["t001", "t002", "student alone"]] == 2).all()
    best = searched.val_accuracy.max()
    assert set(study.confirmed[study.confirmed.baseline == ""].val_accuracy) == {best}
    assert study.confirmed.test_accuracy.between(0, 100).all()
    assert study.confirmed.trial_id.is_unique
    assert (kd / paths.REPORT).stat().st_size > 1_000_000
    assert study.meta["settings"]["precision"] in PRECISIONS  # which one is the machine's to say, once a study
    assert "sparsity" not in study.trials and "file_bytes" not in study.trials  # nothing here is compressed


def test_sws_study_is_complete(sws: Path) -> None:
    """Two trials and the uncompressed network, with sparsity; phases in order; the front's weights are stored."""
    study = study_folder.load(sws)
    assert set(study.trials.state) == {"complete"}
    assert {"uncompressed", "paper mixture"} < set(study.trials.trial_id)
    threads = study.trials.set_index("trial_id").threads  # what all others wait for has the cores of them all
    assert threads["t001"] == threads["paper mixture"] == 1
    assert torch.cuda.is_available() or threads["uncompressed"] == min(MOST_THREADS, len(os.sched_getaffinity(0)))
    assert study.trials.sparsity.between(0, 100).all()
    phases = study.history[study.history.trial_id == "t001"].phase
    assert list(phases) == ["cluster", "cluster", "codebook"]
    for trial_id in study.confirmed.trial_id:
        assert (sws / paths.MODELS / f"{trial_id}.safetensors").is_file()


def test_optuna_learned_the_searched_trials_alone(kd: Path) -> None:
    """The journal holds the two searched trials as COMPLETE, and neither baselines nor orphans."""
    assert optuna_states(kd) == ["COMPLETE", "COMPLETE"]


def test_the_journal_of_a_finished_study_is_complete(kd: Path) -> None:
    """For optuna-dashboard each trial has its number, metric, epochs, start, end and test accuracy."""
    storage = JournalStorage(JournalFileBackend(str(kd / paths.JOURNAL)))
    journal, study = optuna.load_study(study_name=kd.name, storage=storage), study_folder.load(kd)
    assert journal.metric_names == ["val_accuracy"]
    rows, tested = study.trials.set_index("trial_id"), study.confirmed.set_index("trial_id").test_accuracy
    for trial in journal.trials:
        row = rows.loc[f"t{trial.number + 1:03d}"]
        epochs = study.history[study.history.trial_id == row.name]
        assert trial.value == row.val_accuracy and list(trial.intermediate_values.values()) == list(epochs.val_accuracy)
        assert trial.user_attrs.get("test_accuracy") == tested.get(row.name)
        assert trial.duration is not None and trial.duration.total_seconds() >= row.seconds
    baselines = optuna.load_study(study_name=f"{kd.name} baselines", storage=storage).trials
    assert {t.user_attrs["trial_id"] for t in baselines} == set(rows.index[rows.baseline != ""])
    assert all(t.user_attrs["test_accuracy"] == tested[t.user_attrs["trial_id"]] for t in baselines)


def test_same_command_does_nothing_and_a_larger_one_adds_the_difference(kd: Path) -> None:
    """The same command again leaves every file alone; three samples add exactly one trial, and it is a new one."""
    before = (kd / paths.TRIALS).read_text()
    printed = run(kd.parent, *KD, "--num-samples", "2", "--scheduler", "none")
    assert "Nothing to do" in printed
    assert (kd / paths.TRIALS).read_text() == before
    meta = study_folder.read_meta(kd)
    run(kd.parent, *KD, "--num-samples", "3", "--scheduler", "none")
    now = study_folder.read_meta(kd)
    assert now["settings"] == {**meta["settings"], "num_samples": 3} and now["command"] == meta["command"]
    assert ["--num-samples 3" in r["command"] for r in now["continued"]] == [True]
    page = (kd / paths.REPORT).read_text()
    assert "3 complete of 3" in page and now["continued"][0]["command"] in html.unescape(page)
    assert "not finished" not in page
    trials = study_folder.load(kd).trials
    assert (trials.baseline == "").sum() == 3 and len(trials) == 6
    assert trials.temperature.dropna().is_unique
    pd.testing.assert_frame_equal(
        pd.read_csv(kd / paths.TRIALS).head(5), pd.read_csv(pd.io.common.StringIO(before)), check_like=True
    )


def settings_of(folder: Path, arguments: list[str]) -> Settings:
    return resolve(parse([*arguments, "--results-dir", str(folder.parent)]))


def test_a_study_is_not_complete_before_its_new_front_is_tested(sws: Path) -> None:
    """While what a trial ended with waits to be tested there is something to do, though an earlier front was tested."""
    settings, ledger = settings_of(sws, [*SWS, "--num-samples", "2"]), Ledger.open(sws)
    assert driver.is_complete(ledger, settings, SWS_SPACE, sws)
    untested = checkpoints.weights_of(checkpoints.path_of(sws, "t002"))
    untested.parent.mkdir()
    untested.touch()
    assert not driver.is_complete(ledger, settings, SWS_SPACE, sws)
    shutil.rmtree(untested.parent)


def test_all_trials_start_from_the_same_network(sws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another version of torch the study goes on with the network that it started from; where that is lost
    and another one comes out, it stops and leaves its tables as they are."""
    shutil.copytree(sws.parent, tmp_path / "results")
    folder = tmp_path / "results" / sws.name
    settings, ledger = settings_of(folder, [*SWS, "--num-samples", "3"]), Ledger.open(folder)
    job = Job(settings, SWS_SPACE, folder, SimpleNamespace(ledger=ledger))  # type: ignore[arg-type]
    before = study_folder.load(folder)
    data, _ = preflight.load_data(settings)
    monkeypatch.setattr(torch, "__version__", "9.9")
    monkeypatch.setattr(shared_work, "load_or_train", lambda *arguments: pytest.fail("trained again"))
    first = shared_work.study_shared_work(job, data, None)
    assert first is not None

    def another(*arguments: Any) -> dict[int, SharedWork]:
        ledger.start("uncompressed", {}, "uncompressed")
        return {settings.seed: replace(first, arrays={name: a + 1 for name, a in first.arrays.items()})}

    monkeypatch.setattr(shared_work, "load_or_train", another)
    shutil.rmtree(folder.parent / paths.CACHE)
    with pytest.raises(UserError, match="started from another uncompressed network than comes out now"):
        shared_work.study_shared_work(job, data, None)
    pd.testing.assert_frame_equal(study_folder.load(folder).trials, before.trials)
    histories = [
        s.history.sort_values(["trial_id", "epoch"], ignore_index=True) for s in (study_folder.load(folder), before)
    ]
    pd.testing.assert_frame_equal(*histories, check_like=True)
    monkeypatch.setattr(shared_work, "load_or_train", lambda *arguments: {settings.seed: first})
    assert shared_work.study_shared_work(job, data, None) is first  # the same one came out


def test_other_settings_are_refused(kd: Path) -> None:
    """A command whose settings contradict the study's stops with the difference, and changes nothing."""
    before = (kd / paths.TRIALS).read_text()
    done = subprocess.run(
        command(kd.parent, *KD, "--num-samples", "9", "--scheduler", "none", "--seed", "5"),
        cwd=ROOT, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 2 and "--seed 5 (the study has 0)" in done.stderr
    assert (kd / paths.TRIALS).read_text() == before


def test_interrupted_study_continues(tmp_path: Path) -> None:
    """SIGINT keeps what finished; the same command then ends with exactly the trials asked for, none twice."""
    arguments = [*SWS, "--num-samples", "4", "--epochs", "4"]
    folder = tmp_path / "sws-digits"
    process = subprocess.Popen(
        command(tmp_path, *arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not _finished(folder):
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    printed = process.communicate(timeout=600)[0].decode()
    assert process.returncode in (0, 130), printed
    finished = _finished(folder)
    run(tmp_path, *arguments)
    study = study_folder.load(folder)
    searched = study.trials[study.trials.baseline == ""]
    assert len(searched) == 4 and set(searched.state) == {"complete"}
    assert study.trials.trial_id.is_unique and finished <= set(searched.trial_id)
    assert optuna_states(folder).count("COMPLETE") == 4 and "RUNNING" not in optuna_states(folder)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["recorder.Recorder.on_trial_complete", "driver.confirm"])
def test_ctrl_c_is_never_lost(tmp_path: Path, where: str) -> None:
    """It stops the command where it comes with the last trial of a stage, and between two stages, when Tune has heard
    of none and would keep listening; the same command then goes on."""
    module, name = where.split(".", 1)
    room = "tuning" if module == "recorder" else "pipeline"
    code = (
        "import signal, sys; from unittest import mock; from study import run; from study.pipeline import driver\n"
        f"from study.tuning import recorder; f = {where}\n"
        "def interrupted(*args, **named):\n    signal.raise_signal(signal.SIGINT)\n    return f(*args, **named)\n"
        f"with mock.patch('study.{room}.{where}', interrupted):\n    sys.exit(run.main(sys.argv[1:]))"
    )
    arguments = [*SWS, "--num-samples", "1", "--results-dir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 130 and "Stopped" in done.stdout + done.stderr, done.stdout + done.stderr
    states = study_folder.load(tmp_path / "sws-digits").trials.set_index("trial_id")["state"].to_dict()
    first = {"uncompressed": "complete"}
    assert states == (first if module == "recorder" else {**first, "paper mixture": "complete", "t001": "complete"})
    assert not (tmp_path / "sws-digits" / paths.CONFIRMED).exists()
    run(tmp_path, *arguments[:-2])
    assert len(study_folder.load(tmp_path / "sws-digits").confirmed)


def _finished(folder: Path) -> set[str]:
    trials = study_folder.read_frame(folder / paths.TRIALS, columns.TRIAL_COLUMNS)
    return set(trials[(trials.baseline == "") & trials.state.isin(columns.FINAL_STATES)].trial_id)


@pytest.mark.slow
def test_confirmation_with_fresh_seeds_and_reproduction(sws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--confirm retrains a member of the front and every baseline with fresh seeds, tests each once, and is then done;
    cut off before, it says so. A trial retrained by study.reproduce comes out bit for bit, and a baseline as the study
    had it, from the network that it started from, whatever torch and the search space are now."""
    arguments = [*SWS, "--num-samples", "2", "--confirm", "1", "--seeds", "2"]
    process = subprocess.Popen(
        command(sws.parent, *arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (sws / paths.CONFIRM / paths.TRIALS).exists():
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 130 and "Stopped" in printed, printed
    run(sws.parent, *arguments)
    confirmed = study_folder.load(sws).confirmed
    assert not confirmed[["trial_id", "seed"]].duplicated().any()
    fresh = confirmed[confirmed.seed != 0]
    assert sorted(fresh.seed.unique()) == [1, 2] and fresh.test_accuracy.between(0, 100).all()
    (member,) = set(fresh.trial_id) - {"uncompressed", "paper mixture"}
    assert len(fresh) == 6 and member in set(confirmed[confirmed.seed == 0].trial_id)
    assert fresh[fresh.trial_id == "uncompressed"].val_loss.nunique() == 2  # the pretrained networks differ, too
    assert "Nothing to do" in run(sws.parent, *arguments)
    for trial_id in ("t001", "uncompressed"):
        again = [sys.executable, "-m", "study.reproduce", str(sws), trial_id]
        done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0 and "matches: " in done.stdout, done.stdout + done.stderr
        assert "file_bytes" in done.stdout
    monkeypatch.setattr(torch, "__version__", "9.9")
    monkeypatch.setitem(search_spaces_sws.BASELINES["paper mixture"], "components", 5)
    monkeypatch.setattr(cache, "get_or_compute", lambda *arguments: pytest.fail("trained again"))
    assert reproduce.main([str(sws), "paper mixture"]) == 0


@pytest.mark.slow
def test_another_studys_front_is_tried_first(kd: Path, tmp_path: Path) -> None:
    """--warm-start runs the other study's front as the first trial; --min-accuracy keeps what is below out of the
    front, and tells Optuna."""
    arguments = ["--num-samples", "1", "--scheduler", "none", "--warm-start", str(kd), "--min-accuracy", "99.9"]
    run(tmp_path, *KD, *arguments)
    other, mine = study_folder.load(kd), study_folder.load(tmp_path / "kd-digits")
    front = other.trials[other.trials.trial_id.isin(other.confirmed.trial_id) & (other.trials.baseline == "")]
    (first,) = mine.trials[mine.trials.baseline == ""].to_dict("records")
    assert (first["temperature"], first["alpha"]) in set(zip(front.temperature, front.alpha, strict=True))
    assert set(mine.confirmed.baseline) == {"teacher", "student alone", "label smoothing"}  # none is accurate enough
    storage = JournalStorage(JournalFileBackend(str(mine.folder / paths.JOURNAL)))
    (trial,) = optuna.load_study(study_name=mine.folder.name, storage=storage).trials
    assert trial.constraints == {"min_accuracy": pytest.approx(99.9 - first["val_accuracy"])}


@pytest.mark.slow
def test_a_given_teacher_is_used_as_it_is(kd: Path, tmp_path: Path) -> None:
    """--teacher-checkpoint trains no teacher: its row has no epochs, and the accuracy of the study it came from."""
    weights = kd / paths.MODELS / "teacher.safetensors"
    run(tmp_path, *KD, "--num-samples", "1", "--scheduler", "none", "--teacher-checkpoint", str(weights))
    given, trained = (study_folder.load(f).trials.set_index("trial_id") for f in (tmp_path / "kd-digits", kd))
    assert given.epochs["teacher"] == 0 and trained.epochs["teacher"] == 1
    assert given.val_accuracy["teacher"] == pytest.approx(trained.val_accuracy["teacher"])


def test_a_confirmation_that_stops_says_why(sws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its recorder stopped for is the command's reason, too."""
    settings = settings_of(sws, [*SWS, "--num-samples", "2", "--confirm", "1", "--seeds", "9"])
    ledger, display = Ledger.open(sws), Display(Ledger.open(sws), SWS_SPACE.objectives, 2, "")
    display.console.quiet = True

    def stopping(job: Job, *arguments: Any) -> None:
        job.recorder.stopped = "4 of 4 trials failed"

    monkeypatch.setattr(fresh_seeds, "load_or_train", stopping)
    inputs = preflight.load_inputs(settings, SWS_SPACE, None)
    job = Job(settings, SWS_SPACE, sws, Recorder(ledger, display, SWS_SPACE.objectives, settings, sws))
    assert fresh_seeds.retrain(job, display, inputs) == "4 of 4 trials failed"
