"""The compressed file: it gives back the very network, is as small as it should be, and is never read wrongly."""

from __future__ import annotations

import base64
import json
import math
import os
import resource
import struct
import textwrap
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mutations import Codebook, sealed
from test_entropy_coder import discs
from torch import Tensor, nn

from study.compression import compressed_file
from study.compression.batch_norm import round_batch_norm
from study.compression.compressed_file import Network
from study.compression.entropy_coder import Decoder, Encoder, code_tensor
from study.compression.network_coder import code_weights
from study.compression.quantised_weights import QuantisedWeights, shared_parameters
from study.compression.size_metrics import csr_bits, ratio, size_metrics, tensor_table
from study.errors import UserError
from study.models import registry
from study.models.zoo import Shape

NETS = """
    from torch import nn

    class Tied(nn.Module):
        def __init__(self, classes):
            super().__init__()
            self.first, self.second, self.one = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(1, 1)
            self.second.weight = self.first.weight
            self.last = nn.Linear(4, classes)

        def forward(self, images):
            x = images.mean(dim=(1, 2, 3))[:, None]
            return self.last(self.second(self.first(self.one(x).repeat(1, 4))))

    def tied(input_shape, classes):
        return Tied(classes)

    def tall(input_shape, classes, wide=500):
        pixels = input_shape[0] * input_shape[1] * input_shape[2]
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, wide), nn.BatchNorm1d(wide), nn.Linear(wide, classes))
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's module `codebook_nets` with the functions `tied` and `tall`."""
    (tmp_path / "codebook_nets.py").write_text(textwrap.dedent(NETS))
    monkeypatch.syspath_prepend(tmp_path)


def network(name: str, shape: Shape = (1, 28, 28), **options: Any) -> Network:
    return Network(name, options, shape, 10, (0.1 + 0.2,) * shape[0], (1 / 3,) * shape[0], "digits")


def compressed(
    like: Network, seed: int, *, values: int = 16, sparsity: float = 0.9, scaled: bool = False
) -> tuple[nn.Module, QuantisedWeights]:
    """A network with a random assignment of random values; its batch-norm has moved, too."""
    generator = torch.Generator().manual_seed(seed)
    model = registry.build(like.name, like.input_shape, like.classes, **like.options)
    parameters = shared_parameters(model)
    weights = sum(p.numel() for p in parameters)
    assignment = torch.randint(1, max(values, 2), (weights,), generator=generator)
    assignment[torch.rand(weights, generator=generator) < sparsity] = 0
    codes = torch.randn(values, generator=generator)
    codes[0] = 0
    scales = torch.rand(len(parameters), generator=generator) + 0.5 if scaled else torch.ones(len(parameters))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, generator=generator)
            module.running_mean.normal_(generator=generator)
            module.num_batches_tracked.fill_(seed + 3)
    quantised = QuantisedWeights(assignment, codes, scales)
    quantised.write(parameters)
    return model, quantised


def patches(like: Network, seed: int, *, values: int = 8, share: float = 0.5) -> tuple[nn.Module, QuantisedWeights]:
    """A network whose first layer reads patches of one sign each, as trained ones do; a third of its units are dead."""
    model, quantised = compressed(like, seed, values=values, sparsity=0.9)
    rng = np.random.default_rng(seed)
    channels, height, width = like.input_shape
    parameters = shared_parameters(model)
    units = parameters[0].shape[0]
    y, x = np.indices((height, width))
    index = np.zeros((units, channels, height, width), np.int64)
    signs = np.sign(quantised.values.numpy())
    for i in range(0 if share == 1 else units // 3, units):
        near = (y - rng.integers(height)) ** 2 + (x - rng.integers(width)) ** 2 < rng.integers(1, 12)
        alike = np.flatnonzero(signs == rng.choice(signs[1:]))
        index[i] = rng.choice(alike, index[i].shape) * (near & (rng.random(index[i].shape) < share))
    assignment = quantised.assignment.clone()
    assignment[: parameters[0].numel()] = torch.from_numpy(index.reshape(-1))
    quantised = QuantisedWeights(assignment, quantised.values, quantised.scales)
    quantised.write(parameters)
    return model, quantised


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy(force=True).tobytes() == b.numpy(force=True).tobytes()


def assert_round_trip(like: Network, model: nn.Module, quantised: QuantisedWeights) -> None:
    decoded = compressed_file.decode(compressed_file.encode(model, quantised, like), custom=like.name)
    assert decoded.network == like
    state, again = model.state_dict(), decoded.model.state_dict()
    assert list(state) == list(again)
    assert all(same_bits(state[name], again[name]) for name in state)
    parameters = shared_parameters(decoded.model)
    assert all(map(same_bits, decoded.quantised.tensors(parameters), parameters))
    assert size_metrics(decoded.quantised) == size_metrics(quantised)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "like",
    [
        network("lenet_300_100"),
        network("lenet5"),
        network("minivgg", (3, 32, 40), width=0.25),
        network("torchvision:mobilenet_v2", (3, 32, 32)),  # convolutions of 9 weights a channel
        network("codebook_nets:tied"),
        network("codebook_nets:tall", (1, 2, 2), wide=700),
    ],
    ids=lambda like: like.name,
)
def test_round_trip_is_exact(like: Network, seed: int, nets: None) -> None:
    """decode(encode(x)) has every tensor of x bit for bit: shared ones, scaled ones, batch-norm, counters."""
    kinds = [dict(), dict(values=200, sparsity=0.3, scaled=True), dict(values=3, sparsity=0.99)]
    assert_round_trip(like, *compressed(like, seed, **kinds[seed]))


