"""A result belongs to a configuration, and an id to one trial for ever: what a study does where rows were lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import synthetic

from study.errors import UserError
from study.records import paths
from study.records.identity import configuration_hash, highest_number
from study.records.ledger import Ledger
from study.records.study_folder import load

Lines = list[str]
LOST: dict[str, Callable[[Lines], Lines]] = {
    "the header alone": lambda lines: lines[:1],
    "a cut at a line end": lambda lines: lines[:-3],
    "an older copy": lambda lines: lines[:6],
    "one row": lambda lines: [*lines[:5], *lines[6:]],
    "a baseline": lambda lines: [line for line in lines if "uncompressed" not in line],
}


@pytest.mark.parametrize("case", LOST)
def test_lost_rows_are_noticed(case: str, tmp_path: Path) -> None:
    """Reading and going on are refused with the file that has more; with the rows back, both work again."""
    folder = synthetic.write_sws(tmp_path / "sws", trials=8, epochs=2)
    good = (folder / paths.TRIALS).read_text()
    (folder / paths.TRIALS).write_text("".join(LOST[case](good.splitlines(keepends=True))))
    for read in (load, Ledger.open):
        with pytest.raises(UserError, match=r"has something of trial \S+.*restore that table") as refused:
            read(folder)
        assert str(refused.value).startswith((f"{folder / paths.HISTORY}: ", f"{folder / paths.CONFIRMED}: "))
    (folder / paths.TRIALS).write_text(good)
    assert len(load(folder).trials) == len(Ledger.open(folder).trials) == 10


def journal(trial_id: str) -> str:
    return json.dumps({"op_code": 8, "trial_id": 3, "user_attr": {"trial_id": trial_id}}) + "\n"


@pytest.mark.parametrize(
    ("name", "content", "trial_id"),
    [
        ("models/t009.safetensors", "", "t009"), ("models/t009.codebook", "", "t009"), ("traces/t009.npz", "", "t009"),
        ("checkpoints/t009.pt", "", "t009"), ("checkpoints/t009.safetensors", "", "t009"),
        ("models/paper mixture.safetensors", "", "paper mixture"), ("traces/paper-mixture.npz", "", "paper mixture"),
        (paths.JOURNAL, journal("t004") + journal("t009") + '{"op_co', "t009"),
        ("confirm/trials.csv",
         "trial_id,state,reason,baseline,seconds,epochs\nt009 seed 1,complete,,t009,1,1\n", "t009"),
        (paths.HISTORY, "trial_id,epoch,phase\nt009,1,train\n", "t009"),
        (paths.CONFIRMED, "trial_id,baseline,seed,test_accuracy\nt009,,0,90\n", "t009"),
    ],
)  # fmt: skip
def test_whatever_is_left_of_a_trial_tells_of_it(name: str, content: str, trial_id: str, tmp_path: Path) -> None:
    """Each file by which another trial would be taken for it; files of the user's own are no witnesses."""
    folder = synthetic.write_bare(tmp_path / "sws", "sws", "failed", trials=8)
    (folder / paths.MODELS).mkdir()
    (folder / paths.MODELS / "mine.safetensors").touch()
    (folder / paths.MODELS / ".t077.codebook.1.tmp").touch()
    Ledger.open(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    with pytest.raises(UserError) as refused:
        Ledger.open(folder)
    assert str(refused.value).startswith(f"{folder / name}: has something of trial {trial_id}, ")


def test_an_id_is_given_once(tmp_path: Path) -> None:
    """The next one is above all that ever ran here, whatever the tables say, and above those given in this command."""
    ledger = Ledger.open(tmp_path)
    assert ledger.new_id() == "t001" == f"t{highest_number(tmp_path, ['t001', 'teacher', 't0x9']):03d}"
    (tmp_path / paths.RAY / "t041").mkdir(parents=True)  # Tune's folder of a trial whose row was lost before an epoch
    (tmp_path / paths.RAY / "tmp").mkdir()
    assert Ledger.open(tmp_path).new_id() == "t042"
    ledger = Ledger.open(tmp_path)
    given = [ledger.new_id() for _ in range(3)]
    ledger.start(given[-1], {"tau": 0.1})
    assert [*given, ledger.new_id()] == ["t042", "t043", "t044", "t045"]


def test_a_row_is_on_disk_before_anything_else_of_its_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While `trials.csv` cannot be written, history is not written either: the study could not be opened again."""
    from study.records import ledger as module

    written = module.write_rows

    def full_for_trials(path: Path, *arguments: object, **named: object) -> None:
        if path.name == paths.TRIALS:
            raise OSError(28, "No space left on device")
        written(path, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "write_rows", full_for_trials)
    ledger = Ledger(tmp_path)
    ledger.start("t001", {"tau": 0.1})
    ledger.epoch("t001", {"epoch": 1, "phase": "train"})
    assert ledger.full and not (tmp_path / paths.HISTORY).exists()
    with pytest.raises(OSError, match="No space"):
        ledger.flush()
    assert Ledger.open(tmp_path).trials == {}


def test_the_hash_is_of_all_that_makes_a_configuration() -> None:
    """Each part changes it; the order of names, 4 or 4.0, and a setting that is not given do not."""
    given = ("sws", {"epochs": 3, "seed": 5}, "", {"tau": 0.1, "components": 4}, 0)
    same = ("sws", {"seed": 7, "later": None, "epochs": 3}, "", {"components": 4.0, "tau": 0.1}, 0)
    others = [
        ("kd", *given[1:]), ("sws", {"epochs": 4}, *given[2:]), (*given[:2], "paper", *given[3:]),
        (*given[:3], {"tau": 0.2, "components": 4}, 0), (*given[:4], 1),
    ]  # fmt: skip
    assert configuration_hash(*given) == configuration_hash(*same)
    assert len({configuration_hash(*parts) for parts in (given, *others)}) == 6  # type: ignore[arg-type]


def test_a_tested_row_has_its_trials_values(tmp_path: Path) -> None:
    """Also where it does not say of which configuration it is: a study of before then is not mixed up either."""
    folder = synthetic.write_sws(tmp_path / "sws", trials=8, epochs=2)
    text = (folder / paths.CONFIRMED).read_text()
    head, row, *rest = text.splitlines()
    (folder / paths.CONFIRMED).write_text("\n".join([f"{head},tau", f"{row},0.5", *(f"{line}," for line in rest), ""]))
    with pytest.raises(UserError, match="confirmed.csv: trial 'b000' has another tau than in trials.csv"):
        load(folder)
