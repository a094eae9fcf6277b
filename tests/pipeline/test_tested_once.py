"""The test part is read once for each configuration and seed, however often a study is continued or interrupted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from study.artifacts import checkpoints
from study.artifacts.cache import SharedWork, read_metadata, write_arrays
from study.errors import UserError
from study.methods.sws.settings import SWSSettings
from study.pipeline import configurations, final_test
from study.records import paths, study_folder
from study.records.atomic_files import write_bytes
from study.records.ledger import Ledger
from study.settings import resolve
from study.tuning.space import SearchSpace

SETTINGS = resolve(SWSSettings())
SPACE = SearchSpace.load("sws")
VALUES = {"tau": 0.1, "components": 8, "one_minus_pi_zero": 0.01}


class TestPart:
    """Counts who met the test part; may be interrupted after so many."""

    __test__ = False

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.met: Counter[str] = Counter()
        self.interrupt_after = 99
        monkeypatch.setattr(final_test, "load_trained", lambda settings, space, path, row, data: path.stem)
        monkeypatch.setattr(final_test, "load_network", lambda weights, training, data: "shared work")
        monkeypatch.setattr(final_test, "evaluate", self.evaluate)
        self.layers: list[str] = []
        monkeypatch.setattr(final_test, "_record_layers", lambda *arguments: self.layers.append(arguments[-1].stem))

    def evaluate(self, model: str, test: object, data: object) -> SimpleNamespace:
        if self.met.total() == self.interrupt_after:
            raise KeyboardInterrupt
        self.met[model] += 1
        return SimpleNamespace(accuracy=90.0 + self.met.total() / 100, loss=0.1)


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> TestPart:
    return TestPart(monkeypatch)


def end(ledger: Ledger, trial_id: str, baseline: str = "", **values: Any) -> None:
    """A complete trial, with what it left."""
    ledger.start(trial_id, values if baseline else {**VALUES, **values}, baseline)
    ledger.finish(trial_id, "complete", metrics={"val_accuracy": 90.0, "sparsity": 50.0})
    path = checkpoints.path_of(ledger.folder, trial_id)
    write_arrays(checkpoints.weights_of(path), {"w": np.ones(3, np.float32)})
    write_bytes(checkpoints.codebook_of(path), trial_id.encode())


def confirm(folder: Path, *best: str) -> pd.DataFrame:
    """As a command does that has searched to its end."""
    ledger = Ledger.open(folder)
    configurations.check_results(SETTINGS, SPACE, folder, ledger)
    final_test.confirm(SETTINGS, SPACE, folder, ledger, list(best), None, None)  # type: ignore[arg-type]
    return study_folder.read_frame(folder / paths.CONFIRMED, ())


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path)
    end(ledger, "uncompressed", "uncompressed")
    end(ledger, "t001")
    return ledger


def test_continuing_tests_only_what_is_new(ledger: Ledger, part: TestPart) -> None:
    """The same command again, one with more samples, and a front that lost a member."""
    first = confirm(ledger.folder, "t001")
    assert part.met == {"uncompressed": 1, "t001": 1}
    assert confirm(ledger.folder, "t001").equals(first)
    end(ledger, "t002", tau=0.2)
    assert len(confirm(ledger.folder, "t002", "t001")) == 3
    assert len(confirm(ledger.folder, "t002")) == 3  # what was tested stays
    assert part.met == {"uncompressed": 1, "t001": 1, "t002": 1}


def test_tables_of_layers_are_of_what_has_weights(ledger: Ledger, part: TestPart) -> None:
    """Whether a network was tested now or by an earlier command; a trial that left nothing has no table, no test, and
    no error."""
    ledger.start("t002", VALUES)
    ledger.finish("t002", "complete", metrics={"val_accuracy": 90.0, "sparsity": 50.0})
    assert set(confirm(ledger.folder, "t001", "t002")["trial_id"]) == {"uncompressed", "t001"}
    assert part.layers == ["uncompressed", "t001"]
    confirm(ledger.folder, "t001")
    assert part.layers == ["uncompressed", "t001"] * 2 and part.met.total() == 2
    stored = [paths.model_of(ledger.folder, trial, end).exists() for trial in ("uncompressed", "t001", "t002")
              for end in (".safetensors", ".codebook")]  # fmt: skip
    assert stored == [True] * 4 + [False] * 2


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_interruption_repeats_no_test(after: int, ledger: Ledger, part: TestPart) -> None:
    """What was tested before it is on disk; the next command tests the rest, and the study is not complete before."""
    end(ledger, "t002", tau=0.2)
    part.interrupt_after = after
    with pytest.raises(KeyboardInterrupt):
        confirm(ledger.folder, "t001", "t002")
    assert checkpoints.has_untested_results(ledger.folder)
    part.interrupt_after = 99
    assert len(confirm(ledger.folder, "t001", "t002")) == 3
    assert part.met == {"uncompressed": 1, "t001": 1, "t002": 1}
    assert not checkpoints.has_untested_results(ledger.folder)


def confirm_fresh(folder: Path, seeds: range) -> pd.DataFrame:
    retrained = Ledger(folder / paths.CONFIRM)
    wanted = {f"{name} seed {s}": (name, s) for s in seeds for name in ("uncompressed", "paper mixture", "t001")}
    for name, (original, seed) in wanted.items():
        if original != "uncompressed" and not checkpoints.path_of(retrained.folder, name).exists():
            end(retrained, name, original, **VALUES, seed=seed)
    record = {"metrics": {"trial_id": "uncompressed seed 1", "baseline": "uncompressed", "val_accuracy": 95.0}}
    shared = {seed: SharedWork({}, record) for seed in seeds}
    final_test.confirm_fresh(SETTINGS, SPACE, folder, retrained, wanted, shared, None, None)  # type: ignore[arg-type]
    return study_folder.read_frame(folder / paths.CONFIRMED, ())


def test_fresh_seeds_are_tested_once(ledger: Ledger, part: TestPart) -> None:
    """More seeds test those alone, each with its own hash; an interruption repeats none."""
    confirm(ledger.folder, "t001")
    part.met.clear()
    first = confirm_fresh(ledger.folder, range(1, 2))
    one = {"shared work": 1, "paper-mixture-seed-1": 1, "t001-seed-1": 1}
    assert part.met == one and len(first) == 5
    assert confirm_fresh(ledger.folder, range(1, 2)).equals(first) and part.met == one
    part.interrupt_after = 5
    with pytest.raises(KeyboardInterrupt):
        confirm_fresh(ledger.folder, range(1, 3))
    part.interrupt_after = 99
    then = confirm_fresh(ledger.folder, range(1, 3))
    assert part.met == {**one, "shared work": 2, "paper-mixture-seed-2": 1, "t001-seed-2": 1}
    assert len(then) == 8 and then["configuration"].is_unique
    assert set(then[then["trial_id"] == "paper mixture"]["baseline"]) == {"paper mixture"}


def test_a_result_is_not_inherited(ledger: Ledger, part: TestPart) -> None:
    """Where another table was put in the place of `trials.csv`, tested rows, stored networks and retrained trials are
    refused by the file's name; with the own table back the study goes on."""
    folder = ledger.folder
    confirm(folder, "t001")
    ledger.flush()
    good = (folder / paths.TRIALS).read_text()
    other = good.replace("t001,complete,,,0.1,8", "t001,complete,,,0.1,9")
    assert other != good
    (folder / paths.TRIALS).write_text(other)
    tested = (folder / paths.CONFIRMED).read_text()
    with pytest.raises(UserError, match="confirmed.csv: .*t001.* restore both from one copy"):
        confirm(folder, "t001")
    (folder / paths.CONFIRMED).write_text(tested.replace(",8.0,", ",9.0,").replace(",8,", ",9,"))
    with pytest.raises(UserError, match="confirmed.csv: what it has of t001 is of another configuration"):
        confirm(folder, "t001")
    (folder / paths.CONFIRMED).unlink()
    with pytest.raises(UserError, match="models/t001.safetensors: what it has of t001 is of another configuration"):
        confirm(folder, "t001")
    (folder / paths.TRIALS).write_text(good)
    (folder / paths.CONFIRMED).write_text(tested)
    assert len(confirm(folder, "t001")) == 2
    retrained = Ledger(folder / paths.CONFIRM)
    end(retrained, "t001 seed 1", "t001", **{**VALUES, "components": 9}, seed=1)
    with pytest.raises(UserError, match="confirm/trials.csv: t001 seed 1 has another components"):
        confirm(folder, "t001")


