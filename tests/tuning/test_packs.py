"""A study whose trials are packed is the study without, and survives what happens to its packs."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from ray.util.placement_group import placement_group, remove_placement_group

from study import run
from study.artifacts.cache import SharedWork
from study.compression import latency, measured_cost
from study.data import registry
from study.errors import TrialFailed, UserError
from study.methods.common import pretrained
from study.methods.common.pack_trainer import CompressionPacks
from study.methods.kd.settings import KDSettings
from study.methods.magnitude.settings import MagnitudeSettings
from study.methods.sws import packed as sws_packed
from study.methods.sws.settings import SWSSettings
from study.pipeline import driver
from study.records import paths, study_folder
from study.settings import resolve
from study.training.distillation import Targets
from study.training.network import Training, build_network
from study.tuning import pack_trial, packs
from study.tuning.pack_programs import Turns
from study.tuning.packs import Packer


def settings(folder: Path, kind: type[SWSSettings | MagnitudeSettings] = SWSSettings, **changes: Any) -> Any:
    small: dict[str, Any] = {"epochs": 3, "pretrain_epochs": 5, "codebook_epochs": 1, "batch_size": 64}
    common: dict[str, Any] = {"searcher": "random", "dashboard": False, "results_dir": folder, "num_samples": 3}
    variant = {"variant": "soft"} if kind is SWSSettings else {}
    return resolve(kind.of(**variant | small | common | changes))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of packed trials."""
    folder = tmp_path_factory.mktemp("packed")
    outcome = driver.run(settings(folder, pack=4))
    assert outcome.complete
    return outcome.folder


@pytest.mark.slow
def test_trials_are_those_of_an_unpacked_study(packed: Path, tmp_path: Path) -> None:
    """The same configurations, states and epochs, and results that differ by rounding alone."""
    plain = study_folder.load(driver.run(settings(tmp_path)).folder)
    both = [s.trials.set_index("trial_id").sort_index() for s in (study_folder.load(packed), plain)]
    ours, theirs = (t.sort_values(["baseline", "tau"]).reset_index() for t in both)
    for column in ("state", "baseline", "components", "epochs"):
        assert ours[column].astype(str).tolist() == theirs[column].astype(str).tolist()
    for column, off in (("tau", 1e-12), ("val_accuracy", 3.0), ("sparsity", 0.3)):
        assert ours[column].fillna(0).tolist() == pytest.approx(theirs[column].fillna(0).tolist(), abs=off)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes", "size"),
    [(SWSSettings, {"variant": "hard", "epochs": 8}, "components"), (MagnitudeSettings, {}, "codebook_size")],
)
def test_so_are_those_of_other_methods(kind: Any, changes: dict[str, Any], size: str, tmp_path: Path) -> None:
    """The hard variant with its baseline of another score, and magnitude with baselines that train nothing."""
    both = []
    for pack in (4, 1):
        outcome = driver.run(settings(tmp_path / str(pack), kind, pack=pack, **changes))
        assert outcome.complete
        both.append(study_folder.load(outcome.folder).trials.sort_values(["baseline", "density"]))
    ours, theirs = both
    assert (ours["state"] == "complete").sum() > 3
    for column in ("state", "baseline", size, "epochs"):
        assert ours[column].astype(str).tolist() == theirs[column].astype(str).tolist()
    for column, off in (("density", 1e-12), ("val_accuracy", 1.0), ("sparsity", 0.1), ("train_loss", 0.01)):
        assert ours[column].fillna(0).tolist() == pytest.approx(theirs[column].fillna(0).tolist(), abs=off)
    assert ours["file_bytes"].tolist() == pytest.approx(theirs["file_bytes"].tolist(), rel=0.01)


def students(folder: Path, **changes: Any) -> Any:
    common: dict[str, Any] = {"searcher": "random", "dashboard": False, "results_dir": folder, "num_samples": 3}
    small = {"teacher": "lenet5", "teacher_width": 1.0, "teacher_epochs": 1, "student_width": 1.0, "epochs": 4}
    return resolve(KDSettings.of(**{"student": "lenet_300_100"} | small | common | changes))


