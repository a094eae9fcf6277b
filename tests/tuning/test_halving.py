"""Which trials halving lets go on, against hand-computed cases and against plain sorting."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from search_spaces import magnitude
from study.artifacts.checkpoints import Checkpoint, path_of
from study.data import registry
from study.methods.kd_sws import method as kd_sws
from study.methods.kd_sws.settings import KDSWSSettings
from study.methods.magnitude.method import METHOD
from study.methods.magnitude.pruning import Hparams, fit
from study.methods.magnitude.settings import MagnitudeSettings
from study.records.ledger import Ledger, history_row
from study.settings import resolve
from study.tuning import tune_run
from study.tuning.halving import Rungs, spread, standing
from study.tuning.scheduler import HalvingScheduler, make_rule
from study.tuning.searcher import Queued
from study.tuning.space import SearchSpace

ACCURACY = {"val_accuracy": "max"}
BOTH = {"val_accuracy": "max", "sparsity": "max"}
NAN = math.nan


def verdicts(rungs: Rungs, *scores: Any, epoch: int = 1) -> list[bool]:
    """Verdicts on trials that reach `epoch` one after the other; a score is a number, or one for each objective."""
    rows = [np.atleast_1d(score) for score in scores]
    names = list(rungs.signs)
    return [rungs.judge(f"t{i}", epoch, dict(zip(names, row, strict=True))) for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("epochs", "grace", "reduction", "levels"),
    [
        (70, 17, 3, [17, 51]),
        (27, 1, 3, [1, 3, 9]),
        (28, 1, 3, [1, 3, 9, 27]),
        (9, 2, 2, [2, 4, 8]),
        (5, 5, 3, []),
        (1, 1, 3, []),
    ],
)
def test_rungs_end_before_the_last_epoch(epochs: int, grace: int, reduction: int, levels: list[int]) -> None:
    """Rungs ascend from grace by the factor, and none is at the last epoch or behind it."""
    assert Rungs(ACCURACY, epochs, grace, reduction).levels == levels


def test_best_third_goes_on() -> None:
    """By hand, reduction 3: of the n seen so far ceil(n / 3) go on: one of three, two of six, three of seven."""
    # n, allowed, ranking before it: (1, 1, 0) (2, 1, 1) (3, 1, 0) (4, 2, 1) (5, 2, 4) (6, 2, 2) (7, 3, 2)
    scores = [50.0, 40.0, 60.0, 55.0, 30.0, 52.0, 53.0]
    assert verdicts(Rungs(ACCURACY, 9, 1), *scores) == [True, False, True, True, False, False, True]


@pytest.mark.parametrize("keep_front", [True, False])
@pytest.mark.parametrize("direction", ["max", "min"])
@pytest.mark.parametrize("seed", range(10))
def test_one_objective_is_sorting(seed: int, direction: str, keep_front: bool) -> None:
    """With one objective and many ties, a trial goes on if fewer than ceil(n / reduction) seen so far are better, as in
    ordinary ASHA; protecting the front changes nothing."""
    rng = np.random.default_rng(seed)
    scores, reduction = rng.integers(0, 20, 100).astype(float), int(rng.integers(2, 5))
    rungs = Rungs({"loss": direction}, 9, 1, reduction, keep_front)
    better = np.greater if direction == "max" else np.less
    expected = [
        int(better(scores[: n + 1], score).sum()) < math.ceil((n + 1) / reduction) for n, score in enumerate(scores)
    ]
    assert verdicts(rungs, *scores) == expected


@pytest.mark.parametrize("objectives", [ACCURACY, BOTH])
@pytest.mark.parametrize("score", [0.0, NAN, -math.inf])
def test_the_first_always_goes_on(objectives: dict[str, str], score: float) -> None:
    """Nobody has been seen at a rung before its first trial, so it goes on, whatever it scores."""
    rungs = Rungs(objectives, 9, 1)
    for epoch in (1, 3):
        assert rungs.judge("t", epoch, dict.fromkeys(objectives, score))


def test_two_objectives_by_hand() -> None:
    """Reduction 2. The order is by fronts, and within one: the most accurate, the farthest from it, the rest."""
    a, b, c, d, e = (10.0, 2.0), (6.0, 6.0), (9.0, 5.0), (8.0, 4.0), (9.5, 5.5)
    # b: order a b, 1 of 2 go on. c: order a b c, 2 of 3. d: c dominates it, 3 before it, 2 of 4.
    # e dominates c and d: order a b e, 2 before it, 3 of 5 go on.
    assert verdicts(Rungs(BOTH, 9, 1, 2, keep_front=False), a, b, c, d, e) == [True, False, False, False, True]


@pytest.mark.parametrize("seed", range(5))
def test_later_fronts_do_not_count(seed: int) -> None:
    """Where a trial stands depends on its own front and those before it: rows that one of its front dominates change
    nothing, however far away they lie. By hand: last of three on the first front, whatever lies behind."""
    corners = [[0.0, 8.0], [8.0, 0.0]]
    for behind in ([], [[20.0, 20.0]], [[9.0, 9.0], [4.0, 100.0], [100.0, 4.0]]):
        assert standing(np.array([*corners, *behind, [4.0, 4.0]])) == (0, 2)
    costs = np.random.default_rng(seed).normal(size=(30, 2))
    place = standing(costs)
    dominated = costs[-1] + np.random.default_rng(seed).exponential(size=(10, 2))
    assert standing(np.concatenate([dominated, costs])) == place


def test_the_front_is_kept() -> None:
    """With keep_front a trial that none dominates goes on though more than one third are like it; one that is dominated
    does not. Without, those between the ends of the front are stopped."""
    front = [(90.0, 10.0), (82.0, 18.0), (86.0, 14.0), (88.0, 12.0), (84.0, 16.0)]
    assert verdicts(Rungs(BOTH, 9, 1), *front, (80.0, 10.0)) == [True] * 5 + [False]
    assert verdicts(Rungs(BOTH, 9, 1, keep_front=False), *front) == [True] + [False] * 4


def test_directions_are_heeded() -> None:
    """Minimising is maximising the negative, objective by objective."""
    scores = np.random.default_rng(0).normal(size=(60, 2))
    for keep_front in (True, False):
        most = verdicts(Rungs(BOTH, 9, 1, 3, keep_front), *scores)
        mixed = Rungs({"val_accuracy": "max", "file_bytes": "min"}, 9, 1, 3, keep_front)
        assert verdicts(mixed, *(scores * [1, -1])) == most
        assert len(set(most)) == 2


@pytest.mark.parametrize("bad", [(NAN, 99.0), (99.0, math.inf), (-math.inf, NAN)])
def test_what_is_no_number_ranks_last(bad: tuple[float, float]) -> None:
    """A value that is not finite ranks behind every other trial, other such ones included, whatever its other value;
    it counts among those seen."""
    rungs = Rungs(BOTH, 9, 1)
    assert verdicts(rungs, (50.0, 50.0), bad, bad) == [True, False, False]
    assert standing(np.array([bad, bad])) == (2, 1)
    assert rungs.judge("worse", 1, {"val_accuracy": 40.0, "sparsity": 40.0})  # second of four, of whom two go on


def test_equal_trials_share_a_place() -> None:
    """A trial equal to one that goes on goes on, in one objective and in two; one behind them all does not."""
    assert verdicts(Rungs(ACCURACY, 9, 1), 60.0, 60.0, 60.0, 50.0) == [True, True, True, False]
    same = Rungs(BOTH, 9, 1, keep_front=False)
    assert verdicts(same, (60.0, 60.0), (60.0, 60.0), (60.0, 60.0), (60.0, 50.0)) == [True, True, True, False]


def test_epochs_reported_again_change_nothing() -> None:
    """A retried trial that reports its epochs again is not counted twice, and gets the verdicts that it had; so does
    one that was stopped. The verdicts on others are those without it."""
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 8, size=(40, 2)).astype(float)
    once, again = Rungs(BOTH, 9, 1), Rungs(BOTH, 9, 1)
    for i, score in enumerate(scores):
        row = dict(zip(BOTH, score, strict=True))
        for epoch in range(1, 10):
            verdict = once.judge(f"t{i}", epoch, row)
            assert again.judge(f"t{i}", epoch, row) == verdict
            for earlier in range(1, epoch + 1):
                assert again.judge(f"t{i}", earlier, dict.fromkeys(BOTH, rng.normal())) == verdict
            if not verdict:
                break


def test_a_continued_study_judges_as_one_that_was_not_cut_off() -> None:
    """Trials that recall what they had reported measure the others as before, and are not stopped for it, even where
    they would be if they came now; nor are they judged again at a rung that they had passed."""
    rng = np.random.default_rng(2)
    scores = rng.integers(0, 8, size=(40, 2)).astype(float)
    rows = [dict(zip(BOTH, score, strict=True)) for score in scores]
    uninterrupted, continued = Rungs(BOTH, 9, 1), Rungs(BOTH, 9, 1)
    for i, row in enumerate(rows[:20]):
        uninterrupted.judge(f"t{i}", 1, row)
    for i in reversed(range(20)):
        continued.recall(f"t{i}", [{"epoch": 1, **rows[i]}, {"epoch": 2, **rows[i]}])
    for i, row in enumerate(rows[20:], start=20):
        assert continued.judge(f"t{i}", 1, row) == uninterrupted.judge(f"t{i}", 1, row)
    assert all(continued.judge(f"t{i}", 2, dict.fromkeys(BOTH, -1.0)) for i in range(20))


def test_between_rungs_nobody_is_judged() -> None:
    """Before the first rung and between rungs a trial goes on and is not recorded, however bad."""
    rungs = Rungs(ACCURACY, 20, 4)  # rungs 4 and 12
    assert verdicts(rungs, 90.0, 10.0, epoch=3) == [True, True]
    assert rungs.judge("t0", 4, {"val_accuracy": 90.0})
    assert rungs.judge("t0", 11, {"val_accuracy": 0.0})
    assert rungs.judge("t0", 12, {"val_accuracy": 90.0})
    assert rungs.judge("t1", 4, {"val_accuracy": 95.0})
    assert not rungs.judge("t1", 12, {"val_accuracy": 80.0})


def test_a_rung_that_was_passed_over_is_not_recorded() -> None:
    """A trial whose first report comes late is judged at the last rung it passed, and is no measure at the others."""
    rungs = Rungs(ACCURACY, 30, 1)  # rungs 1, 3, 9, 27
    assert rungs.judge("late", 10, {"val_accuracy": 99.0})
    assert rungs.judge("early", 1, {"val_accuracy": 10.0})
    assert rungs.judge("early", 3, {"val_accuracy": 20.0})
    assert not rungs.judge("early", 9, {"val_accuracy": 30.0})


def test_a_report_without_an_objective_is_not_judged() -> None:
    """A phase that cannot measure an objective is not judged; the first report with all of them is."""
    rungs = Rungs(BOTH, 9, 1)
    assert rungs.judge("a", 1, {"val_accuracy": 50.0, "sparsity": 50.0})
    assert rungs.judge("b", 1, {"val_accuracy": 40.0})
    assert rungs.judge("b", 1, {"val_accuracy": 40.0, "sparsity": None})
    assert not rungs.judge("b", 2, {"val_accuracy": 40.0, "sparsity": 40.0})


def test_spread_covers_a_front() -> None:
    """From the best in the first objective, always the farthest from those before, whatever the objectives' units."""
    points = np.array([[0.0, 8.0], [1.0, 7.0], [4.0, 4.0], [7.0, 1.0], [8.0, 0.0]])
    assert spread(points).tolist() == [0, 4, 2, 1, 3]
    assert spread(points * [1e-3, 1e6]).tolist() == [0, 4, 2, 1, 3]


