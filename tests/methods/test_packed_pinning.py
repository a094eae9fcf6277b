"""Trials that are pruned by a score together come to what each comes to alone, by either recipe."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from study.artifacts.checkpoints import Progress
from study.compression.quantised_weights import leave_out
from study.data import registry
from study.data.splits import Splits, subset_per_class
from study.errors import TrialFailed
from study.methods import registry as registry_of_methods
from study.methods.common import packed_pinning, pinning
from study.methods.common.packed_training import Member
from study.methods.common.pinning import PinningHparams
from study.methods.magnitude import pruning
from study.methods.magnitude.settings import MagnitudeSettings
from study.methods.sws import hard
from study.methods.sws.settings import SWSSettings
from study.models.registry import build
from study.settings import Settings, resolve
from study.training import distillation
from study.training.distillation import Targets
from study.training.loop import evaluate

HARD = hard.Hparams(density=0.05, components=8, epochs=5, batch_size=32, codebook_epochs=2)
OTHERS = [
    HARD,
    dataclasses.replace(HARD, density=0.2, components=16, score_power=0.0, seed=3),
    dataclasses.replace(HARD, density=0.02, components=4, ramp_power=3.0, seed=1),
]
Rows = list[dict[str, Any]]


def together(
    network: nn.Module,
    hparams: Sequence[PinningHparams],
    splits: Splits,
    targets: Targets | None = None,
    fit: Any = None,
) -> tuple[list[Any], list[Rows], list[Member]]:
    rows: list[Rows] = [[] for _ in hparams]
    members = [Member(h, r.append) for h, r in zip(hparams, rows, strict=True)]
    fit = fit or packed_pinning.fit
    return fit([copy.deepcopy(network) for _ in hparams], members, splits, targets), rows, members


def alone(
    network: nn.Module, h: PinningHparams, splits: Splits, targets: Targets | None = None
) -> tuple[nn.Module, Any, dict[str, float], Rows]:
    rows: Rows = []
    own = copy.deepcopy(network)
    return own, *pinning.fit(own, h, splits, rows.append, targets), rows


def assert_same(mine: Rows, theirs: Rows) -> None:
    """All that an epoch reports, but for rounding, which may move some of 360 validation images."""
    assert [r.keys() for r in mine] == [r.keys() for r in theirs]
    for a, b in zip(mine, theirs, strict=True):
        assert (a["epoch"], a["phase"]) == (b["epoch"], b["phase"])
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-3, abs=1e-4)
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=0.01)
        assert a["codebook_values_used"] == b["codebook_values_used"]
        for name, off in (("val_accuracy", 0.6), ("unquantised_val_accuracy", 0.6), ("sparsity", 0.05)):
            assert a.get(name, 0) == pytest.approx(b.get(name, 0), abs=off)


@pytest.mark.parametrize("quantised_training", [True, False])
def test_members_are_what_they_would_be_alone(quantised_training: bool, digits: Splits, pretrained: nn.Module) -> None:
    """Members with different densities, codebooks, scores, ramps and seeds: every epoch, and which weight of the file
    has which value, as alone."""
    hparams = [dataclasses.replace(h, quantised_training=quantised_training) for h in OTHERS]
    ends, rows, members = together(pretrained, hparams, digits)
    for h, (network, quantised, metrics), reported, member in zip(hparams, ends, rows, members, strict=True):
        _, theirs, expected, own_rows = alone(pretrained, h, digits)
        assert_same(reported, own_rows)
        assert (quantised.assignment != theirs.assignment).double().mean() < 1e-3
        torch.testing.assert_close(quantised.values, theirs.values, rtol=0.01, atol=1e-3)
        assert metrics["val_accuracy"] == pytest.approx(expected["val_accuracy"], abs=0.6)
        assert evaluate(network, digits.validation, digits).accuracy == metrics["val_accuracy"]
        assert torch.equal(weights_of(network), quantised.values[quantised.assignment])
        assert member.failure is None


def weights_of(network: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize("quantised_training", [True, False])
def test_a_pack_traces_what_a_trial_alone_does(quantised_training: bool, digits: Splits, pretrained: nn.Module) -> None:
    """The same frames, of the same weights, and the same codebook at the end."""
    h = dataclasses.replace(HARD, epochs=3, quantised_training=quantised_training)
    _, _, members = together(pretrained, [h, h], digits)
    progress = Progress()
    pinning.fit(copy.deepcopy(pretrained), h, digits, lambda row: None, progress=progress)
    mine, theirs = members[1].trace.arrays(), progress.trace.arrays()
    assert mine.keys() == theirs.keys()
    for name, array in theirs.items():
        if array.dtype.kind == "f":
            torch.testing.assert_close(torch.tensor(mine[name]), torch.tensor(array), rtol=0.01, atol=1e-2)
        elif name.startswith("counts/"):
            assert abs(mine[name] - array).sum() < 0.01 * array.sum()
        elif name != "occupancy":
            assert (mine[name] == array).all(), name
    assert abs(mine["occupancy"] - theirs["occupancy"]).sum() < 0.001 * theirs["occupancy"].sum()


def test_a_taught_pack_sees_each_members_views(digits: Splits, pretrained: nn.Module) -> None:
    """Under stored logits of moved images, members with their own temperature and alpha train as they would alone."""
    targets = Targets(distillation.teacher_logits(pretrained, digits.train, digits, "shift1"))
    hparams = [
        dataclasses.replace(HARD, epochs=3, augment="shift1", temperature=t, alpha=a, seed=s)
        for t, a, s in ((1.0, 0.3, 0), (6.0, 0.9, 1), (4.0, 0.0, 2))
    ]
    _, rows, _ = together(pretrained, hparams, digits, targets)
    for h, reported in zip(hparams, rows, strict=True):
        assert_same(reported, alone(pretrained, h, digits, targets)[3])


def test_parameters_that_are_not_shared_learn_too() -> None:
    """Batch-norm's parameters and statistics in both phases are each member's own, as alone."""
    torch.manual_seed(0)
    splits = registry.load("digits", None, size=32)[0]
    few = dataclasses.replace(splits, train=subset_per_class(splits.train, 10, 0))
    network = build("minivgg", (1, 32, 32), 10, width=0.125)
    hparams = [
        dataclasses.replace(HARD, epochs=2, density=0.3, batch_size=25, weight_rate=1e-3, precision="float32", seed=s)
        for s in (0, 1)
    ]
    ends, rows, _ = together(network, hparams, few)
    for h, (mine, _, _), reported in zip(hparams, ends, rows, strict=True):
        own, _, _, expected = alone(network, h, few)
        for a, b in zip(reported, expected, strict=True):
            assert a["train_loss"] == pytest.approx(b["train_loss"], rel=0.01)
        others = {name: t for name, t in own.state_dict().items() if t.dim() == 1 and "num" not in name}
        for name, tensor in others.items():
            torch.testing.assert_close(mine.state_dict()[name], tensor, rtol=0.05, atol=0.02, msg=name)


def test_weights_that_are_frozen_or_left_out(digits: Splits, pretrained: nn.Module) -> None:
    """A frozen layer is pruned but does not learn, and one that is left out of compression learns and stays dense."""
    network = leave_out(copy.deepcopy(pretrained), [name for name, _ in pretrained.named_parameters()][-2:])
    next(network.parameters()).requires_grad_(False)
    (mine, quantised, _), *_ = together(network, [OTHERS[1], HARD], digits)[0]
    own, theirs, _, _ = alone(network, OTHERS[1], digits)
    assert (quantised.assignment != theirs.assignment).double().mean() < 1e-3
    for a, b in zip(mine.parameters(), own.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=2e-3)


@pytest.mark.parametrize("quantised_training", [True, False])
def test_a_member_that_fails_leaves_the_others_alone(
    quantised_training: bool, digits: Splits, pretrained: nn.Module
) -> None:
    """One that prunes every weight, or whose loss is no number, ends with the reason of a trial alone."""
    targets = Targets(distillation.teacher_logits(pretrained, digits.train, digits, "none"))
    h = dataclasses.replace(HARD, epochs=2, quantised_training=quantised_training, alpha=0.5, temperature=2.0)
    hparams = [dataclasses.replace(h, density=1e-7), dataclasses.replace(h, alpha=float("nan")), h]
    ends, rows, members = together(pretrained, hparams, digits, targets)
    for failing, message in ((0, "every weight was pruned: density is too small"), (1, "the training loss became nan")):
        assert isinstance(ends[failing], TrialFailed) and str(ends[failing]).startswith(message)
        assert not rows[failing] and ends[failing].__traceback__ is None and members[failing].failure is ends[failing]
        with pytest.raises(TrialFailed) as error:
            alone(pretrained, hparams[failing], digits, targets)
        assert str(error.value) == str(ends[failing])
    assert_same(rows[2], alone(pretrained, h, digits, targets)[3])


@pytest.mark.parametrize("quantised_training", [True, False])
def test_a_member_may_be_stopped(quantised_training: bool, digits: Splits, pretrained: nn.Module) -> None:
    """What `on_epoch` raises ends that member with it, in every phase; the other goes on."""

    class Stopped(Exception):
        pass

    h = dataclasses.replace(HARD, epochs=4, quantised_training=quantised_training)
    rows: list[Rows] = [[], [], []]

    def stop(which: int, after: int) -> Any:
        def on_epoch(row: dict[str, Any]) -> None:
            rows[which].append(row)
            if row["epoch"] == after:
                raise Stopped

        return on_epoch

    members = [Member(h, stop(0, 1)), Member(h, stop(1, 3 if quantised_training else 5)), Member(h, stop(2, 99))]
    ends = packed_pinning.fit([copy.deepcopy(pretrained) for _ in members], members, digits)
    assert [isinstance(end, Stopped) for end in ends] == [True, True, False]
    assert [len(r) for r in rows] == ([1, 3, 4] if quantised_training else [1, 5, 6])
    members = [Member(dataclasses.replace(h, epochs=10**4), stop(0, 1))]
    assert isinstance(packed_pinning.fit([copy.deepcopy(pretrained)], members, digits)[0], Stopped)


def test_members_that_are_only_rounded_take_no_part_in_training(digits: Splits, pretrained: nn.Module) -> None:
    """Magnitude's baselines of plain quantisation have the results they have alone, in their places of the pack."""
    h = pruning.Hparams(density=0.1, codebook_size=8, epochs=2, codebook_epochs=1, batch_size=32)
    hparams = [dataclasses.replace(h, bits=8), h, dataclasses.replace(h, bits=4)]
    ends, rows, _ = together(pretrained, hparams, digits, fit=pruning.fit_pack)
    for h, (network, quantised, metrics), reported in zip(hparams, ends, rows, strict=True):
        own, own_rows = copy.deepcopy(pretrained), Rows()
        theirs, expected = pruning.fit(own, h, digits, own_rows.append)
        assert_same(reported, own_rows)
        assert (quantised.assignment != theirs.assignment).double().mean() < 1e-3
        assert metrics["val_accuracy"] == pytest.approx(expected["val_accuracy"], abs=0.6)
        if h.bits:
            assert torch.equal(weights_of(network), weights_of(own)) and metrics == expected
    assert [len(together(pretrained, hparams[:1], digits, fit=pruning.fit_pack)[0]), len(rows[1])] == [1, 3]