@pytest.mark.slow
def test_so_are_students(tmp_path: Path) -> None:
    """Baselines included, of which one has smoothed labels and so a program of its own."""
    both, histories = [], []
    for pack in (3, 1):
        outcome = driver.run(students(tmp_path / str(pack), pack=pack, scheduler="none", epochs=16))
        assert outcome.complete
        study = study_folder.load(outcome.folder)
        both.append(study.trials.sort_values(["baseline", "alpha", "temperature"]))
        histories.append(study.history.sort_values(["trial_id", "epoch"])[["trial_id", "epoch", "phase"]])
    ours, theirs = both
    assert (ours["state"] == "complete").all() and len(ours) == 6
    assert histories[0].values.tolist() == histories[1].values.tolist()
    for column in ("state", "baseline", "epochs", "parameters"):
        assert ours[column].astype(str).tolist() == theirs[column].astype(str).tolist()
    for column, off in (("alpha", 1e-12), ("val_accuracy", 1.0), ("val_loss", 0.01), ("train_loss", 0.01)):
        assert ours[column].fillna(0).tolist() == pytest.approx(theirs[column].fillna(0).tolist(), abs=off)


@pytest.mark.slow
def test_a_pack_of_students_under_halving(tmp_path: Path) -> None:
    """As a command: trials are stopped, the others run to their end, and there is a report."""
    command = "kd --pack 4 --num-samples 4 --epochs 30 --searcher random --no-dashboard --student lenet_300_100"
    teacher = "--teacher lenet5 --teacher-epochs 1"
    assert run.main([*command.split(), *teacher.split(), "--results-dir", str(tmp_path)]) == 0
    assert (tmp_path / "kd-digits" / paths.REPORT).exists()
    study = study_folder.load(tmp_path / "kd-digits")
    epochs = study.trials[study.trials["trial_id"].str.match(r"t\d+")].groupby("state")["epochs"]
    assert set(epochs.groups) == {"complete", "pruned"}
    assert set(epochs.get_group("complete")) == {30} and max(epochs.get_group("pruned")) < 30


@pytest.mark.slow
def test_a_packed_study_leaves_the_same_files(packed: Path) -> None:
    """Each epoch is reported once, in order, and the front has weights, a compressed file and a trace."""
    study = study_folder.load(packed)
    for _, rows in study.history.groupby("trial_id"):
        assert rows["epoch"].tolist() == list(range(1, len(rows) + 1))
    tested = study.confirmed["trial_id"].unique()
    assert len(tested) >= 2
    for trial_id in tested:
        assert (packed / paths.MODELS / f"{trial_id}.safetensors").exists()
        if trial_id != "uncompressed":
            assert (packed / paths.MODELS / f"{trial_id}.codebook").exists()
            assert paths.trace_of(packed, trial_id).exists()


@pytest.mark.slow
def test_a_pack_has_room_for_baselines_and_its_trials_cost_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many trials as asked for train at one time, none waits for a baseline, and no trial's process loads torch."""
    train = sws_packed.fit

    def libraries(process: psutil.Process) -> str:
        return " ".join(m.path for m in process.memory_maps())

    class Watched(Packer):
        def __init__(self, room: int, working_folder: Path) -> None:
            super().__init__(room, working_folder)

            def watched(networks: Any, *others: Any) -> Any:
                processes = psutil.Process(os.getppid()).children()
                trials = [p for p in processes if p.cmdline()[0].startswith("ray::sws-digits ")]
                torch = sum("libtorch" in libraries(p) for p in trials)
                with (tmp_path / "seen").open("a") as file:
                    print(len(networks), len(trials), torch, "libtorch" in libraries(psutil.Process()), file=file)
                return train(networks, *others)

            sws_packed.fit = watched  # in the pack's own process

    monkeypatch.setattr(packs, "Packer", Watched)
    assert driver.run(settings(tmp_path, pack=3, epochs=1)).complete
    assert (tmp_path / "seen").read_text().split() == ["4", "4", "0", "True"]


