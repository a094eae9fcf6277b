"""Files for other runtimes: each gives what the network gives, and is as small as it says."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from study.compression import deployment
from study.compression.quantised_weights import QuantisedWeights, shared_parameters
from study.compression.shrinking import shrink_with_report
from study.errors import UserError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

SHAPE = (1, 12, 12)


def network(values: int) -> nn.Module:
    """A convolution network with batch-norm, its weights random among so many values, a third of them zero."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1),
        nn.BatchNorm2d(24), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(600, 50), nn.ReLU(), nn.Linear(50, 10),
    )  # fmt: skip
    for norm in (model[1], model[4]):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    parameters = shared_parameters(model)
    codes = torch.cat([torch.zeros(1), torch.randn(values - 1) / 8])
    assignment = torch.randint(1, values, (sum(p.numel() for p in parameters),))
    assignment[torch.rand(len(assignment)) < 0.3] = 0
    QuantisedWeights(assignment, codes, torch.ones(len(parameters))).write(parameters)
    with torch.no_grad():
        for layer in (model[3], model[8]):
            layer.weight[::2] = layer.bias[::2] = 0
    return model.eval()


@pytest.fixture(scope="module")
def traced() -> tuple[nn.Module, onnx.ModelProto]:
    """A network of 16 values, and its ONNX with batch-norm not folded."""
    model = network(16)
    return model, deployment.onnx_proto(model, SHAPE, fold_batch_norm=False)


