"""Trials that are trained together come to what each comes to alone."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from study.data import registry
from study.data.splits import Splits, subset_per_class
from study.errors import TrialFailed
from study.methods.common.packed_training import Member
from study.methods.sws import packed, weight_sharing
from study.methods.sws.mixture import Mixture, negative_log_likelihood
from study.methods.sws.weight_sharing import Hparams
from study.training import distillation
from study.training.batches import Batch
from study.training.distillation import Targets
from study.training.loop import evaluate
from study.training.network import Training, fit_teacher

HPARAMS = Hparams(tau=0.003, components=9, pi_zero=0.9, epochs=3, batch_size=64, codebook_epochs=2,
                      precision_rate=1e-2)  # fmt: skip
OTHERS = [
    HPARAMS,
    dataclasses.replace(HPARAMS, tau=0.01, components=4, pi_zero=0.99, seed=5),
    dataclasses.replace(HPARAMS, tau=0.001, components=33, pi_zero_strength=0.0, seed=1),
]


@pytest.fixture(scope="module")
def pretrained(digits: Splits) -> nn.Module:
    training = Training("lenet_300_100", epochs=8, batch_size=32, learning_rate=1e-3)
    return weight_sharing.pretrain(training, digits, lambda row: None)


Rows = list[dict[str, Any]]


def together(
    network: nn.Module, hparams: list[Hparams], splits: Splits, targets: Targets | None = None
) -> tuple[list[Any], list[Rows]]:
    rows: list[Rows] = [[] for _ in hparams]
    members = [Member(h, r.append) for h, r in zip(hparams, rows, strict=True)]
    return packed.fit([copy.deepcopy(network) for _ in hparams], members, splits, targets), rows


def alone(network: nn.Module, h: Hparams, splits: Splits, targets: Targets | None = None) -> tuple[Any, Rows]:
    rows: Rows = []
    return weight_sharing.fit(copy.deepcopy(network), h, splits, rows.append, targets), rows


def assert_same(mine: Rows, theirs: Rows) -> None:
    assert [r.keys() for r in mine] == [r.keys() for r in theirs]
    for a, b in zip(mine, theirs, strict=True):
        assert (a["epoch"], a["phase"]) == (b["epoch"], b["phase"])
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-3, abs=1e-3)
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=0.02)
        assert a["val_accuracy"] == pytest.approx(b["val_accuracy"], abs=1)
        assert a["sparsity"] == pytest.approx(b["sparsity"], abs=0.1)


def test_members_are_what_they_would_be_alone(digits: Splits, pretrained: nn.Module) -> None:
    """Members with different tau, components, pi_zero and seeds: every epoch, and the file's weights, as alone."""
    found, rows = together(pretrained, OTHERS, digits)
    for h, (network, quantised, metrics), told in zip(OTHERS, found, rows, strict=True):
        (apart, theirs), expected = alone(pretrained, h, digits)
        assert_same(told, expected)
        assert (quantised.assignment != apart.assignment).double().mean() < 1e-3
        assert metrics["val_accuracy"] == pytest.approx(theirs["val_accuracy"], abs=1)
        assert evaluate(network, digits.validation, digits).accuracy == metrics["val_accuracy"]
        assert len(torch.cat([p.flatten() for p in network.parameters()]).unique()) <= len(quantised.values)


def test_a_taught_pack_has_each_members_temperature(digits: Splits, pretrained: nn.Module) -> None:
    """Under kept logits, members with their own temperature and alpha train as they would alone."""
    targets = Targets(distillation.teacher_logits(pretrained, digits.train, digits, "none"))
    hparams = [dataclasses.replace(HPARAMS, temperature=t, alpha=a) for t, a in ((1.0, 0.3), (6.0, 0.9))]
    _, rows = together(pretrained, hparams, digits, targets)
    for h, told in zip(hparams, rows, strict=True):
        assert_same(told, alone(pretrained, h, digits, targets)[1])


@pytest.mark.parametrize("augment", ["flip", "shift"])
def test_a_teacher_that_runs_in_every_step(augment: str, digits: Splits, pretrained: nn.Module) -> None:
    """It is asked about every member's own views of the images."""
    targets = Targets(teacher=copy.deepcopy(pretrained).eval().requires_grad_(False))
    hparams = [dataclasses.replace(HPARAMS, alpha=0.9, seed=s, augment=augment, epochs=1) for s in (0, 1)]
    _, rows = together(pretrained, hparams, digits, targets)
    for h, told in zip(hparams, rows, strict=True):
        assert_same(told, alone(pretrained, h, digits, targets)[1])


