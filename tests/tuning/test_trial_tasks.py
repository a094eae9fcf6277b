"""Trials as tasks of Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import ray
from ray.exceptions import RayTaskError

from study.tuning.trial_tasks import TrialFailure, TrialTasks


@pytest.fixture(scope="module")
def running() -> Iterator[None]:
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_a_task_lasts_as_long_as_its_trial(running: None, capfd: pytest.CaptureFixture[str]) -> None:
    """It fails with the trial's reason, and nothing of that is printed; one that nobody started may end."""
    tasks = TrialTasks("study of tasks")
    for name in ("t001", "t002"):
        tasks.start(name, name, {"tau": 0.25})
    good, bad = tasks.running["t001"], tasks.running["t002"]
    assert not ray.wait([good, bad], timeout=3)[0]
    tasks.end("t001", "complete", "", 1.5)
    tasks.end("t002", "failed", "its loss is not a number", 2.0)
    tasks.end("t003", "failed", "never seen", 2.0)
    assert ray.get(good, timeout=60) is None
    with pytest.raises(RayTaskError, match="its loss is not a number") as raised:
        ray.get(bad, timeout=60)
    assert isinstance(raised.value.cause, TrialFailure) and not tasks.running
    del good, bad
    time.sleep(1)
    assert "not a number" not in capfd.readouterr().err


def test_two_stages_of_a_study_have_one_actor(running: None) -> None:
    """Fresh seeds have a recorder of their own, and are listed under the same study."""
    first, second = TrialTasks("study of stages"), TrialTasks("study of stages")
    first.start("t001", "t001", {})
    second.start("t001.1", "t001.1", {})
    assert first.actor._actor_id == second.actor._actor_id


def test_a_study_goes_on_without_the_actor(running: None) -> None:
    """Where its process was killed, trials start and end as before."""
    tasks = TrialTasks("study without")
    tasks.start("t001", "t001", {})
    ray.get(tasks.actor.end.remote("t000", "", ""), timeout=60)
    ray.kill(tasks.actor)
    time.sleep(1)
    tasks.start("t002", "t002", {"tau": 1})
    for name in ("t001", "t002"):
        tasks.end(name, "complete", "", 1.0)