@pytest.mark.parametrize(
    ("objectives", "numbers"),
    [({}, (9, 1, 3)), ({"loss": "minimise"}, (9, 1, 3)), (ACCURACY, (9, 0, 3)), (ACCURACY, (9, 1, 1))],
)
def test_what_cannot_be_meant_is_refused(objectives: dict[str, str], numbers: tuple[int, int, int]) -> None:
    """No objective, an unknown direction, a grace below one epoch, and a reduction that stops nobody are errors."""
    with pytest.raises(ValueError):
        Rungs(objectives, *numbers)


@pytest.fixture(scope="module")
def pruning() -> list[dict[str, Any]]:
    """The epochs of a trial of a magnitude study, as `history.csv` has them."""
    digits, _ = registry.load("digits", None)
    rows: list[dict[str, Any]] = []
    network = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(digits.shape), 10))
    fit(network, Hparams(density=0.2, epochs=3, codebook_epochs=1), digits, rows.append)
    return [history_row({**row, "reported": ",".join(row)}) for row in rows]


def test_a_size_that_only_a_finished_trial_has_does_not_stop_halving(
    pruning: list[dict[str, Any]], tmp_path: Path
) -> None:
    """No epoch knows the bytes of its file, so a magnitude study judges by the entropy bound of it: a trial whose
    network is as good but larger than another's is stopped, whether that one ran in this command or the last."""
    assert "file_bytes" in magnitude.OBJECTIVES and all("file_bytes" not in row for row in pruning)
    larger = [{**row, "entropy_bytes": 2 * row["entropy_bytes"]} for row in pruning]
    settings = resolve(MagnitudeSettings.of(epochs=3, codebook_epochs=1))
    now = make_rule(METHOD, settings, magnitude.OBJECTIVES, Ledger(tmp_path), tmp_path)
    assert all(now.judge("t001", row["epoch"], row) for row in pruning)
    ledger = Ledger(tmp_path)
    ledger.start("t001", {"density": 0.2, "codebook_size": 16})
    for row in pruning:
        ledger.epoch("t001", row)
    ledger.finish("t001", "complete")
    for rungs in (now, make_rule(METHOD, settings, magnitude.OBJECTIVES, ledger, tmp_path)):
        assert not all(rungs.judge("t002", row["epoch"], row) for row in larger)


