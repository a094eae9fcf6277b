"""The networks for CIFAR of the distillation literature: their published sizes, what they compute, and all that a study
does with them."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from study.compression import compressed_file, deployment
from study.compression.quantised_weights import QuantisedWeights, shared_parameters
from study.compression.shrinking import shrink_with_report
from study.compression.stored_network import Network
from study.models import registry
from study.models.cifar_mobile_networks import shuffle_channels
from study.models.state import tensors_of

REPDISTILLER = {
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn_16_2": 703_284,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
    "vgg8": 3_965_028,
    "vgg13_3pools": 9_462_180,
    "shufflenetv1": 949_258,
    "shufflenetv2": 1_355_528,
    "mobilenetv2": 812_836,
}
"""Parameters for colour images and 100 classes, counted of github.com/HobbitLong/RepDistiller at b84f547. The files
that its script fetches load into those definitions."""
PAPERS = {
    "resnet20": (0.27, 2),  # He et al. 2015, https://arxiv.org/abs/1512.03385, table 6
    "resnet32": (0.46, 2),
    "resnet56": (0.85, 2),
    "resnet110": (1.7, 1),
    "wrn_40_1": (0.6, 1),  # Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1605.07146, table 4
    "wrn_40_2": (2.2, 1),
    "wrn_16_2": (0.7, 1),  # Zagoruyko & Komodakis 2017, https://arxiv.org/abs/1612.03928, table 1
}
"""Millions of parameters for CIFAR-10, and with how many digits they are printed."""
LOGITS = {
    "resnet8x4": (-0.1500147, 0.06172087),
    "resnet32x4": (3.322125, -0.8313947),
    "wrn_16_2": (-0.4364573, -0.02851963),
    "wrn_40_1": (-2.593492, 0.6216275),
    "wrn_40_2": (3.28426, -2.152931),
    "vgg8": (0.2853476, 0.03174102),
    "vgg13_3pools": (-0.2126649, -0.2378141),
    "shufflenetv1": (0.2001958, 0.4132238),
    "shufflenetv2": (-0.156108, 0.08378713),
    "mobilenetv2": (0.09175271, -0.06362299),
}
"""The first two logits of the second image that RepDistiller's code gives, with `known_weights`, in float64."""
NEW = ["resnet32", "resnet110", *REPDISTILLER]
names = pytest.mark.parametrize("name", NEW)


@pytest.mark.parametrize("name", REPDISTILLER)
def test_parameters_of_repdistiller(name: str) -> None:
    """Each has as many parameters as the network of that name in RepDistiller, for CIFAR-100."""
    assert registry.parameter_count(registry.build(name, (3, 32, 32), 100)) == REPDISTILLER[name]


@pytest.mark.parametrize("name", PAPERS)
def test_parameters_of_the_papers(name: str) -> None:
    """Rounded as in the papers' tables, for CIFAR-10."""
    millions, digits = PAPERS[name]
    assert round(registry.parameter_count(registry.build(name, (3, 32, 32), 10)) / 1e6, digits) == millions


@torch.no_grad()
def known_weights(model: nn.Module) -> nn.Module:
    """The model with numbers in it that depend on the names and shapes of its tensors alone, in evaluation mode."""
    numbers = np.random.RandomState(0)  # a sequence that NumPy does not change
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.is_floating_point():
            normal = torch.from_numpy(numbers.standard_normal(tensor.shape))
            mean = float(name.endswith(("weight", "var")))
            tensor.copy_(normal / math.sqrt(tensor[0].numel()) if tensor.dim() > 1 else mean + 0.1 * normal)
    return model.eval()


@pytest.mark.parametrize("name", LOGITS)
def test_functions_of_repdistiller(name: str) -> None:
    """With the same weights, by the same names, each computes what RepDistiller's code does."""
    model = known_weights(registry.build(name, (3, 32, 32), 100).double())
    images = torch.from_numpy(np.random.RandomState(1).standard_normal((2, 3, 32, 32)))
    with torch.no_grad():
        assert model(images)[1, :2].tolist() == pytest.approx(LOGITS[name], rel=1e-5)


def test_vgg_with_three_poolings() -> None:
    """It has the layers and the parameters of our VGG-13, but two pools less, so the last blocks see 4×4 pixels."""
    three, five = (registry.build(name, (3, 32, 32), 10) for name in ("vgg13_3pools", "vgg13"))
    assert registry.parameter_count(three) == registry.parameter_count(five)
    shapes = [[m.weight.shape for m in net.modules() if isinstance(m, nn.Conv2d)] for net in (three, five)]
    assert shapes[0] == shapes[1]
    assert [sum(isinstance(m, nn.MaxPool2d) for m in net.modules()) for net in (three, five)] == [3, 5]
    assert isinstance(three, nn.Sequential) and three[:-3](torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)


