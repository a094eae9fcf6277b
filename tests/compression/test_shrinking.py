"""Exact shrinking: smaller networks that give the same outputs, and what must stay."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from study.compression.shrinking import BLOCK, LayerRow, shrink, shrink_with_report
from study.models.registry import build

Shape = tuple[int, ...]
fewest = partial(shrink_with_report, block=1)


def pruned(model: nn.Module, seed: int, units: float = 0.5) -> nn.Module:
    """With random batch-norm, random units and weights zero, some of the biases of dead units too."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for m in model.modules():
            if isinstance(m, nn.Linear | nn.modules.conv._ConvNd):
                dead = torch.rand(len(m.weight), generator=g) < units
                m.weight[dead] = 0
                m.weight[:, torch.rand(m.weight.shape[1], generator=g) < units / 2] = 0
                m.weight[torch.rand(m.weight.shape, generator=g) < 0.3] = 0
                if m.bias is not None:
                    m.bias[dead & (torch.rand(len(dead), generator=g) < 0.5)] = 0
            elif isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
                m.running_mean.normal_(generator=g)
                m.running_var.uniform_(0.5, 2, generator=g)
                m.weight.uniform_(0.5, 1.5, generator=g)
                m.weight[torch.rand(len(m.weight), generator=g) < 0.1] = 0
                m.bias.normal_(generator=g)
    return model.eval()


def assert_same(model: nn.Module, small: nn.Module, shape: Shape) -> None:
    """Outputs for random inputs are equal to float rounding, and say something."""
    for batch in (1, 5):
        inputs = torch.randn(batch, *shape)
        with torch.no_grad():
            expected, found = model(inputs.clone()), small(inputs.clone())
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
        assert bool(expected.isfinite().all()) and float(expected.abs().max()) > 0


class Residual(nn.Module):
    """A ResNet for CIFAR as people write it: functions, sizes, a shortcut that pads channels (He et al. 2015)."""

    def __init__(self, input_shape: Shape = (3, 12, 12), classes: int = 10) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.a1, self.n1 = nn.Conv2d(8, 16, 3, 2, padding=1, bias=False), nn.BatchNorm2d(16)
        self.a2, self.n2 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.b1, self.b2 = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)), inplace=True)
        out = self.n2(self.a2(F.relu(self.n1(self.a1(x)))))
        out += F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4), "constant", 0)
        x = out.relu_()
        x = F.relu(x + self.b2(torch.tanh(self.b1(x))))
        x = F.avg_pool2d(x, x.size()[3])
        return self.head(F.dropout(x.view(x.size(0), -1), 0.5, self.training))


class Dense(nn.Module):
    """Concatenation, batch-norm in front of convolutions, channel scales, and sums with numbers."""

    def __init__(self, input_shape: Shape = (3, 8, 8), classes: int = 10) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding="same", padding_mode="reflect")
        self.norms = nn.ModuleList([nn.BatchNorm2d(6), nn.BatchNorm2d(10), nn.BatchNorm2d(14)])
        self.grow = nn.ModuleList([nn.Conv2d(6, 4, 3, padding=1), nn.Conv2d(10, 4, 1, bias=False)])
        self.depthwise = nn.Conv2d(14, 28, 3, padding=1, groups=14)
        self.squeeze, self.excite = nn.Conv2d(28, 5, 1), nn.Conv2d(5, 28, 1)
        self.hidden, self.head = nn.Linear(28 * 16, 20), nn.Linear(20, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.first(x)]
        for norm, conv in zip(self.norms, self.grow, strict=False):
            features.append(conv(F.relu(norm(torch.cat(features, 1)))))
        x = F.hardswish(self.depthwise(self.norms[2](torch.cat(features, dim=1))))
        scale = F.hardsigmoid(self.excite(F.silu(self.squeeze(x.mean([2, 3], keepdim=True)))))
        x = F.avg_pool2d(1 - scale * x + 0.5, 3, stride=2, padding=1)
        return self.head(torch.sigmoid(self.hidden(x.reshape(-1, 28 * 16))))


