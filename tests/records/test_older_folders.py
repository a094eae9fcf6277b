"""Study folders and compressed files that were written before schema 2 are read, reported and continued from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from analysis import load, query
from analysis.page import study_page
from study.compression import compressed_file
from study.data import registry as data
from study.records.schema import RENAMED, SCHEMA
from study.training.loop import evaluate

OLDER = Path(__file__).parents[1] / "fixtures" / "schema1"
KINDS = ("kd", "sws", "magnitude", "kd_sws")


@pytest.mark.parametrize("kind", KINDS)
def test_an_older_folder_states_what_its_schema_left_out(kind: str) -> None:
    """Title, reference, shared baseline and columns are there; tables have the columns' newer names."""
    study = load(OLDER / kind)
    assert study.meta["schema"] == SCHEMA
    assert study.meta["reference"] in set(study.trials["baseline"])
    assert study.meta["shared_baseline"] in set(study.trials["baseline"])
    assert set(study.meta["columns"]) == {*study.meta["space"], *study.objectives}
    for frame in (study.trials, study.history, study.confirmed):
        assert not set(RENAMED) & set(frame.columns)
    assert set(study.hyperparameters) <= set(study.trials.columns)


@pytest.mark.parametrize("kind", KINDS)
def test_an_older_folder_has_a_report_and_answers_a_question(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page is written with the method's title, and the table has its best trial, also where all of them guess."""
    folder = Path(shutil.copytree(OLDER / kind, tmp_path / kind))
    page = study_page.write(folder).read_text(encoding="utf-8")
    assert load(folder).meta["title"] in page
    assert query.main([str(folder), "all", "--csv", "-"]) == 0
    trials = pd.read_csv(folder / "trials.csv", keep_default_na=False)
    searched = trials[(trials["baseline"] == "") & (trials["state"] == "complete")]
    best = searched.loc[searched["val_accuracy"].astype(float).idxmax()]
    assert best["trial_id"] in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "trial_id"), [("sws", "t003"), ("magnitude", "t002"), ("kd_sws", "t003")])
def test_an_older_compressed_file_scores_as_its_study_says(kind: str, trial_id: str) -> None:
    """Decoded and read on the test part, the network has the accuracy that `confirmed.csv` recorded."""
    decoded = compressed_file.read(OLDER / kind / "models" / f"{trial_id}.codebook")
    confirmed = load(OLDER / kind).confirmed
    row = confirmed[(confirmed["trial_id"] == trial_id) & (confirmed["seed"] == 0)].iloc[0]
    splits, test = data.load("digits", None, size=min(decoded.network.input_shape[1:]))
    assert evaluate(decoded.model, test, splits).accuracy == pytest.approx(row["test_accuracy"], abs=0.3)
