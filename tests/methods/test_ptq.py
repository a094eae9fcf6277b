"""Post-training quantisation: the rounding of a layer, its bits, calibration, and the study."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from study.artifacts.cache import SharedWork
from study.artifacts.checkpoints import Progress
from study.compression import batch_norm, compressed_file
from study.compression.quantised_weights import flatten, shared_parameters, with_integers
from study.data import registry
from study.data.images import normalise
from study.data.splits import Part, Splits
from study.errors import TrialFailed
from study.methods.common import pretrained as pretrained_stage
from study.methods.ptq import calibration, method, quantise
from study.methods.ptq.calibration import calibration_part, sensitivities
from study.methods.ptq.quantise import Hparams
from study.methods.ptq.rate_distortion import Problem, Rounded, entropy_bits, problem_of, round_layer
from study.methods.ptq.settings import PTQSettings
from study.pipeline.cost_estimate import trial_seconds
from study.run import parse
from study.settings import resolve
from study.training.loop import evaluate
from study.tuning.space import SearchSpace


def linear(seed: int, rows: int = 24, columns: int = 40) -> tuple[nn.Linear, Tensor]:
    """A layer with what it reads, (examples, columns): correlated, as images are."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(columns, rows)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(rows, columns, generator=generator))
        layer.bias.copy_(torch.randn(rows, generator=generator))
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    return layer, torch.randn(2000, columns, generator=generator) @ (mixing + 0.5)


def sensitivity_of(layer: nn.Linear, inputs: Tensor) -> calibration.Sensitivity:
    """With outputs that all count alike."""
    read = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    moments = (read.T @ read / len(read)).unsqueeze(0)
    return calibration.Sensitivity(layer.weight, layer.bias, 1, moments, torch.ones(len(layer.weight)))


def weights_of(rounded: Rounded) -> Tensor:
    """The layer's weights, the bias last, (rows, columns + 1)."""
    return (rounded.levels * rounded.steps[rounded.tensor_of])[0]


def output_error(layer: nn.Linear, rounded: Rounded, inputs: Tensor) -> float:
    before = torch.cat([layer.weight, layer.bias.unsqueeze(1)], dim=1).detach()
    read = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    return float((read @ (weights_of(rounded) - before).T).square().mean())


def bits_of(rounded: Rounded) -> float:
    return entropy_bits(rounded.level_tensors())


# --- one layer


def test_without_sensitivity_and_rate_it_is_plain_rounding() -> None:
    """Power 0 and rate weight 0: each weight is the nearest multiple of its tensor's step, which is in proportion to
    the tensor's root mean square."""
    layer, inputs = linear(0)
    problem = problem_of(sensitivity_of(layer, inputs), power=0.0)
    rounded = round_layer(problem, step=0.3, rate_weight=0.0)
    weight, bias = weights_of(rounded)[:, :-1], weights_of(rounded)[:, -1]
    spread = torch.stack([layer.weight.detach().square().mean().sqrt(), layer.bias.detach().square().mean().sqrt()])
    torch.testing.assert_close(rounded.steps / spread, torch.full((2,), float(rounded.steps[0] / spread[0])))
    for values, tensor, step in zip((weight, bias), (layer.weight, layer.bias), rounded.steps, strict=True):
        assert torch.equal(values, (tensor.detach() / step).round() * step)


@pytest.mark.parametrize("seed", range(5))
def test_correction_makes_a_smaller_error_at_equal_rate(seed: int) -> None:
    """A layer's outputs move less than under plain rounding, in no more bits."""
    layer, inputs = linear(seed)
    sensitivity = sensitivity_of(layer, inputs)
    plain = round_layer(problem_of(sensitivity, power=0.0), step=0.5, rate_weight=0.0)
    problem = problem_of(sensitivity, power=1.0)
    target = bits_of(plain) / problem.weights.numel()
    corrected = quantise.round_to_rate([problem], 0.99 * target, rate_weight=0.0)[0]
    assert bits_of(corrected) <= bits_of(plain)
    assert output_error(layer, corrected, inputs) < 0.5 * output_error(layer, plain, inputs)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_a_larger_rate_weight_takes_fewer_bits(power: float) -> None:
    """At one step the entropy falls with every increase."""
    layer, inputs = linear(3)
    problem = problem_of(sensitivity_of(layer, inputs), power)
    step = 0.5 * float(problem.curvature().mean().sqrt())
    bits = [bits_of(round_layer(problem, step, weight)) for weight in (0.0, 0.03, 0.1, 0.3)]
    assert bits == sorted(bits, reverse=True) and len(set(bits)) == 4