class Tokens(nn.Module):
    """A transformer's block: the hidden units of its MLP can go, its width cannot."""

    def __init__(self, input_shape: Shape = (5, 6), classes: int = 10) -> None:
        super().__init__()
        self.width, self.norm = nn.Linear(6, 8), nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down, self.head = nn.Linear(8, 32), nn.Linear(32, 8), nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.width(x))
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head((x + self.down(F.gelu(self.up(x)))).mean(1))


def named(name: str, **options: object) -> Callable[[Shape, int], nn.Module]:
    return lambda shape, classes: build(name, shape, classes, **options)  # type: ignore[arg-type]


NETWORKS: dict[str, tuple[Callable[[Shape, int], nn.Module], Shape, float]] = {
    # builder, shape of an example, the largest share of the parameters that may stay
    "lenet_300_100": (named("lenet_300_100"), (1, 28, 28), 0.6),
    "lenet5": (named("lenet5"), (1, 28, 28), 0.5),
    "minivgg": (named("minivgg", width=0.25), (3, 32, 32), 0.4),
    "residual": (Residual, (3, 12, 12), 0.9),
    "dense": (Dense, (3, 8, 8), 0.7),
    "tokens": (Tokens, (5, 6), 0.9),
    "resnet18": (named("resnet18"), (3, 32, 32), 0.7),
    "mobilenet_v3_small": (named("mobilenet_v3_small"), (3, 32, 32), 0.7),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_stay_the_same(name: str) -> None:
    """Randomly pruned networks of each kind, with constants behind batch-norm, are smaller and give the same."""
    builder, shape, share = NETWORKS[name]
    for seed in range(1 if name in ("resnet18", "mobilenet_v3_small") else 3):
        torch.manual_seed(seed)
        model = pruned(builder(shape, 10), seed, units=0.3 + 0.05 * seed)
        before = copy.deepcopy(model.state_dict())
        small, report = fewest(model, shape)
        assert report.reason is None and not small.training
        assert report.parameters[0] == sum(p.numel() for p in model.parameters())
        assert report.parameters[1] == sum(p.numel() for p in small.parameters()) <= share * report.parameters[0]
        assert_same(model, small, shape)
        assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["minivgg", "residual", "mobilenet_v3_small", "tokens"])
def test_channels_of_images_stay_in_blocks(name: str) -> None:
    """A convolution gives a multiple of eight channels, or all that it had, and outputs stay the same."""
    builder, shape, _ = NETWORKS[name]
    torch.manual_seed(0)
    model = pruned(builder(shape, 10), 0, units=0.3)
    small, report = shrink_with_report(model, shape)
    assert_same(model, small, shape)
    few = {row.name: row.units[1] for row in fewest(model, shape)[1].layers}
    convolutions = {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    for row in report.layers:
        if row.name in convolutions:
            assert row.units[1] % BLOCK == 0 or row.units[1] == row.units[0]
        assert few[row.name] <= row.units[1] <= row.units[0]
    assert name == "tokens" or any(row.units[1] < row.units[0] for row in report.layers if row.name in convolutions)


@pytest.mark.parametrize("name", ["lenet5", "minivgg", "residual", "dense", "tokens"])
def test_a_network_that_was_not_pruned_stays(name: str) -> None:
    """Without a zero weight, every unit of every layer is still there."""
    builder, shape, _ = NETWORKS[name]
    _, report = fewest(builder(shape, 10), shape)
    assert report.reason is None and report.layers
    assert all(row.units[0] == row.units[1] and row.inputs[0] == row.inputs[1] for row in report.layers)


def sequential(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*layers).eval()


@torch.no_grad()
def test_units_by_hand() -> None:
    """Units without inputs (a constant), without readers, and those that only such units read, go."""
    model = sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
    model[0].weight[1] = 0  # a constant, from its bias
    model[0].bias[1] = 2.0
    model[2].weight[:, 3] = 0
    model[2].weight[2:5, 4] = 0
    model[4].weight[:, [0, 1, 5]] = 0  # so that nothing which is left reads unit 4 of the first layer
    small, report = fewest(model, (4,))
    assert report.layers == (
        LayerRow("0", (5, 2), (4, 4)), LayerRow("2", (6, 3), (5, 2)), LayerRow("4", (3, 3), (6, 3)),
    )  # fmt: skip
    assert report.multiply_adds == (20 + 30 + 18, 8 + 6 + 9)
    assert_same(model, small, (4,))


@torch.no_grad()
def test_constants_under_zero_padding() -> None:
    """Under zero padding one constant channel stands for all; without padding, or with 0, none is left."""
    for padding, beta, left in ((1, 1.5, 4), (0, 1.5, 3), (1, -1.5, 3)):
        model = sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, 1, padding))
        model[0].weight[3:] = 0
        model[1].bias.copy_(torch.arange(1, 9) * beta / 4)
        small, report = fewest(model, (3, 9, 9))
        assert report.layers[0].units == (8, left) and report.layers[1].inputs == (8, left)
        assert_same(model, small, (3, 9, 9))