@pytest.mark.parametrize("values", [2, 3, 12])
@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
@pytest.mark.parametrize(
    "like",
    [network("lenet_300_100"), network("lenet_300_100", (3, 12, 9)), network("codebook_nets:tall", (2, 5, 7), wide=23)],
    ids=lambda like: "×".join(map(str, like.input_shape)),
)
def test_round_trip_of_a_first_layer_with_patches(like: Network, share: float, values: int, nets: None) -> None:
    """Gray, colour, an odd size and batch-norm; from nearly empty patches to full ones, with dead units among them."""
    assert_round_trip(like, *patches(like, values, values=values, share=share))


def test_neighbours_make_a_first_layer_smaller() -> None:
    """Patches of one sign take a fifth less than without neighbours; pixels that are dropped at random no more."""
    like = network("lenet_300_100")
    for (model, quantised), most in ((patches(like, 0), 0.8), (compressed(like, 0, sparsity=0.95), 1.001)):
        first = shared_parameters(model)[0]
        coder = Encoder()
        code_tensor(coder, first.shape, len(quantised.values), quantised.assignment[: first.numel()].numpy())
        assert tensor_table(model, quantised, like)[0].coded_bytes < most * len(coder.data()) + 12


def test_units_that_nobody_reads_are_cheap() -> None:
    """Which units of a layer are empty costs little where the layer behind says it."""
    shapes, rng = [(400, 500), (20, 400)], np.random.default_rng(0)
    alive = rng.random(400) < 0.5
    reading = np.where(rng.random((20, 400)) < 0.3, 1, 0) * alive
    weights = np.where(rng.random((400, 500)) < 0.01, 1, 0)
    sizes = {}
    for name, rows in (("those", alive), ("others", rng.permutation(alive))):
        coder, index = Encoder(), [(weights * rows[:, None]).reshape(-1), reading.reshape(-1)]
        code_weights(coder, shapes, (500,), np.array([0.0, 1.0]), index)
        sizes[name] = len(coder.data())
        again, _ = code_weights(Decoder(coder.data()), shapes, (500,), np.array([0.0, 1.0]))
        assert all(map(np.array_equal, again, index))
    assert sizes["those"] < sizes["others"] - 30  # of 50: one bit for each unit


def test_numbers_that_float16_has_take_two_bytes() -> None:
    """Values, scales and batch-norm, each by itself; others take four, and all come back bit for bit."""
    like = network("minivgg", (1, 32, 32), width=0.125)
    model, quantised = compressed(like, 0, scaled=True)
    sizes = []
    for rounded in (False, True):
        if rounded:
            quantised = quantised.rounded()
            round_batch_norm(model)
        quantised.write(shared_parameters(model))
        sizes.append([len(part) for part in Codebook.of(compressed_file.encode(model, quantised, like)).parts[2:5]])
        assert_round_trip(like, model, quantised)
    assert sizes[0][:2] == [15 * 4, 12 * 4] and sizes[1][:2] == [15 * 2, 12 * 2]
    assert sizes[1][2] < 0.6 * sizes[0][2]


@pytest.mark.parametrize("values", [1, 2, 3, 256, 257, 65_536])
def test_any_number_of_values(values: int) -> None:
    """From the zero alone to 65,536 values, dense or empty, the network comes back."""
    like = network("lenet_300_100")
    model, quantised = compressed(like, 0, values=values, sparsity=0.0 if values > 1 else 1.0)
    assert_round_trip(like, model, quantised)