def run(proto: onnx.ModelProto, images: Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(["logits"], {"images": images.numpy()})[0]
    return found


def assert_same(found: np.ndarray, model: nn.Module, images: Tensor, share: float = 1e-5) -> None:
    with torch.no_grad():
        expected = model(images).numpy()
    np.testing.assert_allclose(found, expected, atol=share * abs(expected).max(), rtol=0)


def test_a_codebook_network_is_an_eighth(traced: tuple[nn.Module, onnx.ModelProto]) -> None:
    """With 16 values, the file is little more than half a byte a weight; outputs are those of the network."""
    model, proto = traced
    before, small = proto.SerializeToString(), deployment.codebook_onnx(proto)
    assert proto.SerializeToString() == before
    weights = sum(p.numel() for p in shared_parameters(model))
    assert 4 * weights < proto.ByteSize() and small.ByteSize() < weights / 2 + 10_000
    for batch in (1, 7):
        images = torch.randn(batch, *SHAPE)
        assert (run(small, images) == run(proto, images)).all()
        assert_same(run(small, images), model, images)


def test_the_runtime_expands_it_at_load(
    traced: tuple[nn.Module, onnx.ModelProto], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In what onnxruntime runs there is no Gather and no batch-norm: it is as fast as the float network."""
    path, options = tmp_path_factory.mktemp("optimised") / "model.onnx", onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    small = deployment.codebook_onnx(traced[1])
    assert "Gather" in {node.op_type for node in small.graph.node}
    onnxruntime.InferenceSession(small.SerializeToString(), options)
    left = {node.op_type for node in onnx.load(path).graph.node}
    assert not left & {"Gather", "BitShift", "BitwiseAnd", "Cast", "BatchNormalization"}


def test_no_paths_of_this_machine(traced: tuple[nn.Module, onnx.ModelProto]) -> None:
    """The file does not say which lines of code, in which folder, its operations come from."""
    assert b".py" not in traced[1].SerializeToString()


def weights_only(weights: np.ndarray) -> onnx.ModelProto:
    """A network that adds a tensor to its input."""
    shape = list(weights.shape)
    graph = helper.make_graph(
        [helper.make_node("Add", ["images", "w"], ["logits"])], "add",
        [helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("values", [1, 2, 16, 17, 256, 257, 5000])
@pytest.mark.parametrize("shape", [(101, 99), (10, 3, 18, 37), (20_000,)])
def test_every_tensor_is_decoded_bit_for_bit(values: int, shape: tuple[int, ...]) -> None:
    """Odd and even numbers of weights, any number of axes, −0.0 among the values; 4, 8 or 16 bits a weight."""
    rng = np.random.default_rng(values)
    table = np.concatenate([[-0.0], rng.normal(size=values - 1)]).astype(np.float32)
    weights = table[rng.integers(values, size=shape)]
    small = deployment.codebook_onnx(weights_only(weights))
    onnx.checker.check_model(small, full_check=True)
    bits = 4 if values <= 16 else 8 if values <= 256 else 16
    assert small.ByteSize() <= weights.size * bits / 8 + 4 * values + 1000
    decoded = onnx.reference.ReferenceEvaluator(small).run(["logits"], {"images": np.full(shape, -0.0, np.float32)})[0]
    assert decoded.tobytes() == weights.tobytes()
    assert run(small, torch.full(shape, -0.0)).tobytes() == weights.tobytes()


@pytest.mark.parametrize("weights", [np.zeros(40, np.float32), np.arange(70_000, dtype=np.float32), np.zeros(0, "f4")])
def test_tensors_that_would_not_gain_stay(weights: np.ndarray) -> None:
    """Few weights, or more values than two bytes tell apart, stay float32."""
    proto = weights_only(weights)
    assert deployment.codebook_onnx(proto) == proto


def test_int8_is_a_quarter_and_close(traced: tuple[nn.Module, onnx.ModelProto]) -> None:
    """Calibrated on images like those that it is scored on, logits move by a few percent; the log level stays."""
    model, proto = traced
    images, before = torch.rand(64, *SHAPE), (proto.SerializeToString(), logging.root.level)
    small = deployment.int8_onnx(proto, images[:50])
    assert (proto.SerializeToString(), logging.root.level) == before
    kinds = {t.data_type for t in small.graph.initializer if np.prod(t.dims) > 500}
    assert kinds == {onnx.TensorProto.INT8}
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in small.graph.node}
    assert small.ByteSize() < 0.45 * proto.ByteSize()
    assert_same(run(small, images), model, images, share=0.1)
    with pytest.raises(ValueError, match="at least one image"):
        deployment.int8_onnx(proto, images[:0])


def test_a_shrunk_network_is_exported() -> None:
    """Its ONNX gives what the unshrunk network gives, for any batch, and is smaller."""
    model = network(200)
    small, report = shrink_with_report(model, SHAPE, block=1)
    assert report.parameters[1] < 0.3 * report.parameters[0]
    proto, images = deployment.onnx_proto(small, SHAPE), torch.randn(7, *SHAPE)
    assert proto.ByteSize() < 0.4 * 4 * report.parameters[0]
    assert_same(run(proto, images), model, images)
    assert_same(run(deployment.codebook_onnx(proto), images), model, images)


def test_the_exported_program(traced: tuple[nn.Module, onnx.ModelProto]) -> None:
    """PyTorch loads it without the code of the network, and it takes batches of any size."""
    data = deployment.exported_program_bytes(traced[0], SHAPE)
    program = torch.export.load(io.BytesIO(data)).module()
    for batch in (1, 7):
        images = torch.randn(batch, *SHAPE)
        with torch.no_grad():
            assert_same(program(images).numpy(), traced[0], images)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if float(x.sum()) > 0 else x


def test_a_network_that_cannot_be_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that branches on its input is one line that names the format."""
    with pytest.raises(UserError, match="--formats exported-program: torch cannot .* leave it out") as error:
        deployment.exported_program_bytes(Branching(), SHAPE)
    assert "\n" not in str(error.value)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Branching()(torch.zeros(1, device="meta")))
    with pytest.raises(UserError, match="--formats onnx: torch cannot .* leave onnx out") as error:
        deployment.onnx_proto(Branching(), SHAPE)
    assert "\n" not in str(error.value)


def test_packages_that_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the optional packages are absent, the error says how to install them."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for call in (lambda: deployment.onnx_proto(nn.ReLU(), SHAPE), lambda: deployment.int8_onnx(None, torch.zeros(1))):
        with pytest.raises(UserError, match=r"needs onnx and .*pip install 'compression-study\[onnx\]'"):
            call()
