"""A study in a bucket whose driver is killed, and whose copy is deleted. The long version is bucket_bed.py."""

from __future__ import annotations

import bed
import bucket_bed
import buckets
import pytest

from study.records import paths, study_folder

STUDY = (
    "magnitude --num-samples 2 --pretrain-epochs 3 --epochs 3 --codebook-epochs 1 --no-dashboard --track tensorboard"
).split()


@pytest.mark.slow
def test_a_driver_that_dies_and_a_copy_that_is_gone() -> None:
    """Killed twice, and the copy deleted before the last command: exactly the trials asked for, every epoch once, and
    what trackers write stays on the machine."""
    with buckets.s3_server():
        _, deleted, _ = bucket_bed.injure(2, STUDY, "magnitude-digits", latest=3.0)
        folder = bucket_bed.downloaded("magnitude-digits")
        study = study_folder.load(folder)
    searched = study.trials[study.trials["baseline"] == ""]
    assert list(searched["trial_id"]) == ["t001", "t002"] and set(study.trials["state"]) == {"complete"}
    for trial_id in (*searched["trial_id"], "paper settings"):
        assert study.history[study.history["trial_id"] == trial_id]["epoch"].tolist() == [1, 2, 3, 4]
    assert deleted == 1 and len(study.confirmed) and not study.confirmed[["trial_id", "seed"]].duplicated().any()
    names = {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}
    assert paths.REPORT in names and not names & {*paths.LOCAL_FOLDERS, paths.CHECKPOINTS}
    assert bed.trials_ended(folder) == 2
