"""Students that are trained together come to what each comes to alone."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from study.artifacts.cache import LOGITS, SharedWork
from study.data import registry
from study.data.splits import Splits, subset_per_class
from study.errors import TrialFailed, UserError
from study.methods import registry as registry_of_methods
from study.methods.common.network_stack import Stack
from study.methods.common.packed_training import Member
from study.methods.kd import method as kd
from study.methods.kd import packed
from study.methods.kd.settings import KDSettings
from study.methods.kd.student import Hparams, fit_student
from study.methods.method import PackMember
from study.models import registry as registry_of_networks
from study.settings import Values, resolve
from study.training.distillation import Targets
from study.training.network import Training, build_network, state_arrays

HPARAMS = Hparams(student="minivgg", student_width=0.125, temperature=4.0, alpha=0.5, epochs=3, batch_size=16,
                  precision="float32")  # fmt: skip
OTHERS = [HPARAMS, dataclasses.replace(HPARAMS, temperature=1.5, alpha=0.9), dataclasses.replace(HPARAMS, seed=7)]
SMALL = dataclasses.replace(HPARAMS, student="lenet_300_100", student_width=1.0, epochs=6)

Rows = list[dict[str, Any]]


class Stopped(Exception):
    """As a trial that a scheduler stops."""


@pytest.fixture(scope="module")
def digits() -> Splits:
    """Six images of each class, as large as a VGG needs them."""
    splits = registry.load("digits", None, size=32)[0]
    return dataclasses.replace(splits, train=subset_per_class(splits.train, 6, 0))


@pytest.fixture(scope="module")
def targets(digits: Splits) -> Targets:
    generator = torch.Generator().manual_seed(0)
    right = 3 * nn.functional.one_hot(digits.train.labels, 10).float()
    return Targets(torch.randn(1, len(digits.train), 10, generator=generator) + right)


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks compute in float64, where rounding is too small for training to amplify it to anything."""
    build = registry_of_networks.build

    def in_double(*arguments: Any, **options: Any) -> nn.Module:
        network = build(*arguments, **options).double()
        network.register_forward_pre_hook(lambda _, inputs: inputs[0].double())
        return network

    monkeypatch.setattr(registry_of_networks, "build", in_double)


def member(hparams: Hparams, rows: Rows, stopped_after: int = 0) -> Member[Hparams]:
    def on_epoch(row: dict[str, Any]) -> None:
        rows.append(row)
        if row["epoch"] == stopped_after:
            raise Stopped

    return Member(hparams, on_epoch)


def together(
    hparams: Sequence[Hparams], data: Splits, targets: Targets, stopped_after: Sequence[int] = ()
) -> tuple[list[packed.End], list[Rows]]:
    """Ends and rows of a pack, of which members are stopped after these epochs; 0 for never."""
    rows: list[Rows] = [[] for _ in hparams]
    after = stopped_after or [0] * len(hparams)
    members = [member(*one) for one in zip(hparams, rows, after, strict=True)]
    return packed.fit(members, data, targets), rows


def assert_same(mine: Rows, theirs: Rows, off: float = 1e-5) -> None:
    assert [list(r) for r in mine] == [list(r) for r in theirs]
    for a, b in zip(mine, theirs, strict=True):
        assert (a["epoch"], a["phase"]) == (b["epoch"], b["phase"])
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=off)
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=off)
        assert a["val_accuracy"] == pytest.approx(b["val_accuracy"], abs=100 * off)


def comparable_state(network: nn.Module) -> dict[str, Tensor]:
    """The state of a network, with running means that do not count the bias of the convolution before them, and without
    these biases: batch normalisation takes them away again, so that Adam moves them by rounding alone."""
    state, layers = dict(network.state_dict()), list(network.named_children())
    for (name, layer), (after, norm) in zip(layers, layers[1:], strict=False):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            state[f"{after}.running_mean"] = state[f"{after}.running_mean"] - state.pop(f"{name}.bias")
    return state


def assert_same_network(mine: packed.End, theirs: nn.Module, off: float = 2e-4) -> None:
    assert isinstance(mine, nn.Module)
    ours, expected = comparable_state(mine), comparable_state(theirs)
    assert ours.keys() == expected.keys() and any(name.endswith("weight") for name in ours)
    for name, tensor in expected.items():
        torch.testing.assert_close(ours[name], tensor, rtol=off, atol=off)


def assert_as_alone(hparams: Sequence[Hparams], data: Splits, targets: Targets, off: float = 1e-5) -> None:
    ends, rows = together(hparams, data, targets)
    for h, end, reported in zip(hparams, ends, rows, strict=True):
        expected: Rows = []
        apart = fit_student(h, data, targets, expected.append)
        assert_same(reported, expected, off)
        assert_same_network(end, apart, 20 * off)