def test_width_of_the_three_pool_networks() -> None:
    """A quarter of the channels, as with the other VGG kinds."""
    model = registry.build("vgg8", (1, 8, 8), 10, width=0.25)
    assert [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)] == [16, 32, 64, 128, 128]


def test_no_name_of_torchvision_is_hidden() -> None:
    """These names are not also those of networks of torchvision."""
    import torchvision

    assert not set(NEW) & set(torchvision.models.list_models())


def test_shuffled_channels_by_hand() -> None:
    """Two groups of three in turn; each image for itself, and in either memory layout."""
    features = torch.arange(12.0).view(2, 6, 1, 1).expand(2, 6, 2, 3)
    for images in (features.contiguous(), features.contiguous(memory_format=torch.channels_last)):
        shuffled = shuffle_channels(images, 2)
        assert shuffled[0, :, 1, 2].tolist() == [0, 3, 1, 4, 2, 5]
        assert shuffled[1, :, 0, 0].tolist() == [6, 9, 7, 10, 8, 11]
    assert torch.equal(shuffle_channels(features, 1), features)


@names
def test_a_step_in_channels_last_and_bfloat16(name: str) -> None:
    """One step of training at 32×32: logits and gradients are finite, and every weight has a gradient."""
    model = registry.build(name, (3, 32, 32), 10).to(memory_format=torch.channels_last)
    images = torch.randn(4, 3, 32, 32).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        loss = nn.functional.cross_entropy(model(images).float(), torch.arange(4))
    loss.backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)
    assert all(bool(g.any()) for g in gradients if g is not None and g.dim() > 1)


@names
def test_memory_layouts_give_the_same(name: str) -> None:
    """In channels last, and in a batch of another size, an image has the same logits."""
    model = known_weights(registry.build(name, (1, 16, 12), 7).double())
    images = torch.randn(3, 1, 16, 12, dtype=torch.float64)
    with torch.no_grad():
        expected = model(images)
        rows = model.to(memory_format=torch.channels_last)(images.to(memory_format=torch.channels_last)[1:])
    torch.testing.assert_close(rows, expected[1:])


def quantised(name: str) -> tuple[nn.Module, QuantisedWeights, Network]:
    """A network for digits with 16 values, of which a third of the units, and half of the other weights, are zero."""
    generator = torch.Generator().manual_seed(0)
    model = known_weights(registry.build(name, (1, 8, 8), 10))
    parts = []
    for tensor in (parameters := shared_parameters(model)):
        assignment = torch.randint(1, 16, tensor.shape, generator=generator)
        assignment[torch.rand(tensor.shape, generator=generator) < 0.5] = 0
        assignment[torch.rand(len(tensor), generator=generator) < 0.3] = 0
        parts.append(assignment.flatten())
    values = torch.randn(16, generator=generator)
    values[0] = 0
    scales = torch.tensor([1 / math.sqrt(p[0].numel()) for p in parameters])
    weights = QuantisedWeights(torch.cat(parts), values, scales)
    weights.write(parameters)
    return model, weights, Network(name, {}, (1, 8, 8), 10, (0.5,), (0.25,), "digits")


@names
def test_the_compressed_file_is_exact(name: str) -> None:
    """Every tensor of what is decoded is that of the network, bit for bit."""
    model, weights, network = quantised(name)
    decoded = compressed_file.decode(compressed_file.encode(model, weights, network))
    own, again = tensors_of(model), tensors_of(decoded.model)
    assert decoded.network == network and own.keys() == again.keys()
    assert all(torch.equal(own[key], again[key]) for key in own)


@names
def test_shrinking_is_exact(name: str) -> None:
    """Units without weights go where that is understood, and the outputs stay the same."""
    model = quantised(name)[0]
    small, report = shrink_with_report(model, (1, 8, 8), block=1)
    assert report.reason is None and report.parameters[1] < report.parameters[0]
    images = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(small(images), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "name",
    [
        *"resnet20 vgg8 shufflenetv2".split(),
        *(pytest.param(name, marks=pytest.mark.slow) for name in "resnet8x4 wrn_16_2 shufflenetv1 mobilenetv2".split()),
    ],
)
def test_other_runtimes_give_the_same(name: str) -> None:
    """Of each family, ONNX Runtime and PyTorch's exported program give the logits, for batches of any size."""
    onnxruntime = pytest.importorskip("onnxruntime")
    model = quantised(name)[0]
    proto = deployment.onnx_proto(model, (1, 8, 8))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    exported = torch.export.load(io.BytesIO(deployment.exported_program_bytes(model, (1, 8, 8)))).module()
    for batch in (1, 7):
        images = torch.randn(batch, 1, 8, 8)
        with torch.no_grad():
            expected: Tensor = model(images)
            close = {"rtol": 0, "atol": 1e-4 * float(expected.abs().max())}
            torch.testing.assert_close(exported(images), expected, **close)
        logits = session.run(["logits"], {"images": images.numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(logits), expected, **close)