def test_too_many_values_are_refused() -> None:
    """65,537 values do not fit, and neither does a codebook without a zero in front."""
    like = network("lenet_300_100")
    model, quantised = compressed(like, 0)
    parameters = shared_parameters(model)
    many = QuantisedWeights(torch.arange(266_610) % 65_537, torch.arange(65_537.0), torch.ones(len(parameters)))
    for wrong in (many, QuantisedWeights(quantised.assignment, quantised.values + 1, quantised.scales)):
        with pytest.raises(ValueError, match="begins with zero"):
            compressed_file.encode(model, wrong, like)


def test_unused_values_cost_nothing() -> None:
    """Values that no weight has are left out; the weights are the same."""
    like = network("lenet_300_100")
    model, quantised = compressed(like, 0, values=8)
    padded = QuantisedWeights(quantised.assignment * 2, quantised.values.repeat_interleave(2), quantised.scales)
    assert compressed_file.encode(model, padded, like) == compressed_file.encode(model, quantised, like)


@pytest.mark.parametrize("shape", [(1,), (7,), (1, 1), (3, 1), (1, 50), (64, 3), (5, 4, 3, 3), (2000, 2), (16, 257)])
@pytest.mark.parametrize("sparsity", [0.0, 0.03, 0.5, 0.97, 1.0])
def test_any_tensor_round_trips(shape: tuple[int, ...], sparsity: float) -> None:
    """A tensor of any shape and density, empty and full rows among them, is decoded as it was encoded."""
    rng = np.random.default_rng(len(shape) + shape[0])
    index = np.where(rng.random(math.prod(shape)) < sparsity, 0, rng.integers(1, 5, math.prod(shape)))
    index[: shape[-1]] = 1
    coder = Encoder()
    assert np.array_equal(code_tensor(coder, shape, 5, index), index)
    assert np.array_equal(code_tensor(Decoder(coder.data()), shape, 5), index)


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.98])
def test_file_is_near_its_bound(sparsity: float) -> None:
    """With nothing to learn (a random mask, random values), the whole file is within 3 % of the entropy bound."""
    like = network("lenet_300_100")
    model, quantised = compressed(like, 0, sparsity=sparsity)
    achieved = ratio(shared_parameters(model), len(compressed_file.encode(model, quantised, like)))
    assert achieved >= size_metrics(quantised)["entropy_ratio"] / 1.03


def test_pruned_units_are_used() -> None:
    """Where rows and columns differ in density, as pruning leaves them, the file beats the entropy bound by far."""
    like = network("lenet_300_100")
    model, quantised = compressed(like, 0, sparsity=0.0)
    generator = torch.Generator().manual_seed(1)
    masks = []
    for p in shared_parameters(model):
        live = [torch.rand(n, generator=generator) < 0.2 for n in p.shape]
        masks.append((live[0][:, None] & live[1] if p.dim() == 2 else live[0]).reshape(-1))
    quantised = QuantisedWeights(quantised.assignment * torch.cat(masks), quantised.values, quantised.scales)
    quantised.write(shared_parameters(model))
    achieved = ratio(shared_parameters(model), len(compressed_file.encode(model, quantised, like)))
    assert achieved > 1.4 * size_metrics(quantised)["entropy_ratio"]
    assert_round_trip(like, model, quantised)


# --- damage


@pytest.fixture(scope="module")
def data() -> bytes:
    like = network("minivgg", (1, 32, 32), width=0.125)
    return compressed_file.encode(*compressed(like, 0, sparsity=0.98, scaled=True), like)


def refused(data: bytes, words: str | None = None) -> None:
    """Reading raises UserError, whose one line names the file and says these words."""
    with pytest.raises(UserError, match=words) as raised:
        compressed_file.decode(data, source="x.codebook")
    assert str(raised.value).startswith("x.codebook: ") and "\n" not in str(raised.value)


def test_every_flipped_bit_is_noticed(data: bytes) -> None:
    """Any bit of the first hundred bytes flipped, or one of a sample of the others, is refused, never decoded."""
    for at in (*range(100), *range(100, len(data), 97), len(data) - 1):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            refused(bytes(damaged), "damaged|no compressed network|format version")