def test_members_are_what_they_would_be_alone(double: None, digits: Splits, targets: Targets) -> None:
    """Members with a temperature, an alpha or a seed of their own: rows, weights and batch-norm statistics."""
    assert_as_alone(OTHERS, digits, targets)


def test_they_are_so_in_float32(digits: Splits, targets: Targets) -> None:
    """But for rounding, as far as small steps amplify it."""
    hparams = [dataclasses.replace(h, optimizer="sgd", learning_rate=1e-3) for h in OTHERS]
    assert_as_alone(hparams, digits, targets, off=1e-3)


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "nesterov", "learning_rate": 0.02, "schedule": "step", "warmup_epochs": 1, "augment": "flip"},
        {"optimizer": "adam", "learning_rate": 3e-4, "label_smoothing": 0.1, "loss": "dist"},
        {"mixup": 0.4, "augment": "shift", "student": "lenet5", "student_width": 1.0},
    ],
)
def test_a_pack_has_the_recipe_of_its_trials(recipe: dict[str, Any], double: None, digits: Splits) -> None:
    """Optimiser, schedule, label smoothing, mixed images and the loss, under a teacher that runs in every step."""
    teacher = build_network(Training("lenet_300_100", seed=5), digits).eval().requires_grad_(False)
    hparams = [dataclasses.replace(h, **recipe) for h in OTHERS[1:]]
    assert_as_alone(hparams, digits, Targets(teacher=teacher))