class Padded(nn.Module):
    """Pads what a layer gives, and reads it with another one."""

    def __init__(self, pads: Shape, convolutions: bool, **options: object) -> None:
        super().__init__()
        self.pads, self.options = pads, options
        wide = 6 + sum(pads[4:6] if convolutions else pads[:2])
        kind = (lambda i, o: nn.Conv2d(i, o, 3)) if convolutions else nn.Linear
        self.one, self.two = kind(3, 6), kind(wide, 4)  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        return self.two(F.pad(F.relu(self.one(x)), self.pads, **self.options))


@torch.no_grad()
@pytest.mark.parametrize(
    ("pads", "left"),
    [
        ((), 4),
        ((1, 2), 4),
        ((1, 0, 2, 1), 4),
        ((0, 0, 0, 0, 2, 3), 4),
        ((1, 2, 0, 1, 2, 0), 4),
        ((1, 2, 0, 1, 0, 3), 4),
        ((0, 0, 0, 0, 0, 0, 0, 0), 6),  # of the examples: that is left alone, and so is all that it reads
        ((0, -1), 6),
    ],
)
def test_channels_that_are_padded_are_cut(pads: Shape, left: int) -> None:
    """Zeros around an image, around its channels, and both: dead channels in front of them go, and so do the zeros
    behind them. A channel that is a constant goes too, where padding puts no zeros next to it."""
    torch.manual_seed(0)
    model = Padded(pads, convolutions=True).eval()
    model.one.weight[[1, 4]] = 0
    model.one.bias[1], model.one.bias[4] = -1.0, 0.0
    small, report = fewest(model, (3, 9, 9))
    wide = 6 + sum(pads[4:6])
    assert [row.units for row in report.layers] == [(6, left), (4, 4)]
    assert report.layers[1].inputs == (wide, left if left < 6 else wide)
    assert_same(model, small, (3, 9, 9))
    model.one.bias[1] = 1.0  # a constant: behind zeros that are padded around the image it is none
    small, report = fewest(model, (3, 9, 9))
    assert report.layers[0].units == (6, 6 if left == 6 else 5 if any(pads[:4]) else 4)
    assert_same(model, small, (3, 9, 9))


@torch.no_grad()
@pytest.mark.parametrize(
    ("pads", "options", "left"),
    [
        ((2, 3), {}, 4),
        ((0, 1), {"mode": "constant", "value": 0}, 4),
        ((0, 1), {"value": 1.0}, 6),
        ((1, 1), {"mode": "reflect"}, 6),
    ],
)
def test_features_that_are_padded_are_cut(pads: Shape, options: dict[str, object], left: int) -> None:
    """With zeros alone: other numbers and reflections are left as they are, and with them all that they read."""
    torch.manual_seed(0)
    model = Padded(pads, convolutions=False, **options).eval()
    model.one.weight[[1, 4]] = 0
    small, report = shrink_with_report(model, (3,))
    assert report.layers[0].units == (6, left)
    assert_same(model, small, (3,))


