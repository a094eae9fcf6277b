"""Studies in a bucket, against moto's S3 server on this machine."""

from __future__ import annotations

import importlib.util
import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import buckets
import pytest
import synthetic

import analysis
from study import addresses
from study.errors import UserError
from study.records import lease as leases
from study.records import ledger as ledger_module
from study.records import mirror, object_store, paths, snapshot
from study.records.bucket import Bucket
from study.records.lease import Lease, LeaseLost
from study.records.ledger import Ledger
from study.records.mirror import Mirror
from study.records.object_store import mirrored
from study.records.study_folder import write_meta

META = synthetic.meta_of("kd", 4)
VALUES = {"temperature": 2.0, "alpha": 0.5}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with buckets.s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def address(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where this test's results lie; nothing is there. The copy lies in the test's own folder."""
    monkeypatch.setenv(addresses.CACHE_VARIABLE, str(tmp_path / "copies"))
    monkeypatch.setenv(leases.EXPIRY_VARIABLE, "2")
    monkeypatch.setenv(mirror.PATIENCE_VARIABLE, "1")
    return f"s3://{buckets.BUCKET}/{uuid.uuid4().hex}"


def study_at(address: str) -> Path:
    return addresses.results_folder(address, address) / "study"


def start(folder: Path) -> Ledger:
    """A study in which nothing has been tried."""
    folder.mkdir(parents=True, exist_ok=True)
    write_meta(folder, META)
    return Ledger.open(folder)


def train(ledger: Ledger, trial_id: str, epochs: int = 2) -> None:
    """A trial runs: its checkpoint, and what it tells the driver."""
    checkpoint = ledger.folder / paths.CHECKPOINTS / f"{trial_id}.pt"
    checkpoint.parent.mkdir(exist_ok=True)
    for epoch in range(1, epochs + 1):
        checkpoint.write_bytes(bytes(epoch))
        ledger.epoch(trial_id, {"epoch": epoch, "phase": "train", "val_accuracy": 90.0 + epoch})


def end(ledger: Ledger, trial_id: str) -> None:
    """A trial ends: its weights, its row, its history, and then its checkpoint goes."""
    (ledger.folder / paths.CHECKPOINTS / f"{trial_id}.safetensors").write_bytes(b"weights")
    ledger.finish(trial_id, "complete", metrics={"val_accuracy": 92.0})
    ledger.flush()
    (ledger.folder / paths.CHECKPOINTS / f"{trial_id}.pt").unlink()


def objects(bucket: Bucket | str) -> dict[str, bytes]:
    """What the bucket has of a study, or one that lies at an address."""
    bucket = Bucket(f"{bucket}/study") if isinstance(bucket, str) else bucket
    return {name: bucket.read(name) for name in bucket.list() if not name.startswith(leases.FOLDER)}


def test_what_a_study_writes_is_in_the_bucket(address: str) -> None:
    """Every file as it is here, but for what is hidden and what Tune writes; what is removed here goes there, too. The
    copy is not needed: a machine without it has the same study."""
    folder = study_at(address)
    with mirrored(folder):
        ledger = start(folder)
        ledger.start("t001", VALUES)
        train(ledger, "t001")
        (folder / paths.RAY).mkdir()
        (folder / paths.RAY / "state.json").write_text("{}")
        (folder.parent / paths.CACHE).mkdir()
        (folder.parent / paths.CACHE / "teacher-1.safetensors").write_bytes(b"teacher")
        time.sleep(2 * mirror.POLL)
        assert "checkpoints/t001.pt" in objects(address)
        end(ledger, "t001")
    here = {name: (folder / name).read_bytes() for name in snapshot.scan(folder) if not name.startswith("..")}
    assert objects(address) == here
    assert here.keys() == {"study.json", "trials.csv", "history.csv", "checkpoints/t001.safetensors"}
    shutil.rmtree(folder.parent)
    folder = study_at(address)
    with mirrored(folder):
        assert {name: (folder / name).read_bytes() for name in here} == here
        object_store.fetch(folder.parent / paths.CACHE / "teacher-1.safetensors", required=False)
    assert (folder.parent / paths.CACHE / "teacher-1.safetensors").read_bytes() == b"teacher"


@pytest.mark.parametrize("together", [False, True])
def test_a_driver_may_die_between_any_two_writes(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, together: bool
) -> None:
    """Whatever the bucket then has can be continued: no row is without its files, no file without its row, and what had
    ended has ended. `together`: a trial starts and ends between two looks at the folder, which is the hardest case."""
    folder = study_at(address)
    bucket = Bucket(f"{address}/study")
    writer = Mirror(folder, bucket, Lease.take(bucket))
    ended: set[str] = set()
    writes: list[int] = []

    def dying(write: Callable[..., None], self: Bucket, *arguments: Any) -> None:
        """Look at what the bucket has before each write, as if the driver died now."""
        if self is not bucket or (arguments and str(arguments[0]).startswith(leases.FOLDER)):
            return write(self, *arguments)
        if isinstance(arguments[0], dict):  # files that are sent side by side may arrive in any order
            for name, path in arguments[0].items():
                check()
                write(self, {name: path})
        else:
            check()
            write(self, *arguments)
        check()

    def check() -> None:
        writes.append(1)
        there = tmp_path / "there" / str(len(writes))
        for name, content in objects(bucket).items():
            (there / name).parent.mkdir(parents=True, exist_ok=True)
            (there / name).write_bytes(content)
        if not there.exists():
            return
        ledger = Ledger.open(there)  # it refuses what has lost a row
        now = {i for i, row in ledger.trials.items() if row["state"] == "complete"}
        assert now >= ended, "a trial that had ended runs again"
        ended.update(now)
        for trial_id in now:
            assert (there / paths.CHECKPOINTS / f"{trial_id}.safetensors").exists(), "no weights"
            assert len(ledger.history[trial_id]) == 2, "epochs are lost"

    for method in ("send", "write", "remove"):
        original = getattr(Bucket, method)
        monkeypatch.setattr(Bucket, method, lambda self, *a, original=original: dying(original, self, *a))
    ledger = start(folder)
    for number in (1, 2):
        ledger.start(f"t{number:03d}", VALUES)
        if not together:
            writer.upload()
        train(ledger, f"t{number:03d}")
        if not together:
            writer.upload()
        end(ledger, f"t{number:03d}")
        writer.upload(last=True)
    assert ended == {"t001", "t002"} and len(writes) > 15
    writer.stop()
    writer.lease.release()


def test_a_copy_that_is_ahead_is_uploaded(address: str, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    """The network goes while a study runs, and stays away at its end: one line, and nothing is lost. The next command
    uploads what the bucket lacks."""
    folder = study_at(address)
    with pytest.raises(UserError, match="does not answer.*safe in"):
        with mirrored(folder):
            ledger = start(folder)
            ledger.start("t001", VALUES)
            time.sleep(2 * mirror.POLL)
            monkeypatch.setattr(Bucket, "send", no_network)
            monkeypatch.setattr(Mirror, "_write_table", no_network)
            train(ledger, "t001")
            end(ledger, "t001")
    monkeypatch.undo()
    monkeypatch.setenv(addresses.CACHE_VARIABLE, str(folder.parents[1]))
    with mirrored(folder):
        assert Ledger.open(folder).trials["t001"]["state"] == "complete"
    assert b"complete" in objects(address)["trials.csv"]


def test_rows_of_the_log_are_in_the_bucket_in_the_same_order(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial that only the log has is in the uploaded table: as running while its files are not there, final with
    them. The bucket has no log, and an upload without a change sends nothing."""
    monkeypatch.setattr(ledger_module, "SHORTEST", 600.0)
    folder = study_at(address)
    bucket = Bucket(f"{address}/study")
    writer = Mirror(folder, bucket, Lease.take(bucket))
    ledger = start(folder)
    ledger.start("t001", VALUES)
    for trial_id in ("t002", "t003"):
        ledger.start(trial_id, VALUES)
        assert (folder / paths.TRIAL_LOG).exists()
        writer.upload()
        assert snapshot.states_of(bucket.read(paths.TRIALS))[trial_id] == "running"
        (folder / paths.CHECKPOINTS).mkdir(exist_ok=True)
        (folder / paths.CHECKPOINTS / f"{trial_id}.safetensors").write_bytes(b"weights")
        ledger.finish(trial_id, "complete", metrics={"val_accuracy": 92.0})
        writer.upload()
        there = objects(bucket)
        assert snapshot.states_of(there[paths.TRIALS])[trial_id] == "complete"
        assert f"{paths.CHECKPOINTS}/{trial_id}.safetensors" in there and paths.TRIAL_LOG not in there
    assert snapshot.take(folder, writer.sent, folder.parent).files == {}
    writer.stop()
    writer.lease.release()


def no_network(*_: object) -> None:
    raise ConnectionError("no network")


def test_the_bucket_wins_once_somebody_else_has_written(address: str, tmp_path: Path, capfd: Any) -> None:
    """A copy of before is replaced; what only it has is set aside, with a line."""
    folder = study_at(address)
    with mirrored(folder):
        start(folder).start("t001", VALUES)
    shutil.copytree(folder, tmp_path / "old", symlinks=True)
    with mirrored(folder):
        Ledger.open(folder).start("t002", VALUES)
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "old", folder)
    (folder / "report.html").write_text("only here")
    with mirrored(folder):
        assert Ledger.open(folder).trials.keys() == {"t001", "t002"}
    (aside,) = folder.parent.glob("study.*")
    assert (aside / "report.html").read_text() == "only here" and f"{aside}: set aside" in capfd.readouterr().err