@pytest.mark.slow
def test_a_pack_that_is_killed_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the process that trains the pack dies, its trials are tried again and every epoch is recorded once."""
    killed: list[int] = []
    make = packs.start_packs

    def dying(*arguments: Any, **others: Any) -> list[Any]:
        actors = make(*arguments, **others)
        pid = ray.get(actors[0].__ray_call__.remote(lambda self: os.getpid()))
        checkpoints = tmp_path / "sws-digits" / "checkpoints"

        def kill() -> None:
            while not list(checkpoints.glob("t*.pt")):
                time.sleep(0.02)
            killed.append(pid)
            psutil.Process(pid).send_signal(signal.SIGKILL)

        threading.Thread(target=kill, daemon=True).start()
        return actors

    monkeypatch.setattr(packs, "start_packs", dying)
    outcome = driver.run(settings(tmp_path, pack=4, epochs=15))
    assert killed and outcome.complete
    study = study_folder.load(outcome.folder)
    assert set(study.trials["state"]) == {"complete"}
    for _, rows in study.history.groupby("trial_id"):
        assert rows["epoch"].tolist() == list(range(1, len(rows) + 1))


def make_packer(folder: Path, monkeypatch: pytest.MonkeyPatch, room: int = 2, **changes: Any) -> Any:
    """Joins trials to a packer in this process; gives it, and what joins."""
    s = settings(Path("nowhere"), **changes)
    splits = registry.load("digits", None)[0]
    network = build_network(Training("lenet_300_100"), splits)
    monkeypatch.setattr(packs.ray, "get", lambda values: values)
    monkeypatch.setattr(pretrained, "start", lambda *_: (network, Targets()))
    monkeypatch.setattr(packs, "PATIENCE", 0.5)
    packer = Packer(room)

    def join(trial: str, **values: float) -> str:
        config = {"trial_id": trial, "seed": 0, "tau": 0.01, "components": 5, "one_minus_pi_zero": 0.1}
        shared = SharedWork({}, {"metrics": {"val_accuracy": 90.0}})
        packer.join(s, (splits, shared), (), config | values, folder, trial, trial + "'s ticket")
        return trial + "'s ticket"

    return packer, join


def test_a_failure_is_reported_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member whose loss is no number hears it after that epoch, while the others have far to go."""
    packer, join = make_packer(tmp_path, monkeypatch, pack=2, epochs=30)
    bad, good = join("bad", tau=float("inf")), join("good")
    assert packer.next(bad)["failure"] == "the training loss became nan (after epoch 0)"
    assert packer.tickets[good].reports.qsize() < 20
    assert [packer.next(good)["epoch"] for _ in range(31)] == list(range(1, 32))
    last = packer.next(good)
    assert last["finished"] and last["accuracy_drop"] == 90 - last["val_accuracy"]
    assert (tmp_path / "checkpoints" / "good.codebook").stat().st_size == last["file_bytes"]


def test_a_trial_that_starts_again_reports_no_epoch_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune hears again what the trial reported before it was cut off, and then what came after that."""
    packer, join = make_packer(tmp_path, monkeypatch, pack=2, epochs=3)
    first = join("first")
    reported = [packer.next(first) for _ in range(2)]
    packer, join = make_packer(tmp_path, monkeypatch, pack=2, epochs=3)
    again = join("first")
    rows = [packer.next(again) for _ in range(5)]
    assert [row.get("epoch") for row in rows] == [1, 2, 3, 4, 4] and rows[-1]["finished"]
    assert [row["train_loss"] for row in rows[:2]] == [row["train_loss"] for row in reported]


def test_a_trial_that_comes_again_takes_its_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial whose process died leaves the pack when it comes again, and a ticket that nobody knows is no other's."""
    packer, join = make_packer(tmp_path, monkeypatch, pack=2, epochs=3)
    lost = join("first")
    ticket = packer.tickets[lost]
    packer.leave("unknown")
    with pytest.raises(RuntimeError, match="its process was restarted"):
        packer.next("unknown")
    heard: list[str] = []

    def listen() -> None:  # the call of a process that then dies
        try:
            packer.next(lost)
        except RuntimeError as error:
            heard.append(str(error))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    assert packer.others("second") == 1
    again = join("first")
    listener.join(10)
    assert heard and heard[0].endswith("the trial was started again")  # or the thread would wait for ever
    assert ticket.gone and packer.others("second") == 1
    assert [packer.next(again)["epoch"] for _ in range(4)] == [1, 2, 3, 4]
    assert packer.next(again)["finished"]