@torch.no_grad()
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_constants_go_through_batch_norm(affine: bool, bias: bool) -> None:
    """Dead units become constants of batch-norm that is part of no layer, with any mean, variance and weights; where
    its weight is zero the constant is its bias. They move into the bias that the next layer has, or then gets."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8, affine=affine)
    model = sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), norm, nn.Conv2d(8, 4, 3, bias=bias))
    model[0].weight[3:] = 0
    model[0].bias.copy_(torch.linspace(-1, 2, 8))
    norm.running_mean.copy_(torch.linspace(-3, 1, 8))
    norm.running_var.copy_(torch.linspace(0.3, 3, 8))
    if affine:
        norm.weight.copy_(torch.linspace(-2, 2, 8))
        norm.bias.copy_(torch.linspace(1, -3, 8))
        norm.weight[2] = 0
    small, report = fewest(model, (3, 9, 9))
    left = 2 if affine else 3
    assert report.layers == (LayerRow("0", (8, left), (3, 3)), LayerRow("3", (4, 4), (8, left)))
    assert_same(model, small, (3, 9, 9))


@torch.no_grad()
@pytest.mark.parametrize("kind", [nn.Linear, nn.Conv1d])
@pytest.mark.parametrize("bias", ["none", "zero", "some"])
def test_a_layer_keeps_its_bias_or_has_none(kind: type[nn.Module], bias: str) -> None:
    """Layers that lose units have a bias, also one of zeros, exactly if they had one; a constant adds one."""
    size, shape = ((), (6,)) if kind is nn.Linear else ((1,), (6, 4))
    model = sequential(*(kind(6, 6, *size, bias=bias != "none") for _ in range(3)))
    for layer in model:
        layer.weight[1] = 0
        if bias == "zero":
            layer.bias.zero_()
        elif bias == "some":
            layer.bias[1] = 0
    small, report = fewest(model, shape)
    assert [row.units[1] for row in report.layers] == [5, 5, 6]
    assert small.state_dict().keys() == model.state_dict().keys()
    assert_same(model, small, shape)
    model = sequential(kind(6, 6, *size), kind(6, 6, *size, bias=False))
    model[0].weight[1] = 0
    small, report = fewest(model, shape)
    assert report.layers[0].units == (6, 5) and dict(small.named_parameters())["1.bias"].shape == (6,)
    assert_same(model, small, shape)


@torch.no_grad()
def test_a_channel_of_a_sum_goes_if_no_branch_has_it() -> None:
    """Channel 0 is dead in both branches, 1 in one of them; a constant branch is removed completely."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(3, 4, 1, bias=False)
            self.three, self.four = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.one(x) + self.two(x))
            return self.four(x + self.three(x))

    torch.manual_seed(0)
    model = Sum().eval()
    model.one.weight[:2] = model.two.weight[0] = 0
    small, report = fewest(model, (3, 5, 5))
    assert {row.name: row.units for row in report.layers} == {
        "one": (4, 4), "two": (4, 4), "three": (4, 4), "four": (2, 2),  # the other summand has channel 0
    }  # fmt: skip
    model.three.weight[0] = model.three.bias[0] = 0
    small, report = fewest(model, (3, 5, 5))
    assert {row.name: row.units[1] for row in report.layers} == {"one": 3, "two": 3, "three": 3, "four": 2}
    assert_same(model, small, (3, 5, 5))
    model.three.weight[:] = 0
    small, report = fewest(model, (3, 5, 5))
    assert report.layers[2] == LayerRow("three", (4, 0), (4, 0))
    assert_same(model, small, (3, 5, 5))


@torch.no_grad()
def test_inputs_that_nothing_reads_are_left_out() -> None:
    """The interface stays; where at most half of the inputs are read, only those are gathered."""
    model = sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))
    model[1].weight[:, 20:] = 0
    small, report = fewest(model, (1, 8, 8))
    assert report.layers[0] == LayerRow("1", (16, 16), (64, 20))
    assert_same(model, small, (1, 8, 8))
    model[1].weight[:, 20:50] = 1
    assert fewest(model, (1, 8, 8))[1].layers[0].inputs == (64, 64)


@torch.no_grad()
def test_everything_pruned_still_runs() -> None:
    """A network of zeros gives its biases; one unit is left of each layer."""
    for name in ("lenet_300_100", "lenet5"):
        model = build(name, (1, 28, 28), 10).eval()
        for layer in model.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.weight.zero_()
        small, report = fewest(model, (1, 28, 28))
        assert report.reason is None and all(row.units[1] == 1 for row in report.layers[:-1])
        assert_same(model, small, (1, 28, 28))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