def test_a_network_knows_its_compressed_file(ledger: Ledger, part: TestPart) -> None:
    """A file that was exchanged is refused; one of a study before there were hashes is taken as it is."""
    folder = ledger.folder
    confirm(folder, "t001")
    path = paths.model_of(folder, "t001")
    assert read_metadata(path).keys() == {"crc32", "codebook", "configuration"}
    path.with_suffix(".codebook").write_bytes(b"another")
    with pytest.raises(UserError, match="t001.codebook: is not the file that its trial left"):
        confirm(folder, "t001")
    write_arrays(path, {"w": np.ones(3, np.float32)})
    frame = study_folder.read_frame(folder / paths.CONFIRMED, ()).drop(columns="configuration")
    study_folder.write_frame(folder / paths.CONFIRMED, frame)
    assert len(confirm(folder, "t001")) == 2 and part.met == {"uncompressed": 1, "t001": 1}


def test_numbers_that_changed_on_the_disk_are_noticed(tmp_path: Path) -> None:
    """A safetensors file has no checksum of its own; a flipped bit would be tested, and exported, as a network."""
    path = tmp_path / "t001.safetensors"
    write_arrays(path, {"w": np.ones((2, 3), np.float32), "n": np.asarray(3), "none": np.zeros((0, 2), np.float16)})
    from study.artifacts.cache import read_arrays

    assert read_arrays(path)["w"].sum() == 6 and read_arrays(path)["n"] == 3
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match="t001.safetensors: damaged .its numbers are not those that were written"):
        read_arrays(path)