def test_a_free_place_is_taken_while_others_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that is stopped leaves its place to the next, which takes turns with those that are there, and is what it
    would be in a pack of its own."""
    monkeypatch.setattr(CompressionPacks, "shrinks", True)
    packer, join = make_packer(tmp_path / "shared", monkeypatch, pack=2, epochs=10)
    stopped, stays = join("stopped"), join("stays")
    assert packer.next(stopped)["epoch"] == 1
    packer.leave(stopped)
    late = join("late", tau=0.02)
    rows = [packer.next(late)]
    reported = packer.tickets[stays].reports.qsize()
    rows += [packer.next(late) for _ in range(11)]
    assert reported < 12 and rows[-1]["finished"]  # it began before the other had ended
    assert last_rows(packer, [stays])[0]["finished"]
    alone, join = make_packer(tmp_path / "alone", monkeypatch, pack=2, epochs=10)
    ticket = join("late", tau=0.02)
    expected = [alone.next(ticket) for _ in range(12)]
    times = ("spent", "seconds")
    assert [{k: v for k, v in row.items() if k not in times} for row in rows] == [
        {k: v for k, v in row.items() if k not in times} for row in expected
    ]


def test_few_free_places_are_not_taken_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of three was stopped, and is still in the program, which goes on as a smaller one after the second: then a
    trial that waits begins, and not before."""
    monkeypatch.setattr(CompressionPacks, "shrinks", True)
    packer, join = make_packer(tmp_path, monkeypatch, room=3, pack=3, epochs=40)
    first, second, stays = join("first"), join("second"), join("stays")
    packer.next(first)
    packer.leave(first)
    late = packer.tickets[join("late")]
    for _ in range(5):
        packer.next(stays)
    assert packer._free() == 0 and not late.reports.qsize()
    packer.leave(second)
    assert packer.next("late's ticket")["epoch"] == 1
    assert packer.training[0].size == 1 and packer.tickets[stays].reports.qsize() < 30


def test_a_place_that_still_costs_something_is_not_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack of compressed networks trains on with those that were stopped, until it ends."""
    packer, join = make_packer(tmp_path, monkeypatch, pack=2, epochs=4)
    stopped, stays = join("stopped"), join("stays")
    packer.next(stopped)
    packer.leave(stopped)
    assert packer._free() == 0
    assert all(row["finished"] for row in last_rows(packer, [stays, join("next")]))


def test_each_program_is_a_pack_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with one ends its trials alone, to be tried again."""
    packer, join = make_packer(tmp_path, monkeypatch, room=3, pack=3, epochs=1)
    train = CompressionPacks.train

    def split(self: Any, trials: Any) -> list[list[int]]:
        return [[place for place, values in enumerate(trials) if values["components"] == n] for n in (5, 9)]

    def short_of_memory(self: Any, members: Any) -> Any:
        if members[0].values["components"] == 9:
            raise RuntimeError("out of memory")
        return train(self, members)

    monkeypatch.setattr(CompressionPacks, "programs", split)
    monkeypatch.setattr(CompressionPacks, "train", short_of_memory)
    first, broken, third = join("first"), join("broken", components=9), join("third")
    with pytest.raises(RuntimeError, match="pack failed: RuntimeError: out of memory"):
        packer.next(broken)
    assert all(row["finished"] for row in last_rows(packer, [first, third]))


def test_threads_take_turns() -> None:
    """The one that has waited longest is next, and each has random numbers as if it were alone."""

    def numbers(turns: Turns, log: list[str], name: str) -> list[float]:
        with turns.taken():
            torch.manual_seed(0)
            drawn = []
            for _ in range(3):
                turns.pass_on()
                log.append(name)
                drawn.append(float(torch.rand(())))
        return drawn

    alone = numbers(Turns(), [], "")
    turns, log = Turns(), list[str]()
    with ThreadPoolExecutor(3) as pool:
        with turns.taken():
            futures = []
            for place, name in enumerate("abc", 1):
                futures.append(pool.submit(numbers, turns, log, name))
                while len(turns.threads) == place:
                    time.sleep(0.01)
        assert [future.result(10) for future in futures] == [alone] * 3
    assert "".join(log) == "abcabcabc"