class Aliased(Branching):
    """Reads through a view what is overwritten afterwards."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        seen = y.unsqueeze(0)
        y.relu_()
        return seen.squeeze(0) + y


class Twice(Branching):
    """One layer called twice."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(F.relu(self.layer(x)))


class Channelwise(nn.Module):
    """Operations without a rule between two convolutions: channels shuffled, read by number, and counted."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x = x.view(x.size(0), 2, x.size(1) // 2, 4, 4).transpose(1, 2).flatten(1, 2)
        return self.two(x + x[:, 1:2] * x.shape[1])


@torch.no_grad()
@pytest.mark.parametrize(
    ("model", "shape", "reason"), [(Branching(), (4,), "TraceError"), (Aliased(), (4,), "would not stay the same")]
)
def test_what_cannot_be_shrunk_is_returned(model: nn.Module, shape: Shape, reason: str) -> None:
    """A network that branches on its input, or whose tensors alias, is returned itself with the reason."""
    returned, report = fewest(model, shape)
    assert report.reason is not None and reason in report.reason and "\n" not in report.reason
    assert returned is model and report.parameters == (20, 20)


def test_hooks_are_not_lost() -> None:
    """A layer whose weight a hook computes, as torch.nn.utils.prune leaves it, is not read as if it were plain."""
    model = sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    prune.l1_unstructured(model[0], "weight", 0.5)
    assert fewest(model, (4,))[1].reason == "module 0 has forward hooks"


class Across(nn.Module):
    """A pool of two axes that takes the channels for one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.pool, self.two = nn.Conv1d(2, 4, 1), nn.MaxPool2d(2), nn.Conv1d(2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.pool(self.one(x)))


class MeanOverChannels(nn.Module):
    """Between two convolutions a mean of the channels, of which there are as many as rows: rows become channels."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims
        self.one, self.two = nn.Conv2d(2, 4, 1), nn.Conv1d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x).unsqueeze(2) if len(self.dims) > 1 else self.one(x)
        return self.two(x.mean(self.dims if len(self.dims) > 1 else self.dims[0]))


@torch.no_grad()
@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (Twice(), (4,)),
        (Channelwise(), (2, 4, 4)),
        (Across(), (2, 6)),
        (MeanOverChannels(1), (2, 4, 4)),
        (MeanOverChannels(-3), (2, 4, 4)),
        (MeanOverChannels(2, 1), (2, 4, 4)),
    ],
)
def test_what_is_not_understood_stays(model: nn.Module, shape: Shape) -> None:
    """Layers called twice, and channels that are shuffled or counted, keep every unit."""
    first = next(m for m in model.modules() if hasattr(m, "weight"))
    first.weight[1] = first.bias[1] = 0
    small, report = fewest(model.eval(), shape)
    assert report.reason is None and report.parameters[0] == report.parameters[1]
    assert_same(model, small, shape)


@torch.no_grad()
def test_the_result_overwrites_nothing() -> None:
    """Layers that overwrite their input, the network's own input too, give new tensors in the shrunk network."""
    model = sequential(nn.LeakyReLU(0.5, inplace=True), nn.Linear(4, 6), nn.Hardswish(inplace=True), nn.Linear(6, 2))
    model[1].weight[:2] = 0
    small, report = fewest(model, (4,))
    assert report.reason is None and report.layers[0].units == (6, 4)
    inputs = torch.randn(5, 4)
    before = inputs.clone()
    outputs = small(inputs)
    assert torch.equal(inputs, before) and bool((inputs < 0).any())
    torch.testing.assert_close(outputs, model(inputs))


def test_the_result_is_a_module_like_any_other() -> None:
    """It is copied, loaded from a state dict, and trained on."""
    torch.manual_seed(0)
    model = pruned(build("minivgg", (3, 32, 32), 10, width=0.25), 1)
    small = shrink(model, (3, 32, 32))
    other = copy.deepcopy(small)
    for p in other.parameters():
        torch.nn.init.zeros_(p)
    other.load_state_dict(small.state_dict())
    assert_same(small, other, (3, 32, 32))
    F.cross_entropy(small(torch.randn(2, 3, 32, 32)), torch.tensor([0, 1])).backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())