def test_each_level_is_the_best_of_all_for_a_weight_on_its_own() -> None:
    """Without correction no level of the grid costs less than the chosen one: loss and bits together."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(1, 30, 50, generator=generator)
    factors = torch.rand(1, 30, generator=generator) + 0.5
    problem = Problem(weights, None, factors, torch.zeros(50, dtype=torch.long), torch.ones(1))
    step, rate_weight = 0.4, 0.1
    rounded = round_layer(problem, step, rate_weight)
    width, levels = float(rounded.steps[0]), rounded.levels
    counts = torch.bincount((levels + 127).long().flatten(), minlength=255) + 0.1
    prices = rate_weight * (counts.sum() / counts).log2()
    grid = torch.arange(-127, 128.0)
    costs = (factors.unsqueeze(2) * (width / step) ** 2).unsqueeze(3) * (weights.unsqueeze(3) / width - grid).square()
    chosen = costs.add(prices).gather(3, (levels + 127).long().unsqueeze(3)).squeeze(3)
    # The bits were counted once more after the levels were chosen, which moves a few of them.
    assert float((chosen <= costs.add(prices).min(dim=3).values + 1e-4).double().mean()) > 0.99


@pytest.mark.parametrize(("second", "level"), [(1.0, 1.0), (1.2, 2.0)])
def test_feedback_is_optimal_brain_surgeon(second: float, level: float) -> None:
    """By hand, on two weights and a step of 1: the first is rounded from 0.4 to 0, and the second then aims at its own
    value + 0.4 × the moments 0,1 ÷ 1,1 (damped)."""
    moments = torch.tensor([[[2.0, 1.0], [1.0, 1.0]]])
    weight = nn.Parameter(torch.tensor([[0.4, second]]))
    problem = problem_of(calibration.Sensitivity(weight, None, 1, moments, torch.ones(1)), power=1.0)
    rounded = round_layer(problem, float(problem.curvature().mean().sqrt() / problem.units[0]), rate_weight=0.0)
    assert float(rounded.steps[0]) == pytest.approx(1.0)
    assert rounded.levels.flatten().tolist() == [0.0, level]


def test_a_grouped_convolution_is_as_many_small_ones() -> None:
    """Its moments are those of each group's own channels, and outputs move less than under plain rounding."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False), nn.Flatten(), nn.Linear(8 * 36, 3))
    data = image_splits(channels=8, size=6)
    layer = sensitivities(model, data.train, data, seed=0)[0]
    assert layer.inputs is not None and layer.inputs.shape == (4, 18, 18)
    images = normalise(data.train.images, data.mean, data.std)
    columns = nn.functional.unfold(images, 3, padding=1)[:, 18:36]  # channels 2 and 3, which the second group reads
    expected = torch.einsum("ncp,ndp->cd", columns, columns) / len(images)
    torch.testing.assert_close(layer.inputs[1], expected, rtol=1e-4, atol=1e-3)


def image_splits(channels: int, size: int) -> Splits:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (40, channels, size, size), generator=generator).to(torch.uint8)
    part = Part(images, torch.arange(40) % 3)
    return Splits("x", "X", ("a", "b", "c"), part, part, (0.5,) * channels, (0.25,) * channels, 0)


# --- calibration