def test_a_second_command_is_refused(address: str) -> None:
    """At once, where both run on one machine; the lease is free again afterwards."""
    folder = study_at(address)
    with mirrored(folder):
        start(folder)
        with pytest.raises(UserError, match=r"another command is running this study \(on .*; wait for it"):
            with mirrored(folder):
                pass
    with mirrored(folder):
        pass


def elsewhere(bucket: Bucket, number: int, **facts: object) -> None:
    """A lease of another machine."""
    holder = {"host": "far", "process": 1, "machine": "another", "started": "1", "since": "today", **facts}
    bucket.write(f"{leases.FOLDER}/{number:09d}", json.dumps(holder).encode())


def test_a_lease_that_is_not_renewed_expires(address: str) -> None:
    """That of a driver that died on another machine, after `expiry()`; of one that died here at once."""
    bucket = Bucket(f"{address}/study")
    elsewhere(bucket, 7)
    began = time.monotonic()
    lease = Lease.take(bucket)
    assert 1 < time.monotonic() - began < 20 and (lease.number, lease.before) == (8, 7)
    lease.release()
    elsewhere(bucket, 9, machine=leases._machine(), process=2**22 + 1)
    began = time.monotonic()
    Lease.take(bucket).release()
    assert time.monotonic() - began < 1


