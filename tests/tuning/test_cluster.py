"""What the machines of a study can hold."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from study.errors import UserError
from study.methods.sws.settings import SWSSettings
from study.pipeline import metadata
from study.settings import resolve
from study.training import precision
from study.tuning import cluster
from study.tuning.cluster import Capacity


def nodes(monkeypatch: pytest.MonkeyPatch, *resources: dict[str, float]) -> None:
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [{"Alive": True, "Resources": r} for r in resources])


def test_shared_work_has_the_cores_of_the_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """One training has the cores of all trials that would run at one time, several have a part each, none more than
    `MOST_THREADS` or less than a trial."""
    settings = resolve(SWSSettings())
    nodes(monkeypatch, {"CPU": 8})

    def cores(trainings: int = 1, **flags: object) -> float:
        return cluster.for_shared_work(settings.changed(**flags), trainings).resources.cpus_per_trial

    assert (cores(), cores(3), cores(20)) == (8, 2, 1)
    assert (cores(max_concurrent=3), cores(cpus_per_trial=2.0, max_concurrent=2)) == (3, 4)
    nodes(monkeypatch, {"CPU": 64})
    assert cores() == cluster.MOST_THREADS and cores(cpus_per_trial=32.0) == 32


def test_shared_work_fits_where_trials_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where GPUs or memory hold fewer trials than the cores would, it asks for their cores alone; in a cluster that was
    joined, where others may be at work, for those of a trial."""
    settings = resolve(SWSSettings()).changed(gpus_per_trial=0.5, cpus_per_trial=2.0)
    nodes(monkeypatch, {"CPU": 64, "GPU": 1})
    assert cluster.for_shared_work(settings, 1).resources.cpus_per_trial == 4
    nodes(monkeypatch, {"CPU": 64}, {"CPU": 8, "GPU": 1}, {"CPU": 8, "GPU": 1})
    assert cluster.for_shared_work(settings.changed(address="auto"), 1).resources.cpus_per_trial == 2


def test_precision_is_that_of_the_machines_that_train(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cluster one of its machines is asked, with what a trial asks for; otherwise this one is."""
    asked: list[dict[str, float]] = []

    class There:
        def options(self, **resources: float) -> There:
            asked.append(resources)
            return self

        def remote(self, kind: str) -> str:
            return f"what {kind} does best there"

    monkeypatch.setattr(cluster.ray, "remote", lambda function: There())
    monkeypatch.setattr(cluster.ray, "get", lambda answer: answer)
    settings = resolve(SWSSettings()).changed(gpus_per_trial=0.25, address="auto")
    assert cluster.best_precision_of_trials(settings) == "what cuda does best there"
    assert asked == [{"num_cpus": 1, "num_gpus": 0.25, "memory": None}]
    assert cluster.best_precision_of_trials(
        settings.changed(address=None, gpus_per_trial=0)
    ) == precision.best_precision("cpu")


def test_capacity_counts_what_each_machine_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that no single machine holds are not counted, and --max-concurrent bounds them."""
    settings = resolve(SWSSettings()).changed(cpus_per_trial=3.0, memory_per_trial=2.0)
    nodes(monkeypatch, {"CPU": 8, "memory": 64e9}, {"CPU": 2, "memory": 64e9}, {"CPU": 9, "memory": 4e9})
    assert Capacity(settings)() == 2 + 0 + 2
    assert Capacity(settings.changed(max_concurrent=3))() == 3


def test_a_driver_without_a_gpu_does_not_call_its_cluster_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes' GPUs have no name there, but `study.json` says that they are GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = resolve(SWSSettings()).changed(gpus_per_trial=0.5)
    assert metadata._device(settings) == "GPU, 0.5 of it a trial"
    assert metadata._device(settings.changed(gpus_per_trial=0)).startswith("CPU ")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"cpus_per_trial": 0.00001}, "--cpus-per-trial 1e-05: Ray counts in steps of 0.0001; give that or more"),
        ({"gpus_per_trial": 0.00001}, "--gpus-per-trial 1e-05: Ray counts in steps of 0.0001; give that or more"),
        ({"cpus_per_trial": 1e9}, "--cpus-per-trial 1e+09: the largest machine has "),
        ({"memory_per_trial": 1e12}, "--memory-per-trial 1e+12: the largest machine has "),
        ({"gpus_per_trial": 1e12}, "--gpus-per-trial 1e+12: a training runs on one GPU"),
        ({"gpus_per_trial": 2.0, "address": "auto"}, "--gpus-per-trial 2: a training runs on one GPU"),
    ],
)
def test_what_ray_cannot_count_is_refused_before_it_starts(flags: dict[str, float], line: str) -> None:
    """One line with the flag; a number of trials at one time that no machine holds is none too many."""
    settings = resolve(SWSSettings())
    with pytest.raises(UserError) as error:
        cluster.check_limits(settings.changed(**flags))
    assert str(error.value).startswith(line)
    cluster.check_limits(settings.changed(max_concurrent=10**30))


@pytest.mark.parametrize("terminal", [True, False])
def test_the_token_is_shown_on_a_terminal_alone(
    terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way in is printed once to a person; what goes to a file or a log names the command that prints it."""
    (tmp_path / "token").write_text("secret\n")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    (line,) = cluster.addresses(resolve(SWSSettings()), "http://127.0.0.1:8265")
    assert line.startswith("Ray dashboard: http://127.0.0.1:8265")
    assert ("secret" in line) == terminal and ("ray get-auth-token" in line) != terminal