def test_curvature_is_that_of_the_loss() -> None:
    """For one linear layer on the logits the outputs' sensitivities are the mean of p (1 − p), within sampling error,
    and the model is left as it was: weights, modes, gradients, and what was frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 4))
    model[2].bias.requires_grad_(False)
    data = dataclasses.replace(image_splits(1, 4), classes=tuple("abcd"))
    examples = Part(data.train.images.repeat(50, 1, 1, 1), data.train.labels.repeat(50))
    before = copy.deepcopy(model)
    (layer,) = sensitivities(model, examples, data, seed=0)
    p = before.eval()(normalise(examples.images, data.mean, data.std)).softmax(dim=1)
    torch.testing.assert_close(layer.outputs, (p * (1 - p)).mean(dim=0).detach(), rtol=0.1, atol=1e-3)
    assert model.training and model[1].training and model[2].weight.grad is None
    assert not model[2].bias.requires_grad and not model[2]._forward_hooks
    assert torch.equal(model[2].weight, before[2].weight)


def test_every_shared_tensor_has_a_sensitivity() -> None:
    """Linear layers with their bias, an embedding and an attention's projections by their gradients; one that the loss
    does not depend on, too."""

    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.unused, self.last = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.table((x.flatten(1).abs() * 3).long().clamp(max=8))
            return self.last(self.attention(tokens, tokens, tokens)[0].mean(dim=1))

    torch.manual_seed(0)
    model, data = Attending(), image_splits(1, 4)
    layers = sensitivities(model, data.train, data, seed=0)
    named = {id(p): name for name, p in model.named_parameters()}
    tensors = [p for layer in layers for p in (layer.weight, layer.bias) if p is not None]
    assert {id(p) for p in tensors} == {id(p) for p in shared_parameters(model)} and len(tensors) == len(set(tensors))
    moments = {named[id(layer.weight)] for layer in layers if layer.inputs is not None}
    assert moments == {"last.weight"}
    quantised = quantise.quantise(model, layers, Hparams(bits_per_weight=3.0))
    written = flatten(shared_parameters(model))
    assert torch.equal(written, flatten(quantised.tensors(shared_parameters(model))))


def test_calibration_sees_training_examples_alone(digits: Splits, pretrained: nn.Module) -> None:
    """As many as asked for, each once, all of the training part; labels, validation images and all other training
    images make no difference to the weights."""
    chosen = calibration_part(digits, 100, seed=0)
    rows = {bytes(image.numpy().tobytes()) for image in digits.train.images}
    assert len(chosen) == 100 and all(bytes(image.numpy().tobytes()) in rows for image in chosen.images)
    assert len(calibration_part(digits, 10**6, seed=0)) == len(digits.train)
    hparams = Hparams(bits_per_weight=3.0, calibration_examples=100)
    order = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(0))
    images = digits.train.images.clone()
    images[order[100:]] = 0
    poorer = dataclasses.replace(
        digits,
        train=Part(images, torch.zeros_like(digits.train.labels)),
        validation=Part(torch.zeros_like(digits.validation.images), digits.validation.labels),
    )
    results = [quantise.fit(copy.deepcopy(pretrained), hparams, data)[0] for data in (digits, poorer)]
    assert torch.equal(results[0].assignment, results[1].assignment)
    assert torch.equal(results[0].scales, results[1].scales)


# --- a network


@pytest.mark.parametrize("bits", [1.5, 3.0, 5.0])
def test_bits_are_met(bits: float, digits: Splits, pretrained: nn.Module) -> None:
    """The entropy of the levels over the weights is within a hundredth of what was asked for, and the file, which
    encodes them, is not far from it."""
    model = copy.deepcopy(pretrained)
    quantised, metrics = quantise.fit(model, Hparams(bits_per_weight=bits), digits)
    parameters = shared_parameters(model)
    parts = quantised.assignment.split([p.numel() for p in parameters])
    entropy = entropy_bits([part.float() - 127 for part in parts])
    assert entropy / len(quantised.assignment) == pytest.approx(bits, rel=0.011)
    size = len(compressed_file.encode(model, quantised, compressed_file.network_of("lenet_300_100", {}, digits)))
    assert 0.8 * entropy / 8 < size < entropy / 8 + 6000
    assert metrics["codebook_values_used"] <= 255


def test_it_beats_plain_rounding_of_the_network(digits: Splits, pretrained: nn.Module) -> None:
    """At two bits a weight the validation loss is lower than that of plain rounding at more bits, and the same
    hyperparameters give the same weights."""
    plain, mine, again = (copy.deepcopy(pretrained) for _ in range(3))
    _, rounded = quantise.fit(plain, Hparams(bits=3), digits)
    quantised, metrics = quantise.fit(mine, Hparams(bits_per_weight=1.2, rate_weight=0.0), digits)
    assert metrics["entropy_bytes"] < rounded["entropy_bytes"]
    assert metrics["val_loss"] < rounded["val_loss"]
    repeated, _ = quantise.fit(again, Hparams(bits_per_weight=1.2, rate_weight=0.0), digits)
    assert torch.equal(quantised.assignment, repeated.assignment) and torch.equal(quantised.scales, repeated.scales)


def test_a_dry_run_times_what_a_trial_does(digits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not epochs of training, of which there are none: `--dry-run` takes the seconds that quantising would."""
    settings, space = resolve(PTQSettings(calibration_examples=64)), SearchSpace.load("ptq")
    assert trial_seconds(settings, space, digits) > 0
    asked: list[int] = []
    monkeypatch.setattr(quantise, "seconds_of", lambda model, examples, data: asked.append(examples) or 42.0)
    assert trial_seconds(settings, space, digits) == 42.0 and asked == [64]