def test_networks_with_convolutions_and_batch_normalisation() -> None:
    """MiniVGG's running statistics are each member's own."""
    splits = registry.load("digits", None, size=32)[0]
    few = dataclasses.replace(splits, train=subset_per_class(splits.train, 10, 0))
    training = Training("minivgg", {"width": 0.1}, epochs=3, batch_size=16, precision="float32")
    network = fit_teacher(training, few, lambda row: None)
    hparams = [
        dataclasses.replace(HPARAMS, tau=1e-4, seed=s, batch_size=16, weight_rate=1e-3, precision="float32", epochs=1)
        for s in (0, 1)
    ]
    found, rows = together(network, hparams, few)
    for h, told, left in zip(hparams, rows, found, strict=True):
        (_, metrics), expected = alone(network, h, few)
        for a, b in zip(told, expected, strict=True):
            assert a["train_loss"] == pytest.approx(b["train_loss"], rel=0.02, abs=0.01)
        assert left[2]["val_loss"] == pytest.approx(metrics["val_loss"], rel=0.1)


class Averaging(nn.Module):
    """A network with a running mean that it replaces in every step, and one weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.again.weight = self.first.weight
        self.register_buffer("mean", torch.zeros(64), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(dim=0)
        return self.last(torch.relu(self.again(torch.relu(self.first(x - self.mean)))))


def test_a_network_may_replace_its_buffers_and_tie_its_weights(digits: Splits) -> None:
    """Its running mean goes on from step to step, each member's own, and the tied weight is one."""
    torch.manual_seed(3)
    network = Averaging()
    found, rows = together(network, OTHERS, digits)
    for h, (mine, _, _), told in zip(OTHERS, found, rows, strict=True):
        expected: Rows = []
        apart = copy.deepcopy(network)
        weight_sharing.fit(apart, h, digits, expected.append)
        assert_same(told, expected)
        torch.testing.assert_close(mine.mean, apart.mean, rtol=1e-4, atol=1e-5)
        assert float(mine.mean.abs().sum()) > 1 and mine.again.weight is mine.first.weight


def test_frozen_weights_have_no_say_in_the_codebook(digits: Splits, pretrained: nn.Module) -> None:
    """The values are trained by the weights that learn, as alone."""
    network = copy.deepcopy(pretrained)
    next(network.parameters()).requires_grad_(False)
    hparams = dataclasses.replace(HPARAMS, codebook_epochs=6, codebook_rate=1e-2)
    (_, quantised, _), *_ = together(network, [hparams], digits)[0]
    (theirs, _), _ = alone(network, hparams, digits)
    torch.testing.assert_close(quantised.values, theirs.values, rtol=1e-2, atol=1e-3)


def test_a_member_that_fails_leaves_the_others_alone(digits: Splits, pretrained: nn.Module) -> None:
    """One whose loss is no number ends as TrialFailed; the other's rows are as without it."""
    hparams = [dataclasses.replace(HPARAMS, tau=float("inf")), HPARAMS]
    found, rows = together(pretrained, hparams, digits)
    assert isinstance(found[0], TrialFailed) and str(found[0]) == "the training loss became nan"
    assert not rows[0]
    assert found[0].__traceback__ is None  # it would keep the pack's tensors
    assert_same(rows[1], alone(pretrained, HPARAMS, digits)[1])


def test_a_member_may_be_stopped(digits: Splits, pretrained: nn.Module) -> None:
    """What `on_epoch` raises ends that member with it; the other goes on, and with none left the training ends."""

    class Stopped(Exception):
        pass

    rows: list[Rows] = [[], []]

    def stop(which: int, after: int) -> Any:
        def on_epoch(row: dict[str, Any]) -> None:
            rows[which].append(row)
            if row["epoch"] == after:
                raise Stopped

        return on_epoch

    members = [Member(HPARAMS, stop(0, 1)), Member(HPARAMS, stop(1, 99))]
    found = packed.fit([copy.deepcopy(pretrained) for _ in members], members, digits)
    assert isinstance(found[0], Stopped) and len(rows[0]) == 1
    assert not isinstance(found[1], Exception) and len(rows[1]) == 5
    members = [Member(dataclasses.replace(HPARAMS, epochs=10**4), stop(0, 1))]
    assert isinstance(packed.fit([copy.deepcopy(pretrained)], members, digits)[0], Stopped)


def test_what_cannot_be_packed_is_refused(digits: Splits, pretrained: nn.Module) -> None:
    """Members with different epochs, and what needs a program of its own, raise ValueError."""
    for other in (dataclasses.replace(HPARAMS, epochs=4), dataclasses.replace(HPARAMS, batch_size=8)):
        with pytest.raises(ValueError, match="same"):
            together(pretrained, [HPARAMS, other], digits)
    for own in (dataclasses.replace(HPARAMS, merge=1.0), dataclasses.replace(HPARAMS, retrain_epochs=1)):
        with pytest.raises(ValueError, match="cannot be packed"):
            together(pretrained, [own], digits)