def test_a_lease_that_is_renewed_elsewhere_is_respected(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second driver waits until it sees that, and is refused."""
    monkeypatch.setenv(leases.EXPIRY_VARIABLE, "20")
    bucket = Bucket(f"{address}/study")
    elsewhere(bucket, 1)
    threading.Timer(1.0, lambda: elsewhere(bucket, 1, renewed="now")).start()
    with pytest.raises(UserError, match="on far, process 1, since today"):
        Lease.take(bucket)


def test_of_two_commands_one_gets_the_lease(address: str) -> None:
    """Even at the same moment."""
    bucket, results = Bucket(f"{address}/study"), list[str]()
    both = threading.Barrier(4)

    def take() -> None:
        both.wait()
        try:
            Lease.take(bucket)
            results.append("taken")
        except UserError:
            results.append("refused")

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["refused"] * 3 + ["taken"]


def test_a_driver_that_was_asleep_writes_nothing_more(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lease was taken over meanwhile, and it sees that before it writes."""
    bucket = Bucket(f"{address}/study")
    lease = Lease.take(bucket)
    lease.check()
    elsewhere(bucket, 2)
    monkeypatch.setattr(lease, "_renewed", -1e9)
    with pytest.raises(LeaseLost):
        lease.check()
    lease.release()


def test_a_study_in_a_bucket_is_read_by_its_address(address: str) -> None:
    """What has changed since the last time is downloaded, checkpoints are not; one that is not there is one line."""
    folder = study_at(address)
    with mirrored(folder):
        ledger = start(folder)
        ledger.start("t001", VALUES)
        train(ledger, "t001")
    study = analysis.load(f"{address}/study")
    assert list(study.trials["trial_id"]) == ["t001"] and study.folder != folder
    assert not (study.folder / paths.CHECKPOINTS).exists()
    with mirrored(folder):
        end(ledger, "t001")
    assert list(analysis.load(f"{address}/study").trials["state"]) == ["complete"]
    with pytest.raises(UserError, match=f"^{address}/nothing: no study here"):
        analysis.load(f"{address}/nothing")


def test_what_is_wrong_is_one_line(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to type: another bucket, no credentials, no network, no package."""
    with pytest.raises(UserError, match="there is no bucket nothing-here.*aws s3 mb s3://nothing-here"):
        with mirrored(study_at("s3://nothing-here/results")):
            pass
    folder = study_at(address)
    with monkeypatch.context() as changed:
        changed.delenv("AWS_ACCESS_KEY_ID")
        changed.setenv("HOME", "/proc/none")
        with pytest.raises(UserError, match="no credentials.*set AWS_ACCESS_KEY_ID"):
            with mirrored(folder):
                pass
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the package s3fs, which is not installed; type pip install s3fs"):
        study_at(address)


def test_a_table_as_the_bucket_may_have_it() -> None:
    """New rows are running until their files are there; a comma in a reason harms nothing."""
    table = b'trial_id,state,reason,x\nt001,complete,,1\nt002,failed,"a, b",2\n'
    assert snapshot.as_running(table, {"t001": "complete"}) == (
        b"trial_id,state,reason,x\nt001,complete,,1\nt002,running,,2\n"
    )
    assert snapshot.as_running(table, {"t001": "complete", "t002": "failed"}) == table