def test_no_weights_are_no_network(digits: Splits, pretrained: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every weight is rounded to zero, the trial fails and says what to change."""
    zero = with_integers(torch.zeros(100), torch.ones(6))
    monkeypatch.setattr(quantise, "quantise", lambda *_: zero)
    with pytest.raises(TrialFailed, match="every weight was pruned: bits_per_weight is too small"):
        quantise.fit(copy.deepcopy(pretrained), Hparams(), digits)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits_per_weight": 0.0},
        {"sensitivity_power": 1.1},
        {"rate_weight": -0.1},
        {"bits": 1},
        {"calibration_examples": 0},
        {"bits_per_weight": float("nan")},
    ],
)
def test_values_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    """Each by its name."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Hparams(**wrong)  # type: ignore[arg-type]


def test_statistics_follow_the_weights(digits: Splits) -> None:
    """Without a change of weights batch-norm's statistics stay as they are, whatever they are; a channel whose weights
    became twice as large has them twice and four times as large."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10))
    mean, variance = model[1].running_mean, model[1].running_var
    few = dataclasses.replace(digits, train=calibration_part(digits, 100, seed=0))
    batch_norm.recalibrate(model, few)
    mean += 0.1 * variance.sqrt()
    before, own = batch_norm.measure(model, few), (mean.clone(), variance.clone())
    assert torch.equal(mean, own[0]) and torch.equal(variance, own[1])
    batch_norm.follow(model, few, before)
    torch.testing.assert_close((mean, variance), own)
    with torch.no_grad():
        model[0].weight *= 0.5
        model[0].bias *= 0.5
    batch_norm.follow(model, few, before)
    torch.testing.assert_close((mean, variance), (own[0] / 2, own[1] / 4))
    assert evaluate(model, few.train, few).loss < 10


def test_data_that_are_no_images_are_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's table and its small network by module:function: a trial ends with a file that decodes to the
    network."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ptq_table.py").write_text(
        "import numpy as np\nfrom torch import nn\n\n\n"
        "def data():\n    inputs = np.random.default_rng(0).normal(size=(1200, 8)).astype('float32')\n"
        "    labels = (inputs.sum(axis=1) > 0).astype(int)\n"
        "    return (inputs[:1000], labels[:1000]), (inputs[1000:], labels[1000:])\n\n\n"
        "def build(input_shape, classes):\n"
        "    return nn.Sequential(nn.Linear(*input_shape, 32), nn.ReLU(), nn.Linear(32, classes))\n"
    )
    arguments = "--dataset ptq_table:data --network ptq_table:build --batch-size 32 --pretrain-epochs 5".split()
    settings = resolve(parse(["ptq", *arguments]))
    assert isinstance(settings, PTQSettings)
    data, _ = registry.load("ptq_table:data", None)
    rows: list[dict[str, object]] = []
    shared = pretrained_stage.pretrain({}, settings, data, None, rows.append, Progress())
    work = SharedWork(shared.arrays, {"metrics": dict(shared.metrics)})
    values = {"bits_per_weight": 3.0, "sensitivity_power": 1.0, "rate_weight": 0.0}
    result = method.trial(values, settings, data, work, rows.append, Progress())
    assert rows[-1]["phase"] == "quantise" and abs(float(str(result.metrics["accuracy_drop"]))) < 3
    decoded = compressed_file.decode(result.file, custom="ptq_table:build")
    score = evaluate(decoded.model, data.validation, data)
    assert score.accuracy == pytest.approx(result.metrics["val_accuracy"])
