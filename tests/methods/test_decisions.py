"""What pruning by a score decided on: by hand on a few weights, and of a network that is trained."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from study.artifacts.checkpoints import Progress
from study.artifacts.weight_trace import npz_bytes
from study.compression.quantised_weights import flatten, shared_parameters
from study.data.splits import Splits
from study.methods.common import decisions, pinning
from study.methods.common.decisions import DRAWN, Decisions
from study.methods.sws import hard
from study.models.registry import build
from study.records import paths, study_folder
from study.records.atomic_files import write_bytes
from study.training import distillation
from study.training.distillation import Targets

HARD = hard.Hparams(density=0.03, components=8, epochs=6, ramp=0.4, ramp_power=3.0, batch_size=32)
LOSS = distillation.accuracy_loss(Targets(), 1.0, 0.0)


def weights_of(model: nn.Module) -> Tensor:
    return flatten(shared_parameters(model)).detach().clone()


def marks(*survivors: int, of: int = 6) -> Tensor:
    return torch.tensor([i in survivors for i in range(of)])


def test_a_pruned_weight_is_seen_as_it_was_when_it_was_pinned() -> None:
    """Six weights, two prunings, by hand. The last two have no value, or no gradient, and no mark. The score w² v̂ keeps
    weight 1 of magnitude 1; magnitude would keep weight 2 of magnitude 3 in its place."""
    first, undecided = Decisions(marks(), power=1.0), marks(0, 1, 2, 3, 4, 5)
    first.update(
        torch.tensor([5.0, -1.5, -3.0, 0.5, 0.0, 0.2]), torch.tensor([4.0, 49.0, 1.0, 1.0, 1.0, 0.0]), undecided
    )
    first.update(
        torch.tensor([6.0, -1.0, 0.0, 0.0, 0.0, 0.0]), torch.tensor([9.0, 64.0, 7.0, 7.0, 7.0, 7.0]), marks(0, 1)
    )
    arrays = {name: np.asarray(value) for name, value in first.arrays(marks(0, 1)).items()}
    rows = zip(*(arrays[f"score_{name}"].tolist() for name in ("magnitude", "gradient", "survives")), strict=True)
    assert sorted(rows) == [(0.5, 1.0, False), (1.0, 8.0, True), (3.0, 1.0, False), (6.0, 3.0, True)]
    assert arrays["score_counts"].tolist() == [2, 4, 1, 2] and arrays["score_power"] == 1
    assert arrays["score_thresholds"].tolist() == [64.0, 3.0]


def test_without_a_score_nothing_is_recorded() -> None:
    """Neither where weights are pruned by magnitude, which then also has no state, nor where all of them survive."""
    plain, all_stay = Decisions(marks(), power=0.0), Decisions(marks(), power=1.0)
    assert plain.state == [] and plain.arrays(marks(0)) == {}
    assert len(all_stay.state) == 2 and all_stay.arrays(marks(0, 1, 2, 3, 4, 5)) == {}


def test_the_sample_is_small_and_always_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many weights `DRAWN` of each kind, whatever was drawn before; the counts are of all weights."""
    generator = torch.Generator().manual_seed(3)
    weights, squares = torch.randn(9000, generator=generator), torch.rand(9000, generator=generator)
    survives = pinning.largest(weights.square() * squares, 2500)
    ends = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        decided = Decisions(survives, power=1.0)
        decided.update(weights, squares, torch.ones_like(survives))
        ends.append(decided.arrays(survives))
    assert all(torch.equal(torch.as_tensor(ends[0][n]), torch.as_tensor(ends[1][n])) for n in ends[0])
    assert int(torch.as_tensor(ends[0]["score_survives"]).sum()) == DRAWN == len(ends[0]["score_survives"]) // 2
    by_magnitude = pinning.largest(weights.abs(), 2500)
    disputed = int((survives & ~by_magnitude).sum())
    assert torch.as_tensor(ends[0]["score_counts"]).tolist() == [2500, 6500, disputed, 0] and disputed > 100


