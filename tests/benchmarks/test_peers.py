"""The peer of the benchmarks is the same work as ours, done another way."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import peer_data
import peer_kd
import peer_sws
import pytest
import torch

from study.data import registry
from study.data.images import normalise
from study.data.splits import subset_per_class
from study.methods.kd.settings import KDSettings
from study.methods.sws.mixture import Mixture, even_means
from study.methods.sws.settings import SWSSettings
from study.settings import resolve
from study.training import distillation

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))  # the peers import each other as scripts do


@pytest.mark.parametrize(("size", "per_class"), [(0, 0), (32, 10)])
def test_both_see_the_same_images(size: int, per_class: int) -> None:
    """Same images in both parts, in the same order, and within rounding the same pixels."""
    splits, _ = registry.load("digits", None, size=size or None)
    peer = peer_data.load("digits", None, size=size, per_class=per_class)
    train = subset_per_class(splits.train, per_class, 0) if per_class else splits.train
    for ours, theirs in ((train, peer.train), (splits.validation, peer.validation)):
        images, labels = zip(*(theirs[i] for i in range(len(theirs))), strict=True)
        assert torch.equal(ours.labels, torch.tensor(labels))
        expected = normalise(ours.images, splits.mean, splits.std)
        assert (expected - torch.stack(images)).abs().max() < 1.1 / 255 / splits.std[0]  # one grey level


def test_both_have_the_same_prior() -> None:
    """Value and gradients of prior and hyper-prior agree, and so do the components that weights are given to."""
    torch.manual_seed(0)
    weights = (0.1 * torch.randn(500)).requires_grad_()
    means = even_means(weights.detach(), 9)
    ours = Mixture(means, 0.99, 0.05, (5e3, 2.0), (250.0, 0.1))
    theirs = peer_sws.MixturePrior(weights.detach(), 9, 0.99, 0.05)
    values = [ours.complexity(weights), theirs(weights)]
    torch.testing.assert_close(*values)
    pulls = [
        torch.autograd.grad(values[0], [weights, ours.free_means, ours.log_precisions, ours.free_logits]),
        torch.autograd.grad(values[1], [weights, theirs.means, theirs.log_precisions, theirs.logits]),
    ]
    for a, b in zip(*pulls, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    assert torch.equal(ours.assign(weights.detach()), theirs.assign(weights.detach()))


def test_both_have_the_same_distillation_loss() -> None:
    """Equal for several temperatures and weights of the soft term."""
    student, teacher, labels = torch.randn(20, 10), torch.randn(20, 10), torch.randint(0, 10, (20,))
    for temperature, alpha in ((1.0, 0.5), (4.0, 0.9), (16.0, 1.0)):
        ours = distillation.distillation_loss(student, teacher, labels, temperature, alpha)
        torch.testing.assert_close(ours, peer_kd.kd_loss(student, teacher, labels, temperature, alpha))


def test_a_trial_of_the_peer_shares_its_weights() -> None:
    """It reports every epoch of its three phases, and what it ends with has no more values than the mixture."""
    config = peer_sws.settings_of(resolve(SWSSettings()), workers=0)
    config |= {"pretrain_epochs": 2, "epochs": 1, "codebook_epochs": 1}
    config |= {"tau": 0.01, "components": 8, "one_minus_pi_zero": 0.1}
    rows: list[dict[str, Any]] = []
    model = peer_sws.train(config, peer_data.load("digits", None), rows.append)
    assert [row["sparsity"] > 0 for row in rows] == [False, False, True, True]
    assert rows[1]["val_accuracy"] > 80
    assert len(peer_sws.flat(model).unique()) <= 8


def test_a_student_of_the_peer_learns_from_its_teacher(tmp_path: Path) -> None:
    """With alpha 1 there are no labels in its loss, and it gets better than chance all the same."""
    config = peer_kd.settings_of(resolve(KDSettings.of(teacher="lenet5", student="lenet_300_100")), workers=0)
    config |= {"teacher_width": 1, "student_width": 1, "teacher_epochs": 1, "epochs": 8, "batch_size": 16}
    images = peer_data.load("digits", None, size=16)
    teacher = peer_kd.train_teacher(config, images, lambda row: None)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    rows: list[dict[str, Any]] = []
    few = peer_data.load("digits", None, size=16, per_class=10)
    values = {"teacher_file": tmp_path / "teacher.pt", "temperature": 2.0, "alpha": 1.0}
    peer_kd.train({**config, **values}, few, rows.append)
    assert len(rows) == 8
    assert rows[-1]["val_accuracy"] > 40