def test_a_trial_cut_off_before_its_verdict_is_judged(pruning: list[dict[str, Any]], tmp_path: Path) -> None:
    """A trial whose checkpoint ends with its rung is judged when it reports that epoch again; one that had gone on from
    it had its verdict, and keeps it."""
    ledger = Ledger(tmp_path)
    ledger.start("t001", {"density": 0.2, "codebook_size": 16})
    for row in pruning:
        ledger.epoch("t001", row)
    ledger.finish("t001", "complete")
    worse = [{**row, "val_accuracy": 0.0, "entropy_bytes": 2 * row["entropy_bytes"]} for row in pruning]
    for name, epochs in (("t002", 2), ("t003", 3)):  # the rung is at two of four epochs
        ledger.start(name, {"density": 0.2, "codebook_size": 16})
        checkpoint = Checkpoint(path_of(tmp_path, name), {"trial_id": name})
        for row in worse[:epochs]:
            checkpoint.write(row)
    settings = resolve(MagnitudeSettings.of(epochs=3, codebook_epochs=1))
    rungs = make_rule(METHOD, settings, magnitude.OBJECTIVES, ledger, tmp_path)
    assert [rungs.judge("t002", row["epoch"], row) for row in worse[:2]] == [True, False]
    assert all(rungs.judge("t003", row["epoch"], row) for row in worse)