def test_every_truncation_is_noticed(data: bytes) -> None:
    """A file cut short at any of a sample of lengths, the empty one among them, or with a byte too many, is refused."""
    for length in (*range(60), *range(60, len(data), 89), len(data) - 1):
        refused(data[:length], "damaged|no compressed network")
    refused(data + b"\0", "damaged")


@pytest.mark.parametrize("foreign", [b"PK\x03\x04" + bytes(100), b"\x80\x04K\x01.", b"CBK", b"text\n" * 9])
def test_foreign_files_are_refused(foreign: bytes) -> None:
    """A file of another kind is refused by name of the right one; nothing is unpickled."""
    refused(foreign, ".codebook file")


def test_newer_version_is_refused(data: bytes) -> None:
    """A file of a later format says which version it has, and which is read."""
    refused(data[:3] + b"\x04" + data[4:], "format version 4, but this version of the harness reads 3")


def deflated(data: bytes) -> bytes:
    return zlib.compress(data, 9, -15)


def with_header(header: Any, lengths: tuple[int, ...] = (0, 0, 0, 0)) -> bytes:
    """A file of version 1."""
    deflated = zlib.compress(json.dumps(header).encode(), 9, -15)
    return sealed(struct.pack("<HHHII", len(deflated), *lengths) + deflated, 1)


def with_new_header(header: Any) -> bytes:
    """A file of version 3 with the same header: mean and std are not in its JSON."""
    text, numbers = header, b""
    if isinstance(header, list) and len(header) == 7:
        text, numbers = [*header[:4], header[6]], struct.pack("<2d", *header[4], *header[5])
    return Codebook(0, 0, [deflated(json.dumps(text).encode()), numbers, b"", b"", b"", b""]).file()


@pytest.mark.parametrize(
    "bad",
    [
        sealed(b"", 1),
        sealed(b""),
        sealed(bytes(14), 1),
        sealed(bytes(14)),
        sealed(bytes(5) + b"\xff" * 9),
        sealed(bytes(4) + b"\x08" + bytes(20)),
        with_new_header({}),
        with_new_header([]),
        with_new_header(["lenet_300_100", {}, [1, 28, 28], -1, [0.0], [1.0], "mnist"]),
        with_new_header(["nope", {}, [1, 28, 28], 10, [0.0], [1.0], "mnist"]),
        with_header({}),
        with_header(["lenet5", {}, [1, 28], 10, [0.0], [1.0], "mnist"]),
        with_header(["lenet_300_100", {}, [1, 10**6, 10**6], 10, [0.0], [1.0], "mnist"]),
        with_header(["lenet_300_100", {}, [1, 28, 28], -1, [0.0], [1.0], "mnist"]),
        with_header(["lenet_300_100", {}, [1, 28, 28], 10, [0.0], [1.0], "mnist"], (65_535, 65_535, 2**32 - 1, 0)),
        with_header(["nope", {}, [1, 28, 28], 10, [0.0], [1.0], "mnist"]),
        with_header(["lenet5", {"x": 1}, [1, 28, 28], 10, [0.0], [1.0], "mnist"]),
    ],
)
def test_nonsense_with_a_fitting_checksum_is_refused(bad: bytes) -> None:
    """Parts that are not there, and absurd numbers, are one line, not a crash, and ask for no memory."""
    refused(bad)


def test_parts_that_contradict_each_other_are_refused(data: bytes) -> None:
    """Weights that no coder wrote, or a batch-norm cut short, are refused although the checksum fits."""
    refused(with_parts(data, others=zlib.compress(b"short", 9, -15)), "format version 3")
    refused(sealed(data[8:] + b"\xff" * 64), "format version 3")
    refused(sealed(data[8:-1]), "format version 3")  # the coder writes four bytes at a time


# --- strangers, whose checksum is right


GOOD: list[Any] = ["lenet_300_100", {}, [1, 1, 1], 2, [0.5], [0.25], "digits"]


