"""What is done otherwise on a GPU, recorded steps and one kernel for the prior, comes to the same as on a CPU."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study.artifacts.checkpoints import Progress
from study.data import registry
from study.data.splits import Splits
from study.methods.common import packed_pinning, pinning
from study.methods.common.packed_training import Member
from study.methods.magnitude import pruning
from study.methods.sws import hard, packed, weight_sharing
from study.methods.sws.mixture import Mixture
from study.models import registry as models_registry
from study.training import batches, cuda_graphs, precision
from study.training.cuda_graphs import CudaGraphStep
from study.training.network import Training, build_network, fit_teacher
from study.training.recipe import Recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(scope="module")
def pretrained(digits: Splits) -> nn.Module:
    return weight_sharing.pretrain(
        Training("lenet_300_100", epochs=10, batch_size=32, learning_rate=1e-3), digits, print
    )


@pytest.fixture(scope="module")
def larger() -> Splits:
    """Large enough for networks with convolutions."""
    return registry.load("digits", None, size=16)[0].to("cuda")


HPARAMS = weight_sharing.Hparams(tau=0.01, components=8, pi_zero=0.9, epochs=3, batch_size=32, codebook_epochs=2,
                      precision_rate=1e-2, anneal=0.5, retrain_epochs=1)  # fmt: skip


def rows_of(fit: Any, model: nn.Module, hparams: Any, splits: Splits, device: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    fit(copy.deepcopy(model).to(device), hparams, splits.to(device), rows.append)
    return rows


COMPRESSING: dict[str, tuple[Any, Any]] = {
    "sws": (weight_sharing.fit, HPARAMS),
    "magnitude": (pruning.fit, pruning.Hparams(epochs=3, batch_size=32, codebook_epochs=2)),
    "hard": (pinning.fit, hard.Hparams(density=0.1, components=8, epochs=6, batch_size=32)),
}


@pytest.mark.parametrize("kind", COMPRESSING)
def test_compressing_is_the_same_as_on_a_cpu(kind: str, digits: Splits, pretrained: nn.Module) -> None:
    """Every epoch's loss, accuracy and sparsity agree, so that every phase's steps are those of the CPU."""
    fit, hparams = COMPRESSING[kind]
    for cpu, gpu in zip(*(rows_of(fit, pretrained, hparams, digits, d) for d in ("cpu", "cuda")), strict=True):
        assert gpu["phase"] == cpu["phase"]
        assert gpu["train_loss"] == pytest.approx(cpu["train_loss"], rel=0.02, abs=0.01)
        assert gpu["val_accuracy"] == pytest.approx(cpu["val_accuracy"], abs=3)
        assert gpu["sparsity"] == pytest.approx(cpu["sparsity"], abs=0.5)


@pytest.mark.parametrize("augment", batches.AUGMENTATIONS)
def test_a_recorded_training_is_the_unrecorded_one(
    augment: str, larger: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With steps replayed, losses are those of steps run one by one, batches of both sizes included."""
    recorded: list[CudaGraphStep] = []

    class Kept(CudaGraphStep):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            recorded.append(self)

    def losses() -> list[float]:
        found: list[float] = []
        how = Training("lenet5", epochs=3, batch_size=32, augment=augment, precision="float32")
        fit_teacher(how, larger, lambda row: found.append(row["train_loss"]))
        return found

    monkeypatch.setattr(cuda_graphs, "CudaGraphStep", Kept)
    replayed = losses()
    assert set(recorded[0].graphs) == {31, 32}
    monkeypatch.setattr(cuda_graphs, "CudaGraphStep", lambda step, held: step)
    assert replayed == pytest.approx(losses(), rel=0.02)