def test_a_trial_that_is_distilled_first_is_judged_half_way_through_its_compression(tmp_path: Path) -> None:
    """Before that its size says nothing; and under the first epochs of the mixture next to nothing."""
    settings = resolve(KDSWSSettings.of(dataset="mnist", epochs=20, cluster_epochs=20, codebook_epochs=4))
    objectives = {"val_accuracy": "max", "file_bytes": "min"}
    assert make_rule(kd_sws.METHOD, settings, objectives, Ledger(tmp_path), tmp_path).levels == [32]


def test_a_baseline_is_never_stopped_and_measures_nobody() -> None:
    """The worst of all at every rung, it goes on, while a trial with its scores is stopped; without the baseline's
    scores the verdicts on trials are the same. A trial is not stopped at its last epoch."""

    def verdict(scheduler: HalvingScheduler, trial_id: str, score: float, epoch: int = 2, **more: bool) -> str:
        trial = SimpleNamespace(config={"trial_id": trial_id})
        return scheduler.on_trial_result(None, trial, {"epoch": epoch, "val_accuracy": score, **more})

    scheduler = HalvingScheduler(Rungs(ACCURACY, 9, 1), {"paper"}, lambda config: 9)
    assert verdict(scheduler, "paper", 99.0) == scheduler.CONTINUE
    assert [verdict(scheduler, f"t{i}", score) for i, score in enumerate((50.0, 60.0))] == [scheduler.CONTINUE] * 2
    assert verdict(scheduler, "t2", 10.0) == scheduler.STOP
    assert [verdict(scheduler, "paper", 1.0, epoch) for epoch in (3, 8, 9)] == [scheduler.CONTINUE] * 3
    assert verdict(scheduler, "t3", 1.0, 9) == scheduler.CONTINUE
    assert verdict(scheduler, "t4", 1.0, finished=True) == scheduler.CONTINUE


