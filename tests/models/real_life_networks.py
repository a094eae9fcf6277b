"""Small networks with what real ones have, each built as `real_life_networks:name`; all take digits, 1×8×8."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

Outputs = namedtuple("Outputs", ["aux", "logits"])


class Net(nn.Module):
    """A module whose forward pass is a function of it."""

    def __init__(self, forward: Any, **layers: Any) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._forward = forward

    def forward(self, images: Tensor) -> Any:
        return self._forward(self, images)


def conv() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())


def weight_norm(input_shape: Any, classes: int) -> nn.Module:
    body = parametrizations.weight_norm(nn.Linear(64, 32))
    return nn.Sequential(nn.Flatten(), body, nn.ReLU(), nn.Linear(32, classes))


def spectral_norm(input_shape: Any, classes: int) -> nn.Module:
    body = parametrizations.spectral_norm(nn.Linear(64, 32))
    return nn.Sequential(nn.Flatten(), body, nn.ReLU(), nn.Linear(32, classes))


def attention(input_shape: Any, classes: int) -> nn.Module:
    def forward(net: Any, images: Tensor) -> Tensor:
        rows = net.embed(images[:, 0]) + net.position
        rows = torch.cat([net.token.expand(len(rows), -1, -1), rows], dim=1)
        attended: Tensor = net.attention(rows, rows, rows, need_weights=False)[0]
        out: Tensor = net.head(attended[:, 0])
        return out

    return Net(
        forward,
        embed=nn.Linear(8, 16),
        position=nn.Parameter(torch.randn(1, 8, 16) / 4),
        token=nn.Parameter(torch.zeros(1, 1, 16)),
        attention=nn.MultiheadAttention(16, 2, batch_first=True),
        head=nn.Linear(16, classes),
    )


def lstm(input_shape: Any, classes: int) -> nn.Module:
    return _recurrent(nn.LSTM(8, 16, batch_first=True), classes)


def gru(input_shape: Any, classes: int) -> nn.Module:
    return _recurrent(nn.GRU(8, 16, batch_first=True), classes)


def _recurrent(layer: nn.Module, classes: int) -> nn.Module:
    return Net(lambda net, x: net.head(net.layer(x[:, 0])[0][:, -1]), layer=layer, head=nn.Linear(16, classes))


def embedding(input_shape: Any, classes: int) -> nn.Module:
    """Without a linear or convolution layer."""

    def forward(net: Any, images: Tensor) -> Tensor:
        tokens = (images.flatten(1).clamp(-2, 2) * 4 + 8).long()
        out: Tensor = net.embedding(tokens).tanh().mean(dim=1) @ net.head
        return out

    return Net(forward, embedding=nn.Embedding(17, 12), head=nn.Parameter(torch.randn(12, classes)))


def view(input_shape: Any, classes: int) -> nn.Module:
    return Net(lambda net, x: net.head(net.body(x).view(x.size(0), -1)), body=conv(), head=nn.Linear(4 * 64, classes))


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.settings = {"name": "a dict is no tensor"}

    def forward(self, images: Tensor) -> Tensor:
        return images

    def get_extra_state(self) -> Any:
        return self.settings

    def set_extra_state(self, state: Any) -> None:
        self.settings = state


def extra_state(input_shape: Any, classes: int) -> nn.Module:
    return nn.Sequential(Counter(), nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes))


def auxiliary(input_shape: Any, classes: int) -> nn.Module:
    """A named tuple in training mode, logits alone in evaluation mode."""

    def forward(net: Any, images: Tensor) -> Any:
        body = net.body(images).flatten(1)
        return Outputs(net.aux(body), net.head(body)) if net.training else net.head(body)

    return Net(forward, body=conv(), aux=nn.Linear(4 * 64, classes), head=nn.Linear(4 * 64, classes))


def dictionary(input_shape: Any, classes: int) -> nn.Module:
    def forward(net: Any, images: Tensor) -> Any:
        features = net.body(images).flatten(1)
        return {"features": features, "out": net.head(features)}

    return Net(forward, body=conv(), head=nn.Linear(4 * 64, classes))


def mask(input_shape: Any, classes: int) -> nn.Module:
    """Writes what autocast made bfloat16 into a float32 tensor."""

    def forward(net: Any, images: Tensor) -> Tensor:
        body = net.body(images)
        out = torch.zeros(body.shape)
        out[images.expand_as(body) > 0] = body[images.expand_as(body) > 0]
        return net.head(out.flatten(1))  # type: ignore[no-any-return]

    return Net(forward, body=conv(), head=nn.Linear(4 * 64, classes))


def four_dimensions(input_shape: Any, classes: int) -> nn.Module:
    """A parameter of four dimensions that is no convolution's, and that is viewed."""
    return Net(
        lambda net, x: net.body(x).flatten(1) @ net.head.view(4 * 64, -1),
        body=conv(),
        head=nn.Parameter(torch.randn(4, 8, 8, classes) / 16),
    )


def relative_file(input_shape: Any, classes: int) -> nn.Module:
    """Opens a file of the current folder each time that it is built."""
    width = int(Path("width.txt").read_text())
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))


def tied(input_shape: Any, classes: int) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.Linear(64, classes))
    model[3].weight = model[1].weight
    return model


def attention_mask(input_shape: Any, classes: int) -> nn.Module:
    """A buffer of zeros and -inf, as attention has."""
    model = Net(lambda net, x: net.head((x[:, 0] + net.mask.exp()).flatten(1)), head=nn.Linear(64, classes))
    model.register_buffer("mask", torch.full((8, 8), -torch.inf).triu(1))
    return model


def flat(input_shape: Any, classes: int) -> nn.Module:
    """Keeps most of its weights in one vector."""
    return Net(
        lambda net, x: net.head(x.flatten(1) @ net.weights.view(64, 32)),
        weights=nn.Parameter(torch.randn(64 * 32) / 8),
        head=nn.Linear(32, classes),
    )


def vectors(input_shape: Any, classes: int) -> nn.Module:
    """Nothing that can be compressed."""
    return Net(lambda net, x: x.flatten(1)[:, :classes] * net.scale, scale=nn.Parameter(torch.ones(classes)))


def forgetful(input_shape: Any, classes: int) -> nn.Module:
    """Keeps what its answers depend on in no parameter and no buffer."""

    def forward(net: Any, images: Tensor) -> Tensor:
        if net.training:
            net.shift = 5.0
        out: Tensor = net.head(images.flatten(1)) + getattr(net, "shift", 0.0)
        return out

    return Net(forward, head=nn.Linear(64, classes))


def unwritten(input_shape: Any, classes: int) -> nn.Module:
    """A parameter that nothing initialises."""
    return Net(lambda net, x: x.flatten(1) @ net.head, head=nn.Parameter(torch.full((64, classes), torch.nan)))


def broken(input_shape: Any, classes: int) -> nn.Module:
    """Fails in training mode alone, in a layer of its own."""

    def forward(net: Any, images: Tensor) -> Tensor:
        if net.training:
            raise RuntimeError("only in training")
        return images

    return nn.Sequential(Net(forward), nn.Flatten(), nn.Linear(64, classes))