def test_a_trial_leaves_what_its_pruning_decided_on(
    digits: Splits, pretrained: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network that is trained, by every single pruning: each weight is seen as it was at the last one before which
    it was not pinned, no survivor's score is below the threshold, and magnitude would have kept others."""
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    update = Decisions.update

    def watched(self: Decisions, weights: Tensor, squares: Tensor, undecided: Tensor) -> None:
        seen.append((weights.clone(), squares.clone(), undecided.clone()))
        update(self, weights, squares, undecided)

    monkeypatch.setattr(Decisions, "update", watched)
    monkeypatch.setattr(decisions, "DRAWN", 10**9)
    model, progress = copy.deepcopy(pretrained), Progress()
    survives, _ = pinning.prune(model, HARD, digits, LOSS, lambda row: None, progress)
    magnitudes, squares = torch.zeros(len(survives)), torch.zeros(len(survives))
    for weights, now, undecided in seen:
        magnitudes[undecided], squares[undecided] = weights.abs()[undecided], now[undecided]
    fixed = {name: torch.as_tensor(value) for name, value in progress.trace.fixed.items() if name.startswith("score_")}
    count = int(survives.sum())
    assert fixed["score_counts"][0] == count == int(fixed["score_survives"].sum())
    for mark, expected in ((True, survives), (False, ~survives)):
        rows = fixed["score_survives"] == mark
        drawn = torch.stack([fixed["score_magnitude"], fixed["score_gradient"] ** 2])[:, rows]
        shown = expected & (magnitudes > 0) & (squares > 0)
        torch.testing.assert_close(drawn.sort().values, torch.stack([magnitudes, squares])[:, shown].sort().values)
    own = fixed["score_magnitude"].double() ** 2 * fixed["score_gradient"].double() ** 2
    assert float(own[fixed["score_survives"]].min()) == pytest.approx(float(fixed["score_thresholds"][0]), rel=1e-5)
    disputed = count - int(pinning.largest(magnitudes, count)[survives].sum())
    assert int(fixed["score_counts"][2]) == disputed > 0.05 * count


def test_the_record_changes_no_weight(digits: Splits, pretrained: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruned with it or without it, a network ends with the same weights, bit for bit."""
    with_record, without = copy.deepcopy(pretrained), copy.deepcopy(pretrained)
    pinning.prune(with_record, HARD, digits, LOSS, lambda row: None)
    monkeypatch.setattr(Decisions, "update", lambda *_, **__: None)
    pinning.prune(without, HARD, digits, LOSS, lambda row: None)
    assert torch.equal(weights_of(with_record), weights_of(without))


@pytest.mark.parametrize(("power", "quantised_training"), [(1.0, True), (0.0, False)])
def test_survivors_of_every_epoch_are_those_that_it_reports(
    power: float, quantised_training: bool, digits: Splits, pretrained: nn.Module, tmp_path: Path
) -> None:
    """In the trace that is read back: by layer, all weights at first, and in quantised training as many as the reported
    sparsity says; a record of the score is there where it has a power."""
    hparams = dataclasses.replace(
        HARD, score_power=power, quantised_training=quantised_training, epochs=4, codebook_epochs=1
    )
    rows: list[dict] = []
    model, progress = copy.deepcopy(pretrained), Progress()
    pinning.fit(model, hparams, digits, rows.append, progress=progress)
    write_bytes(paths.trace_of(tmp_path, "t001"), npz_bytes(progress.trace.arrays()))
    trace = study_folder.read_trace(tmp_path, "t001")
    counts = [trace[f"nonzero/{i}"] for i in range(5)]
    sizes = [p.numel() for p in shared_parameters(model)]
    assert counts[0].tolist() == sizes == trace["layer_weights"].tolist()
    assert [part.tolist() for part in counts] == sorted((part.tolist() for part in counts), reverse=True)
    for row, part in zip(rows[:4], counts[1:], strict=True):
        if row["phase"] == "quantise":
            assert 100 - 100 * part.sum() / sum(sizes) == pytest.approx(row["sparsity"])
    assert round(0.03 * sum(sizes)) >= counts[-1].sum() >= trace["layer_nonzero"].sum() > 0
    assert ("score_counts" in trace) == bool(power)


def test_a_checkpoint_from_before_decisions_were_recorded_starts_its_phase_again(digits: Splits) -> None:
    """A trial of an older version, cut off in either phase, comes to the same end; the score's figure is that of all of
    its prunings."""
    torch.manual_seed(0)
    start = build("lenet_300_100", (1, 8, 8), 10)
    whole = Progress()
    expected, _ = pinning.fit(copy.deepcopy(start), HARD, digits, lambda row: None, progress=whole)
    for phases in (1, 2):
        older = Progress(copy.deepcopy(whole.states[:phases]))
        del older.states[0]["others"][-2:]
        done, _ = pinning.fit(copy.deepcopy(start), HARD, digits, lambda row: None, progress=older)
        assert torch.equal(done.assignment, expected.assignment) and torch.equal(done.values, expected.values)
        assert np.array_equal(older.trace.arrays()["score_counts"], whole.trace.arrays()["score_counts"])