def test_the_loss_is_each_members_own() -> None:
    """The loss of several members is `distillation_loss` of each by itself."""
    student, labels = torch.randn(3, 7, 4), torch.randint(0, 4, (3, 7))
    kept = torch.randn(1, 20, 4)
    index = torch.randint(0, 20, (3, 7))
    batch = Batch(index, torch.zeros_like(index), torch.zeros(3, 7, 1), labels)
    temperature, alpha = torch.tensor([1.0, 4.0, 9.0]), torch.tensor([0.0, 0.5, 1.0])

    class Says(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return student

    found = distillation.accuracy_loss(Targets(kept), temperature, alpha)(Says(), batch)
    for i in range(3):
        own = float(temperature[i]), float(alpha[i])
        expected = distillation.distillation_loss(student[i], kept[0, index[i]], labels[i], *own)
        torch.testing.assert_close(found[i], expected)


def test_members_have_one_loss(digits: Splits, pretrained: nn.Module) -> None:
    """A pack trains under any loss as a trial alone does; members of different losses are no pack."""
    targets = Targets(4 * nn.functional.one_hot(digits.train.labels, 10).float()[None])
    first = dataclasses.replace(HPARAMS, loss="dist", temperature=2.0, alpha=0.5, epochs=1, codebook_epochs=0)
    members = [first, dataclasses.replace(first, temperature=4.0, alpha=0.9)]
    for h, mine in zip(members, together(pretrained, members, digits, targets)[1], strict=True):
        assert_same(mine, alone(pretrained, h, digits, targets)[1])
    with pytest.raises(ValueError, match="same"):
        together(pretrained, [first, dataclasses.replace(first, loss="kd")], digits, targets)


def test_members_that_all_have_alpha_zero_do_not_ask_the_teacher() -> None:
    """Their loss is each one's cross-entropy, and the teacher is not run."""
    student, labels = torch.randn(2, 7, 4), torch.randint(0, 4, (2, 7))
    batch = Batch(labels, torch.zeros_like(labels), torch.zeros(2, 7, 1, 2, 2), labels)

    class Refuses(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise AssertionError("the teacher was asked")

    class Says(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return student

    targets = Targets(teacher=Refuses())
    losses = distillation.accuracy_loss(targets, torch.tensor([1.0, 4.0]), torch.zeros(2))(Says(), batch)
    for i in range(2):
        torch.testing.assert_close(losses[i], nn.functional.cross_entropy(student[i], labels[i]))
    with pytest.raises(AssertionError, match="was asked"):
        distillation.accuracy_loss(targets, torch.tensor([1.0, 4.0]), torch.tensor([0.0, 0.5]))(Says(), batch)


def test_stacked_mixtures_are_those_apart() -> None:
    """Prior, hyper-prior and all gradients of mixtures of different length are those of each alone; a step of Adam
    leaves what takes no part out of it."""
    torch.manual_seed(0)
    weights = (0.1 * torch.randn(3, 500)).requires_grad_()
    apart = [Mixture(torch.linspace(-0.3, 0.3, n), 0.9, 0.05, (5e3, 2.0), (250.0, 0.1), s)
             for n, s in ((3, 50.0), (16, 100.0), (8, 1e4))]  # fmt: skip
    stack = Mixture.stacked(apart)
    found = stack.complexity(weights)
    for i, mixture in enumerate(apart):
        torch.testing.assert_close(found[i], mixture.complexity(weights[i]))
    optimiser = torch.optim.Adam([p for p in stack.parameters() if p.requires_grad], lr=0.01)
    found.sum().backward()
    optimiser.step()
    for i, mixture in enumerate(apart):
        own = torch.optim.Adam([p for p in mixture.parameters() if p.requires_grad], lr=0.01)
        mixture.complexity(weights[i].detach()).backward()
        own.step()
        again = stack.member(i, len(mixture.means))
        for (name, a), (_, b) in zip(again.named_parameters(), mixture.named_parameters(), strict=True):
            torch.testing.assert_close(a, b, msg=name)
        assert torch.equal(stack.assign(weights)[i], mixture.assign(weights[i]))


def test_a_component_without_proportion_takes_no_part() -> None:
    """With log π = −inf it changes neither value nor gradient."""
    weights = torch.linspace(-0.2, 0.2, 101).double().requires_grad_()
    mixture = [torch.tensor(t).double() for t in ([0.0, 0.1], [4.0, 5.0], [-0.5, -0.9])]
    padded = [torch.cat([t, torch.tensor([v]).double()]) for t, v in zip(mixture, (0.0, 0.0, -torch.inf), strict=True)]
    values = [negative_log_likelihood(weights, *m) for m in (mixture, padded)]
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(v, weights)[0] for v in values), rtol=1e-9, atol=1e-12)