@pytest.mark.parametrize(
    ("settings", "name", "space"),
    [
        (SWSSettings.of(variant="hard"), "ramp", "sws_hard"),
        (SWSSettings.of(variant="soft"), "merge", "sws"),
        (MagnitudeSettings.of(), "epochs", "magnitude"),
    ],
)
def test_a_search_of_what_members_have_in_common_is_refused(
    settings: Settings, name: str, space: str, digits: Splits
) -> None:
    """With the file that sets it; what is searched by default is each member's own."""
    packing = registry_of_methods.method(settings.kind).packing
    assert packing is not None
    packing.check(resolve(settings), digits, {"density", "bits", "score_power", "alpha", "components", "codebook_size"})
    with pytest.raises(ValueError, match=f"search_spaces/{space}.py sets {name}, which all trials"):
        packing.check(resolve(settings), digits, {"density", name})


def test_what_cannot_be_packed_is_refused(digits: Splits, pretrained: nn.Module) -> None:
    """Members whose steps or phases differ raise ValueError."""
    for other in ({"epochs": 4}, {"batch_size": 8}, {"ramp": 0.2}, {"quantised_training": False}, {"weight_rate": 1.0}):
        with pytest.raises(ValueError, match="members of a pack have the same"):
            together(pretrained, [HARD, dataclasses.replace(HARD, **other)], digits)