def test_a_search_tells_the_scheduler_its_baselines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the queue, and no trial that was cut off."""
    built: list[Any] = []
    monkeypatch.setattr(tune_run, "_searcher", lambda *arguments: None)
    monkeypatch.setattr(tune_run.tune, "with_parameters", lambda *arguments, **named: None)
    monkeypatch.setattr(tune_run, "_tuner", lambda job, settings, trainable, scheduler, trials: built.append(scheduler))
    monkeypatch.setattr(tune_run, "_fit", lambda job, tuner: True)
    settings = resolve(MagnitudeSettings.of(scheduler="asha", dashboard=False))
    recorder = SimpleNamespace(ledger=Ledger(tmp_path), searcher=None)
    job = tune_run.Job(settings, SearchSpace.load("magnitude"), tmp_path, recorder)  # type: ignore[arg-type]
    queue = [Queued("paper settings", {}, "paper settings"), Queued("t003", {}, ""), Queued("8-bit", {}, "8-bit")]
    work = tune_run.Work(METHOD.trial, None, {})  # type: ignore[arg-type]
    assert tune_run.run_trials(job, work, queue, 2, searching=True)
    assert built[0].baselines == {"paper settings", "8-bit"}


@pytest.mark.parametrize("keep_front", [True, False])
@pytest.mark.parametrize("objectives", [{"a": "min"}, {"a": "min", "b": "max"}, {"a": "min", "b": "max", "c": "min"}])
def test_a_verdict_without_ranking_is_that_of_the_ranking(objectives: dict[str, str], keep_front: bool) -> None:
    """Ties, infinite values of both signs and values that are no number included, whatever the share that goes on."""
    generator = np.random.default_rng(0)
    for reduction in (2, 3, 5):
        rule, rows = Rungs(objectives, 9, 1, reduction, keep_front), []
        for number in range(150):
            values = generator.integers(0, 7, len(objectives)).astype(float)
            if number % 11 == 10:
                values[0] = (math.nan, math.inf, -math.inf)[number % 3]
            signs = [1.0 if way == "min" else -1.0 for way in objectives.values()]
            rows.append(values * signs)
            front, ahead = standing(np.array(rows))
            goes_on = ahead < math.ceil(len(rows) / reduction) or (keep_front and front == 0)
            assert rule.judge(f"t{number}", 1, dict(zip(objectives, values, strict=True))) == goes_on, number
