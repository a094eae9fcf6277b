"""torchvision's published weights: its own download code, torch's cache, and what goes wrong, in one line."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import torch
from servers import serving
from torchvision.models import SqueezeNet1_1_Weights, get_model

from study.data import registry as data_registry
from study.data.splits import Splits
from study.errors import UserError
from study.methods.magnitude.settings import MagnitudeSettings
from study.models import published_weights
from study.normalisation import IMAGENET, Constants
from study.pipeline.initial_weights import fresh_layers, lines_about, load_initial_weights, with_normalisation
from study.settings import Settings, resolve
from study.training.network import Training

NETWORK = "squeezenet1_1"
"""The smallest network of torchvision.models: 5 MB."""
SETTINGS = resolve(MagnitudeSettings(network=NETWORK, weights="default"))


@pytest.fixture(scope="module")
def digits() -> Splits:
    return data_registry.load("digits", None, size=32)[0]


@pytest.fixture(scope="module")
def content() -> bytes:
    """A file as torchvision publishes them, of a network with 1,000 classes."""
    torch.manual_seed(5)
    buffer = io.BytesIO()
    torch.save(get_model(NETWORK, weights=None).state_dict(), buffer)
    return buffer.getvalue()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's cache, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def server(content: bytes) -> Iterator[tuple[str, list[str]]]:
    """Address of a server on this machine that has the file, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404 if "missing" in self.path else 200)
            self.end_headers()
            self.wfile.write(content)

    with serving(Handler) as address:
        yield address, asked


def published_at(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let torchvision name another address for the weights."""
    member = SqueezeNet1_1_Weights.DEFAULT
    monkeypatch.setattr(member, "_value_", type(member.value)(url, member.transforms, member.meta))


def check_loaded(settings: Settings, digits: Splits, content: bytes) -> None:
    """All layers but the last one are those of the file, under our names of a network for grey images."""
    weights = load_initial_weights(settings, digits)
    assert weights is not None
    theirs = torch.load(io.BytesIO(content), weights_only=True)
    ours = weights.part("network/").tensors()
    assert ours.keys() == {f"1.{name}" for name in theirs if not name.startswith("classifier.1.")}
    assert all(torch.equal(tensor, theirs[name[2:]]) for name, tensor in ours.items())
    assert fresh_layers(weights, "network", Training(NETWORK), digits) == ["1.classifier.1"]
    assert "starts fresh and is not trained first" in lines_about(settings, digits, weights)[-1]


def test_weights_come_from_torchs_cache(home: Path, digits: Splits, content: bytes) -> None:
    """A file that is there is taken; the head starts fresh, since the classes differ."""
    home.mkdir(parents=True)
    (home / Path(SqueezeNet1_1_Weights.DEFAULT.url).name).write_bytes(content)
    check_loaded(SETTINGS, digits, content)


def test_weights_are_downloaded_once(
    home: Path, digits: Splits, content: bytes, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the address that torchvision names, with the hash in it, into torch's cache."""
    address, asked = server
    name = f"squeezenet-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    published_at(monkeypatch, f"{address}/{name}")
    for _ in range(2):
        check_loaded(SETTINGS, digits, content)
    assert asked == [f"/{name}"] and (home / name).read_bytes() == content


@pytest.mark.parametrize(
    ("file", "reason"), [("squeezenet-00000000.pth", "invalid hash value"), ("missing-00000000.pth", "HTTP Error 404")]
)
def test_a_failed_download_is_one_line(
    file: str, reason: str, home: Path, digits: Splits, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the flag, the address and where to put the file; nothing is left in the cache."""
    published_at(monkeypatch, f"{server[0]}/{file}")
    with pytest.raises(UserError) as refused:
        load_initial_weights(SETTINGS, digits)
    line = str(refused.value)
    assert line.startswith(f"--weights default: {server[0]}/{file} cannot be downloaded (") and reason in line
    assert line.endswith(f"or put the file to {home / file}") and line.isprintable()
    assert not [path.name for path in home.glob("*") if path.name.endswith(".pth")]


def test_no_network_and_a_damaged_file_are_one_line(
    home: Path, digits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that nobody listens on; and a file of the cache that must be removed."""
    published_at(monkeypatch, "http://127.0.0.1:9/squeezenet-00000000.pth")
    with pytest.raises(UserError, match="^--weights default: http://127.0.0.1:9/.* cannot be downloaded \\("):
        load_initial_weights(SETTINGS, digits)
    (home / "squeezenet-00000000.pth").write_bytes(b"half of it")
    with pytest.raises(UserError, match="^--weights default: .*/squeezenet-00000000.pth is damaged .*; remove it, "):
        load_initial_weights(SETTINGS, digits)


@pytest.mark.parametrize(
    ("network", "name", "line"),
    [
        ("lenet5", "DEFAULT", "lenet5 is no network of torchvision.models"),
        ("resnet20", "DEFAULT", "resnet20 is no network of torchvision.models"),
        ("resnet50", "V3", "resnet50 has no weights of that name; give IMAGENET1K_V1 or IMAGENET1K_V2 or DEFAULT"),
    ],
)
def test_weights_that_do_not_exist(network: str, name: str, line: str) -> None:
    """A network that is not torchvision's, or a name that it does not have."""
    with pytest.raises(ValueError, match=f"^{line}"):
        published_weights.published(network, name)


def test_published_weights_bring_their_constants(digits: Splits) -> None:
    """ImageNet's, the mean of three on grey images; `--normalise` wins. Two networks are built without the layer that
    torchvision puts in front of them, and take its constants."""
    assert published_weights.constants_of("resnet18", "DEFAULT") == IMAGENET
    assert published_weights.constants_of("torchvision:inception_v3", "DEFAULT") == Constants((0.5,), (0.5,))
    data = with_normalisation(SETTINGS, digits)
    assert data.mean == pytest.approx([0.449]) and data.std == pytest.approx([0.226])
    assert data.train_mean == digits.mean
    assert with_normalisation(SETTINGS.changed(normalise="data"), digits) is digits
    assert with_normalisation(SETTINGS.changed(normalise="0.2/0.3"), digits).mean == (0.2,)