@pytest.mark.parametrize(
    ("recipe", "rate"),
    [
        (Recipe(optimizer="sgd", schedule="step", warmup_epochs=1), 0.01),
        (Recipe(optimizer="nesterov", clip_norm=0.5, ema=0.95, mixup=0.4, label_smoothing=0.1), 0.01),
        (Recipe(optimizer="adam", clip_norm=0.5, ema=0.95), 1e-3),
    ],
)
def test_every_option_of_a_recipe_is_recorded(
    recipe: Recipe, rate: float, larger: Splits, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No option makes a step wait for the GPU, and replayed steps train as those run one by one do."""

    def rows() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        how = Training("minivgg", {"width": 0.25}, 3, 32, rate, precision="float32", recipe=recipe)
        fit_teacher(how, larger, found.append)
        return found

    replayed = rows()
    assert "not recorded" not in capsys.readouterr().out
    monkeypatch.setattr(cuda_graphs, "CudaGraphStep", lambda step, held: step)
    for one, other in zip(replayed, rows(), strict=True):
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=0.03)
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=0.1)


class Waiting(nn.Module):
    """A network that waits for the GPU in its forward pass, which no graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        scale = 1.0 if float(images.sum()) > 0 else 2.0
        return scale * self.linear(F.dropout(images.flatten(1), 0.1, self.training))


def test_what_cannot_be_recorded_trains_step_by_step(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that reads numbers in its forward pass trains all the same, dropout too, and so does the next one."""
    monkeypatch.setattr(models_registry, "build", lambda *_, **__: Waiting())
    losses: list[float] = []
    splits = digits.to("cuda")
    fit_teacher(Training("waiting", epochs=3), splits, lambda row: losses.append(row["train_loss"]))
    assert losses[2] < losses[0]
    monkeypatch.undo()
    fit_teacher(Training("lenet_300_100", epochs=2), splits, lambda row: losses.append(row["train_loss"]))
    assert losses[4] < losses[3]


def test_a_trial_that_was_cut_off_goes_on(digits: Splits, pretrained: nn.Module) -> None:
    """After the second epoch from its saved state, a training ends where it would have."""

    class Cut(Exception):
        pass

    whole = rows_of(weight_sharing.fit, pretrained, HPARAMS, digits, "cuda")
    progress, seen = Progress(), []

    def cut(row: dict[str, Any]) -> None:
        seen.append(row)
        if len(seen) == 2:
            raise Cut

    with pytest.raises(Cut):
        weight_sharing.fit(copy.deepcopy(pretrained).cuda(), HPARAMS, digits.to("cuda"), cut, None, progress)
    again = Progress(copy.deepcopy(progress.states), copy.deepcopy(progress.trace))
    weight_sharing.fit(copy.deepcopy(pretrained).cuda(), HPARAMS, digits.to("cuda"), seen.append, None, again)
    assert len(seen) == len(whole)
    assert seen[-1]["val_loss"] == pytest.approx(whole[-1]["val_loss"], rel=0.05)


def test_bfloat16_is_what_a_gpu_trains_convolutions_in(larger: Splits) -> None:
    """By default logits of a network with convolutions are rounded to bfloat16, of others they are not."""
    images = torch.randn(8, *larger.shape, device="cuda")
    for network, rounded in (("lenet5", True), ("lenet_300_100", False)):
        model = build_network(Training(network), larger)
        found = precision.logits(model, images)
        assert found.dtype == torch.float32
        assert torch.equal(found, found.bfloat16().float()) == rounded


def test_a_pack_is_what_its_members_are_alone(digits: Splits, pretrained: nn.Module) -> None:
    """Rows of packed trials are those of the same trials alone, but for rounding."""
    common = {"epochs": 3, "batch_size": 32, "codebook_epochs": 2, "precision_rate": 1e-2}
    hparams = [
        weight_sharing.Hparams(tau=0.003 * (k + 1), components=4 + 9 * k, pi_zero=0.9, seed=k, **common)
        for k in range(3)
    ]
    told: list[list[dict[str, Any]]] = [[], [], []]
    members = [Member(h, rows.append) for h, rows in zip(hparams, told, strict=True)]
    splits = digits.to("cuda")
    packed.fit([copy.deepcopy(pretrained).cuda() for _ in members], members, splits)
    for member, rows in zip(members, told, strict=True):
        for mine, alone in zip(
            rows, rows_of(weight_sharing.fit, pretrained, member.hparams, digits, "cuda"), strict=True
        ):
            assert mine["train_loss"] == pytest.approx(alone["train_loss"], rel=0.02, abs=0.01)
            assert mine["val_accuracy"] == pytest.approx(alone["val_accuracy"], abs=3)


@pytest.mark.parametrize("quantised_training", [True, False])
def test_so_is_a_pack_that_is_pinned(quantised_training: bool, digits: Splits, pretrained: nn.Module) -> None:
    """Rows of packed trials of the hard variant are those of the same trials alone, but for rounding."""
    h = hard.Hparams(components=8, epochs=4, batch_size=32, codebook_epochs=2, quantised_training=quantised_training)
    hparams = [dataclasses.replace(h, density=0.1 * 2**k, components=4 + 6 * k, seed=k) for k in range(3)]
    hparams[1] = dataclasses.replace(hparams[1], score_power=0.0)
    reported: list[list[dict[str, Any]]] = [[], [], []]
    members = [Member(h, rows.append) for h, rows in zip(hparams, reported, strict=True)]
    splits = digits.to("cuda")
    packed_pinning.fit([copy.deepcopy(pretrained).cuda() for _ in members], members, splits)
    for h, rows in zip(hparams, reported, strict=True):
        for mine, alone in zip(rows, rows_of(pinning.fit, pretrained, h, digits, "cuda"), strict=True):
            assert mine["train_loss"] == pytest.approx(alone["train_loss"], rel=0.02, abs=0.01)
            assert mine["val_accuracy"] == pytest.approx(alone["val_accuracy"], abs=3)
            assert mine["sparsity"] == pytest.approx(alone["sparsity"], abs=0.5)


def test_memory_does_not_grow_with_trainings(larger: Splits) -> None:
    """A process that trains network after network holds no more at the fifth than at the second."""
    held = []
    for _ in range(5):
        fit_teacher(Training("lenet5", epochs=2), larger, lambda row: None)
        torch.cuda.synchronize()
        held.append(torch.cuda.memory_allocated())
    assert held[4] <= held[1] * 1.05


def test_mixtures_are_the_same(pretrained: nn.Module) -> None:
    """Complexity and its gradients on a GPU are those on a CPU in float64."""
    torch.manual_seed(0)
    weights = 0.1 * torch.randn(5000)
    mixture = Mixture(torch.linspace(-0.3, 0.3, 16), 0.99, 0.05, (5e3, 2.0), (250.0, 0.1), 100.0)
    found = []
    for device, dtype in (("cpu", torch.float64), ("cuda", torch.float32)):
        w = weights.to(device, dtype).requires_grad_()
        own = copy.deepcopy(mixture).to(device, dtype)
        found.append([g.double().cpu() for g in torch.autograd.grad(own.complexity(w), [w, *own.parameters()])])
    for exact, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-4, atol=1e-4 * float(exact.abs().max()))