def last_rows(packer: Any, tickets: list[str]) -> list[dict[str, Any]]:
    """What trials report last, each of which waits in a thread of its own."""

    def follow(ticket: str) -> dict[str, Any]:
        row: dict[str, Any] = {}
        while not ("finished" in row or "failure" in row):
            row = packer.next(ticket)
        return row

    with ThreadPoolExecutor(len(tickets)) as pool:
        return list(pool.map(follow, tickets))


def test_members_are_measured_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--measure latency` each has its own cost, from the thread that trains, once the pack has been trained."""
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(measured_cost, "SECONDS", 0.05)
    monkeypatch.setattr(latency, "WARM_UP", 0.01)
    measure, threads = packs.with_cost, list[threading.Thread]()

    def watched(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return measure(*arguments)

    monkeypatch.setattr(packs, "with_cost", watched)
    packer, join = make_packer(tmp_path, monkeypatch, pack=2, measure="latency")
    rows = last_rows(packer, [join("first", components=5), join("second", components=9, tau=0.003)])
    assert len(threads) == 2 and len(set(threads)) == 1
    for row in rows:
        assert row["finished"] and 0 < row["latency_ms"] <= row["latency_p95_ms"] and row["latency_ratio"] > 0
        assert 0 < row["multiply_adds"] <= 50_200


def test_a_member_that_cannot_be_measured_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the reason of a trial alone; after any other error of one it is tried again, and the others are done."""
    errors = [TrialFailed("its cost cannot be measured: no"), None, ValueError("strange")]

    def refusing(result: Any, s: Any, data: Any) -> Any:
        if error := errors.pop(0):
            raise error
        return result

    monkeypatch.setattr(packs, "with_cost", refusing)
    packer, join = make_packer(tmp_path, monkeypatch, pack=2, measure="latency", epochs=1)
    failed, done = last_rows(packer, [join("first"), join("second")])
    assert failed["failure"] == "its cost cannot be measured: no (after epoch 2)" and done["finished"]
    with pytest.raises(RuntimeError, match="pack failed: ValueError: strange"):
        last_rows(packer, [join("third")])


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As far as Ray knows."""
    ray.init("local", num_cpus=1, num_gpus=2, include_dashboard=False, log_to_driver=False)
    monkeypatch.setattr(pack_trial, "ANSWER", 1.0)
    yield
    ray.shutdown()


def test_a_gpu_that_others_use_is_not_waited_for(
    two_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials go to the pack that has a GPU; where there is none for any pack, that is one line, not a hang."""
    s = settings(tmp_path, pack=2, gpus_per_trial=0.5)
    others = [placement_group([{"GPU": 1}]) for _ in range(2)]
    assert all(other.wait(30) for other in others)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="--pack: no GPU came free in 2 s"):
        patch.setattr(packs, "PLACE", 2.0)
        packs.start_packs(s)
    remove_placement_group(others[0])
    placed = packs.start_packs(s)
    assert len(placed) == 2
    ((_, free),) = pack_trial.count_others(placed, "", packs.PLACE)
    assert [pack_trial.emptiest_pack(placed, "t001") for _ in range(3)] == 3 * [free]


def test_what_cannot_be_packed_is_refused_by_its_flag(tmp_path: Path) -> None:
    """One line that names both flags."""
    refused = ({"merge": 0.5}, {"layer_scales": True}, {"retrain_epochs": 1}, {"trial_timeout": 9.0})
    for changes in refused:
        flag = "--" + next(iter(changes)).replace("_", "-")
        with pytest.raises(UserError, match=f"--pack 2: does not go with {flag}"):
            settings(tmp_path, pack=2, **changes)
    with pytest.raises(UserError, match="--pack 0"):
        settings(tmp_path, pack=0)