def test_students_of_different_networks_are_different_programs(digits: Splits) -> None:
    """Another network, another loss and smoothed labels are programs of their own, and so is what is not possible."""

    def hyperparameters(values: Values) -> Hparams:
        if values.get("temperature") == 0:
            raise ValueError("temperature 0 must be above 0")
        return dataclasses.replace(SMALL, **values)  # type: ignore[arg-type]

    trainer = packed.StudentPacks(0, digits, hyperparameters, lambda hparams: Targets())
    trials: list[Values] = [
        *({"alpha": 0.1}, {"student_width": 0.5}, {"temperature": 0.0}, {"alpha": 0.2, "temperature": 9.0}),
        *({"label_smoothing": 0.1}, {"loss": "dkd"}, {"student_width": 0.5, "seed": 1}),
    ]
    assert trainer.programs(trials) == [[0, 3], [1, 6], [2], [4], [5]]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_members_that_have_ended_cost_nothing(
    optimizer: str, double: None, digits: Splits, targets: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once half of a program has been stopped its steps are those of the others, which end as if nobody had been."""
    forward, seen = Stack.forward, list[int]()

    def watched(self: Stack, images: Tensor) -> Tensor:
        seen.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Stack, "forward", watched)
    own = {"optimizer": optimizer, "learning_rate": 2e-3 if optimizer == "adamw" else 0.02, "epochs": 6}
    hparams = [dataclasses.replace(HPARAMS, **own, seed=seed) for seed in range(5)]
    ends, rows = together(hparams, digits, targets, [2, 0, 1, 3, 4])
    steps = len(seen) // 6
    assert seen == [5] * 3 * steps + [2] * steps + [1] * 2 * steps
    assert [type(end) for end in ends[:1] + ends[2:]] == [Stopped] * 4
    assert [len(r) for r in rows] == [2, 6, 1, 3, 4]
    everyone, expected = together(hparams, digits, targets)
    for mine, theirs in zip(rows, expected, strict=True):
        assert_same(mine, theirs[: len(mine)])
    assert isinstance(everyone[1], nn.Module)
    assert_same_network(ends[1], everyone[1])


def test_epochs_that_a_trial_alone_would_not_report_are_not_scored(digits: Splits, targets: Targets) -> None:
    """The last one is, whatever is said of it; nothing else changes."""
    rows: list[Rows] = [[], []]
    members = [member(SMALL, rows[0]), member(dataclasses.replace(SMALL, seed=1), rows[1])]
    packed.fit(members, digits, targets, lambda epoch: epoch == 2)
    _, every = together([member.hparams for member in members], digits, targets)
    assert rows == [[r for r in reported if r["epoch"] in (2, 6)] for reported in every]


def test_training_ends_with_the_last_member(digits: Splits, targets: Targets) -> None:
    """A pack whose members have all been stopped trains no further."""
    hparams = [dataclasses.replace(SMALL, epochs=10**4, alpha=alpha) for alpha in (0.1, 0.2)]
    ends, rows = together(hparams, digits, targets, [1, 2])
    assert [len(r) for r in rows] == [1, 2] and all(isinstance(end, Stopped) for end in ends)


def test_a_member_that_fails_leaves_the_others_alone(double: None, digits: Splits, targets: Targets) -> None:
    """One whose loss is no number ends as TrialFailed and reports nothing more; the others' rows are as without it."""
    broken = dataclasses.replace(SMALL, temperature=math.inf)
    ends, rows = together([SMALL, broken, dataclasses.replace(SMALL, seed=3)], digits, targets)
    assert isinstance(ends[1], TrialFailed) and str(ends[1]).startswith("the training loss became ")
    assert ends[1].__traceback__ is None and not rows[1]
    expected: Rows = []
    assert_same_network(ends[0], fit_student(SMALL, digits, targets, expected.append))
    assert_same(rows[0], expected)


def test_what_cannot_be_one_program_is_refused(digits: Splits, targets: Targets) -> None:
    """Members of different steps, and what would be computed over all members, raise ValueError."""
    for other in ({"epochs": 4}, {"learning_rate": 1.0}, {"student": "lenet5"}, {"label_smoothing": 0.1}):
        members = [member(h, []) for h in (SMALL, dataclasses.replace(SMALL, **other))]
        with pytest.raises(ValueError, match="members of a pack have the same"):
            packed.fit(members, digits, targets)
    for own in ({"ema": 0.9}, {"clip_norm": 1.0}):
        with pytest.raises(ValueError, match="clip_norm, ema cannot be packed"):
            packed.fit([member(dataclasses.replace(SMALL, **own), [])], digits, targets)


def test_flags_that_cannot_be_packed_are_refused() -> None:
    """One line that names both."""
    for name, value in (("ema", 0.9), ("clip_norm", 1.0), ("trial_timeout", 9.0)):
        with pytest.raises(UserError, match=f"--pack 2: does not go with --{name.replace('_', '-')};"):
            resolve(KDSettings.of(pack=2, **{name: value}))
    resolve(KDSettings.of(pack=2, mixup=0.2, optimizer="sgd", schedule="step", warmup_epochs=2))


@pytest.mark.parametrize("name", ["learning_rate", "optimizer", "ema", "clip_norm", "mixup", "epochs", "dist_gamma"])
def test_a_search_of_what_members_have_in_common_is_refused(name: str, digits: Splits) -> None:
    """With the file that sets it; a network that is searched, and what baselines set, go apart."""
    packing = registry_of_methods.method("kd").packing
    assert packing is not None
    settings = resolve(KDSettings.of(student_width=0.125))
    searched = {"temperature", "alpha", "label_smoothing", "student", "student_width", "loss", "augment"}
    packing.check(settings, digits, searched)
    with pytest.raises(ValueError, match=f"search_spaces/kd.py sets {name}, which all trials of a pack"):
        packing.check(settings, digits, {*searched, name})


def test_the_trials_of_a_study_report_what_each_reports_alone(double: None, digits: Splits) -> None:
    """Size with every epoch, the same arrays at the end, and a configuration that is not possible ends by itself."""
    settings = resolve(KDSettings.of(teacher="lenet5", teacher_width=1.0, student="lenet_300_100", student_width=1.0,
                                     epochs=2, batch_size=16, student_examples=0, precision="float32"))  # fmt: skip
    teacher = state_arrays(build_network(kd.teacher_training(settings), digits))
    logits = torch.randn(1, len(digits.train), 10, generator=torch.Generator().manual_seed(2)).numpy()
    shared = SharedWork({**teacher, LOGITS: logits})
    values: list[dict[str, Any]] = [{"alpha": 0.7, "temperature": 3.0}, {"alpha": 2.0}, {"alpha": 0.0}]
    rows: list[Rows] = [[] for _ in values]
    heard = list[Exception]()
    members = [PackMember(v, r.append, heard.append) for v, r in zip(values, rows, strict=True)]
    first, impossible, alone = kd.packs(settings, digits, shared).train(members)
    assert isinstance(impossible, ValueError) and heard == [impossible] and not rows[1]
    for v, reported, end in ((values[0], rows[0], first), (values[2], rows[2], alone)):
        expected: Rows = []
        theirs = kd.trial(v, settings, digits, shared, expected.append, None)  # type: ignore[arg-type]
        assert_same(reported, expected)
        assert reported[-1]["parameters"] == theirs.metrics["parameters"]
        assert isinstance(end, Callable)  # type: ignore[arg-type]
        mine = end()  # type: ignore[operator]
        assert mine.metrics == theirs.metrics and mine.arrays.keys() == theirs.arrays.keys()
        for name, array in theirs.arrays.items():
            torch.testing.assert_close(torch.as_tensor(mine.arrays[name]), torch.as_tensor(array), rtol=2e-4, atol=2e-4)