def header_with(at: int, value: Any) -> bytes:
    return with_header([*GOOD[:at], value, *GOOD[at + 1 :]])


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (0, 7, "name of its network"),
        (0, "x" * 10_000, "name of its network"),
        (0, "", "name of its network"),
        (1, [], "options"),
        (1, {"width": 1e9}, "option 'width'"),
        (1, {"width": -(10**400)}, "option 'width'"),
        (1, {"width": [[1, 16, 10**6, 1]]}, "option 'width'"),
        (1, {"width": {"a": 1}}, "option 'width'"),
        (1, {"x": [1] * 10_000}, "option 'x'"),
        (2, 3, "input shape"),
        (2, [1, 1], "input shape"),
        (2, [1, True, 1], "input shape"),
        (2, [1, 2.0, 1], "input shape"),
        (2, [1, 0, 1], "input shape"),
        (2, [1, 60_000, 60_000], "numbers each"),
        (3, "2", "input shape"),
        (3, 10**30, "input shape"),
        (4, [], "mean is not one finite number for each of its 1 channels"),
        (4, [0.5, 0.5], "mean"),
        (4, ["0.5"], "mean"),
        (4, [10**400], "mean"),
        (4, [float("nan")], "its header has NaN"),
        (5, [0], "std is not above 0"),
        (5, [-1.0], "std is not above 0"),
        (5, [float("inf")], "its header has Infinity"),
        (6, None, "name of its data set"),
    ],
)
def test_a_header_is_checked_before_anything_is_built(
    at: int, value: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry of the wrong type, or beyond its bounds, is named, and no network is built."""
    monkeypatch.setattr(registry, "construct", lambda *_: pytest.fail("a network is built"))
    refused(header_with(at, value), words)
    if at not in (4, 5):  # mean and std are no JSON in version 3
        refused(with_new_header([*GOOD[:at], value, *GOOD[at + 1 :]]), words)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([], "mean is not one finite number for each of its 1 channels"),
        ([0.5, 0.5, 0.25, 0.25], "mean is not one finite number"),
        ([math.nan, 0.25], "mean is not one finite number"),
        ([0.5, math.inf], "std is not one finite number"),
        ([0.5, 0.0], "std is not above 0"),
    ],
)
def test_mean_and_std_of_version_three_are_checked(numbers: list[float], words: str) -> None:
    """One finite number for each channel."""
    text = deflated(json.dumps([*GOOD[:4], GOOD[6]]).encode())
    refused(Codebook(0, 0, [text, struct.pack(f"<{len(numbers)}d", *numbers), b"", b"", b"", b""]).file(), words)


NAMES = ("header", "numbers", "values", "scales", "others", "weights")


def with_parts(data: bytes, **changed: bytes) -> bytes:
    """The file with other parts, its lengths and checksum made right; values and scales are float32."""
    codebook = Codebook.of(data)
    codebook.flags &= ~(1 * ("values" in changed) | 2 * ("scales" in changed))
    codebook.parts = [changed.get(name, part) for name, part in zip(NAMES, codebook.parts, strict=True)]
    return codebook.file()


def with_old_parts(data: bytes, **changed: bytes) -> bytes:
    """The same of a file of version 1."""
    header, values, scales, others, layout = struct.unpack_from("<HHHII", data, 8)
    parts, at = {}, 22
    for name, length in dict(header=header, values=4 * values, scales=4 * scales, others=others, weights=10**9).items():
        parts[name] = data[at : at + length]
        at += length
    parts |= changed
    sizes = [len(parts["header"]), len(parts["values"]) // 4, len(parts["scales"]) // 4, len(parts["others"])]
    return sealed(struct.pack("<HHHII", *sizes, layout) + b"".join(parts.values()), 1)


def test_deep_and_long_headers_are_refused() -> None:
    """JSON nested without end, or long without end, is one line."""
    for long, words in ((b"[" * 60_000, "nested too deeply"), (bytes(10**7), "262,144 bytes when infl")):
        refused(sealed(struct.pack("<HHHII", len(d := deflated(long)), 0, 0, 0, 0) + d, 1), words)
        refused(Codebook(0, 0, [deflated(long), b"", b"", b"", b"", b""]).file(), words)
    deep: Any = 0
    for _ in range(20):
        deep = [deep]
    refused(with_header(["own:net", {"x": deep}, *GOOD[2:]]), "option 'x'")
    refused(with_new_header(["own:net", {"x": deep}, *GOOD[2:]]), "option 'x'")


def test_parts_are_checked_against_the_network(data: bytes) -> None:
    """A deflate bomb, numbers of scales or values that cannot be, and bytes behind the last weight are refused."""
    golden = base64.b85decode(GOLDEN)
    like = network("lenet_300_100", (1, 1, 1))
    for small, changed in ((golden, with_old_parts), (compressed_file.encode(*compressed(like, 0), like), with_parts)):
        refused(changed(small, scales=np.ones(5, "<f4").tobytes()), "5 scales for 6 tensors")
        refused(changed(small, values=np.ones(40_000, "<f4").tobytes()), "more values than weights")
        refused(changed(small, weights=small[-40:] + bytes(400)), "format version [13]")
        refused(changed(small, others=deflated(b"short")), "more than 0 bytes when inflated|another length")
    refused(with_parts(data, others=deflated(bytes(10**7))), "when inflated")
    refused(with_parts(data, others=deflated(b"short")), "another length")
    refused(with_parts(data, values=np.ones(65_536, "<f4").tobytes()), "more than 65,535 values")
    refused(sealed(golden[8:14] + b"\xff\xff\xff\x00" + golden[18:], 1), "longer than it is")


@pytest.mark.parametrize("which", range(5))
def test_lengths_that_do_not_fit_are_refused(data: bytes, which: int) -> None:
    """A length that is too large by one, by far, or too small: each part is then read from the wrong place."""
    codebook = Codebook.of(data)
    lengths = [len(part) // size for part, size in zip(codebook.parts, codebook.sizes(), strict=False)]
    for wrong in (lengths[which] + 1, lengths[which] - 1, 0, 2**31, 2**35 - 1, 2**63):
        refused(codebook.file([*lengths[:which], wrong, *lengths[which + 1 :]]))


def test_a_first_layer_with_weights_of_another_is_refused() -> None:
    """The coder of the first layer, given bits of a network of another size or cut ones, says so in one line."""
    like, other = network("lenet_300_100", (1, 8, 8)), network("lenet_300_100", (1, 9, 9))
    own, foreign = (compressed_file.encode(*patches(net, 0), net) for net in (like, other))
    weights = Codebook.of(foreign).parts[5]
    refused(with_parts(own, weights=weights), "format version 3")
    for length in (0, 4, 400):
        refused(with_parts(own, weights=Codebook.of(own).parts[5][:length] + b"\xff" * 4000), "format version 3")
    refused(with_parts(own, values=b""), "format version 3")  # then there is nothing that a nonzero could be


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_numbers_that_are_not_finite_are_refused(data: bytes, bad: float) -> None:
    """In the codebook, in the scales, in other tensors, which are named; and a product of both that overflows."""
    values = np.array([bad] * 15, "<f4").tobytes()
    refused(with_parts(data, values=values), "codebook or its scales")
    refused(with_parts(data, scales=np.array([bad] * 12, "<f4").tobytes()), "codebook or its scales")
    like = network("minivgg", (1, 32, 32), width=0.125)
    model, quantised = compressed(like, 0, sparsity=0.98, scaled=True)
    model.get_parameter("1.weight").data[0] = bad
    refused(compressed_file.encode(model, quantised, like), r"in 1\.weight is NaN or infinite")
    large = np.array([3e38] * 15, "<f4").tobytes()
    refused(
        with_parts(data, values=large, scales=np.array([100.0] * 12, "<f4").tobytes()),
        r"numbers in \d+\.weight are NaN",
    )


@pytest.mark.parametrize(
    "header",
    [
        ["vgg19", {"width": 65_536}, [3, 32, 32], 10],
        ["lenet_300_100", {}, [1, 4096, 4096], 10],
        ["torchvision:vit_b_16", {"image_size": 65_536}, [3, 32, 32], 10],
        ["torchvision:regnet_y_128gf", {}, [3, 32, 32], 10],
        ["torchvision:mobilenet_v2", {"width_mult": 1000}, [3, 32, 32], 10],
    ],
    ids=lambda header: header[0],
)
def test_a_network_that_is_too_large_is_not_built(header: list[Any]) -> None:
    """Its parameters are counted before memory is taken for them, and the line says how to allow more."""
    channels = header[2][0]
    import torchvision.models  # noqa: F401, which takes memory as well

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(
        with_header([*header, [0.5] * channels, [0.25] * channels, "x"]), "more than 150,000,000 .*--max-parameters"
    )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_the_limit_is_exact() -> None:
    """30,902 parameters are read with a limit of 30,902, and refused with one less."""
    golden = base64.b85decode(GOLDEN)
    compressed_file.decode(golden, max_parameters=30_902)
    with pytest.raises(UserError, match="30,901 parameters; .*--max-parameters"):
        compressed_file.decode(golden, max_parameters=30_901)


def test_options_that_no_network_takes_are_one_line() -> None:
    """Whatever torchvision raises on them."""
    for options in ({"groups": 0}, {"weights": "DEFAULT"}, {"norm_layer": "x"}, {"pretrained": True}, {"nope": None}):
        refused(with_header(["torchvision:resnet18", options, [3, 32, 32], 10, [0.5] * 3, [0.5] * 3, "x"]), "resnet18")


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    """A device without end, a FIFO that nobody writes to, a folder, a file that is far too long: refused at once."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "long").write_bytes(base64.b85decode(GOLDEN))
    os.truncate(tmp_path / "long", 10**12)
    (tmp_path / "text").write_bytes(b"text" * 10)
    os.truncate(tmp_path / "text", 10**12)
    for path, words in (
        (Path("/dev/zero"), "no compressed network"),
        (tmp_path / "fifo", "no compressed network"),
        (tmp_path / "text", "no compressed network"),
        (tmp_path, "no compressed network|cannot be read"),
        (tmp_path / "long", "longer than a file of 150,000,000 parameters can be.*--max-parameters"),
    ):
        with pytest.raises(UserError, match=words):
            compressed_file.read(path)


def test_a_network_built_otherwise_is_refused(nets: None) -> None:
    """If a user's function no longer builds what was compressed, the file is refused, not filled in wrongly."""
    like = network("codebook_nets:tall", (1, 2, 2))
    data = compressed_file.encode(*compressed(like, 0), like)
    import codebook_nets  # type: ignore[import-not-found]

    codebook_nets.tall.__defaults__ = (501,)
    with pytest.raises(UserError, match="not built as it was"):
        compressed_file.decode(data, custom="codebook_nets:tall")


def test_a_users_code_is_not_run_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that names a user's function is read only when the caller gives that very name, and is told so."""
    (tmp_path / "codebook_once.py").write_text(textwrap.dedent(NETS))
    monkeypatch.syspath_prepend(tmp_path)
    like = network("codebook_once:tied")
    model, quantised = compressed(like, 0)
    path = tmp_path / "tied.codebook"
    compressed_file.save(path, model, quantised, like)
    (tmp_path / "codebook_once.py").write_text("raise SystemExit('imported')")
    monkeypatch.delitem(__import__("sys").modules, "codebook_once")
    for custom in (None, "codebook_once:other", "codebook_once"):
        with pytest.raises(UserError, match="--network codebook_once:tied") as raised:
            compressed_file.load(path, custom=custom)
        assert str(path) in str(raised.value)


def test_files_on_disk(tmp_path: Path) -> None:
    """`save` returns the bytes it wrote and leaves nothing beside; `load` is ready to evaluate; no file is one line."""
    like = network("lenet5")
    model, quantised = compressed(like, 0)
    path = tmp_path / "new" / "x.codebook"
    assert compressed_file.save(path, model, quantised, like) == path.stat().st_size
    assert [p.name for p in path.parent.iterdir()] == ["x.codebook"]
    loaded = compressed_file.load(path)
    images = torch.rand(3, 1, 28, 28)
    assert not loaded.training and torch.equal(loaded(images), model.eval()(images))
    with pytest.raises(UserError, match="nope.codebook"):
        compressed_file.load(tmp_path / "nope.codebook")


def test_reading_leaves_the_random_sequence_alone(data: bytes) -> None:
    """Decoding builds a network, but draws nothing from the caller's generator."""
    torch.manual_seed(0)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    compressed_file.decode(data)
    assert torch.equal(torch.rand(3), wanted)


GOLDEN = (
    "Lqbad=O@k@F8~7o00000002P53`&bu%1O;jEr~ZaFo-uaFi_H|uGNV))B(a+9V4A+13e?tSP%sym2&eki%XPZ0RR91zW@M$J^%o~"
    "KQ@>=E?ayvxy)QWS<0{`)ZEwGD&j$Z2LIuJwY{>7<t|*5oLm@~|HrJ_5u@$mbt}vWU%QidW22^Y5xsDes{"
)


def test_files_of_version_one_stay_readable() -> None:
    """A file written when the format was made is decoded to the same weights; constriction must not change either."""
    decoded = compressed_file.decode(base64.b85decode(GOLDEN))
    assert torch.equal(decoded.quantised.assignment, golden_assignment())
    assert decoded.quantised.values.tolist() == [0, -0.5, 0.25, 1.5]


def test_files_of_version_two_stay_readable() -> None:
    """A file with scales, batch-norm, a part that was left out and a training mean, written before version 3: all its
    numbers follow from integers."""
    decoded = compressed_file.read(VERSION_2)
    assert VERSION_2.read_bytes()[3] == 2
    like = Network("minivgg", {"width": 0.0625}, (3, 32, 32), 10, (0.5, 0.25, 0.125), (0.25, 0.5, 1.0), "cifar10",
                   ("21",), (0.4, 0.3, 0.2))  # fmt: skip
    assert decoded.network == like
    parameters = shared_parameters(decoded.model)
    i = torch.arange(sum(p.numel() for p in parameters))
    assert torch.equal(decoded.quantised.assignment, torch.where((i * i + 3 * i) % 31 < 3, 1 + i % 5, 0))
    assert torch.equal(decoded.quantised.values, torch.tensor([0, -0.5, 0.1, 1.5, -0.25, 2.0]))
    assert torch.equal(decoded.quantised.scales, 1 + torch.arange(len(parameters)) / 8)
    shared = {id(p) for p in parameters}
    for tensor in decoded.model.state_dict(keep_vars=True).values():
        if id(tensor) not in shared:
            numbers = (torch.arange(tensor.numel()) % 13 - 6).view(tensor.shape).to(tensor.dtype)
            assert torch.equal(tensor, numbers * (1 if tensor.dtype == torch.int64 else 0.375))
    assert_round_trip(like, decoded.model, decoded.quantised)


def test_files_of_version_three_stay_readable() -> None:
    """A file whose first layer was coded by neighbours is decoded to the same weights."""
    decoded = compressed_file.read(VERSION_3)
    assert decoded.network == Network("lenet_300_100", {}, (1, 8, 8), 10, (0.5,), (0.25,), "digits")
    parameters = shared_parameters(decoded.model)
    i = torch.arange(sum(p.numel() for p in parameters))
    assignment = torch.where((i * i + 3 * i) % 31 < 1, 1 + i % 3, 0)
    assignment[: 300 * 64] = torch.from_numpy(discs(300, (1, 8, 8)))
    assert torch.equal(decoded.quantised.assignment, assignment)
    assert decoded.quantised.values.tolist() == [0, -0.5, -0.25, 0.125, 1.5]


VERSION_2, VERSION_3 = (
    Path(__file__).parents[1] / "fixtures" / "codebook" / f"version{version}.codebook" for version in (2, 3)
)


def golden_assignment() -> Tensor:
    """LeNet-300-100 for one pixel and two classes: 31,002 weights, of which every 997th is not zero."""
    index = torch.arange(300 * 2 + 300 * 100 + 100 + 2 * 100 + 2)
    return torch.where(index % 997 == 3, 1 + index % 3, 0)


# --- counts


def test_csr_count_by_hand() -> None:
    """Han's count: 5-bit steps in linear and 8-bit in convolution layers, fillers for long steps, a shared codebook."""
    linear, conv = nn.Linear(100, 1), nn.Conv2d(1, 1, (1, 600))
    parameters = shared_parameters(nn.Sequential(linear, conv))
    index = torch.zeros(100 + 1 + 600 + 1, dtype=torch.int64)
    index[0] = 1  # a step of 1
    index[32] = 2  # a step of 32 fits into 5 bits
    index[65] = 1  # one of 33 needs a filler
    index[101 + 599] = 2  # the conv's last weight: 600 = 256 + 256 + 88, two fillers
    index[101 + 600] = 1  # its bias
    quantised = QuantisedWeights(index, torch.tensor([0.0, 1.0, -1.0, 5.0]), torch.ones(4))
    entries = 3  # the zero, 1 and −1; nothing has 5
    assert csr_bits(quantised, parameters) == 4 * (5 + 2) + (3 + 1) * (8 + 2) + 32 * entries


def test_ratio_by_hand() -> None:
    """The compression ratio is float32 bytes of the shared weights over the file's bytes."""
    assert ratio([torch.zeros(3, 5), torch.zeros(1)], 16) == 4.0


def test_table_adds_up() -> None:
    """The table has one row a shared tensor, and its weights and nonzeros are the network's."""
    like = network("lenet5")
    model, quantised = compressed(like, 0)
    rows = tensor_table(model, quantised, like)
    assert [row.name for row in rows] == [name for name, _ in model.named_parameters()]
    assert sum(row.nonzero for row in rows) == int((quantised.assignment != 0).sum())
    data = compressed_file.encode(model, quantised, like)
    parts = Codebook.of(data).parts
    assert sum(row.coded_bytes for row in rows) == len(parts[5])
    lengths = 5 + (len(parts[4]) > 127)  # each fits into one byte
    assert sum(row.coded_bytes for row in rows) + sum(map(len, parts[:5])) + 13 + lengths == len(data)
