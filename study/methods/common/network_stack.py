"""Networks of one architecture as one module, with an axis of members in front of every tensor."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from study.compression.quantised_weights import shared_parameters
from study.data.images import normalise
from study.data.splits import Splits
from study.training.loop import Score


class Stack(nn.Module):
    """Networks of one architecture as one: every parameter and buffer with an axis of members in front.

    Attributes:
        tensors: all of them, by the names that they have in one network.
        shared: names of those that `shared_parameters` gives, in their order.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = len(networks)
        self._network = [copy.deepcopy(networks[0])]  # in a list, so that it is not a submodule
        states = [_tensors(n) for n in networks]
        names = {p: name for name, p in networks[0].named_parameters()}
        self.shared = [names[p] for p in shared_parameters(networks[0])]
        self.tensors: dict[str, Tensor] = {}
        for name, tensor in states[0].items():
            stacked = torch.stack([state[name].detach() for state in states])
            trained = isinstance(tensor, nn.Parameter)
            self.tensors[name] = nn.Parameter(stacked, requires_grad=tensor.requires_grad) if trained else stacked

    def parameters(self, recurse: bool = True) -> list[nn.Parameter]:  # type: ignore[override]
        """Each parameter of all members, with an axis of members in front."""
        return [t for t in self.tensors.values() if isinstance(t, nn.Parameter)]

    def train(self, mode: bool = True) -> Stack:
        self._network[0].train(mode)
        return super().train(mode)

    def forward(self, images: Tensor) -> Tensor:
        """(members, batch, channels, height, width), or (batch, …) for all of them → (members, batch, classes)."""
        return self.through(self.tensors, images)

    def through(self, tensors: Mapping[str, Tensor], images: Tensor) -> Tensor:
        """The same with other weights."""

        def one(tensors: Mapping[str, Tensor], images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            own = dict(tensors)
            logits = functional_call(self._network[0], own, (images,))
            return logits, {name: tensor for name, tensor in own.items() if tensor is not tensors[name]}

        all_members = vmap(one, in_dims=(0, None if images.dim() == 4 else 0), randomness="different")
        outputs: tuple[Tensor, dict[str, Tensor]] = all_members(dict(tensors), images)
        logits, replaced = outputs
        with torch.no_grad():  # buffers that the network replaces by new tensors
            for name, tensor in replaced.items():
                self.tensors[name].copy_(tensor)
        return logits

    def with_weights(self, weights: Tensor, others_learn: bool = False) -> dict[str, Tensor]:
        """All tensors, with those of `shared` taken from (members, weights).

        Args:
            others_learn: whether the other parameters have gradients, too.
        """
        shapes = {name: self.tensors[name].shape for name in self.shared}
        own = {name: part.reshape(shapes[name]) for name, part in zip(shapes, self.split(weights), strict=True)}
        frozen = {name: part.detach() for name, part in own.items() if not self.tensors[name].requires_grad}
        others = {name: tensor if others_learn else tensor.detach() for name, tensor in self.tensors.items()}
        return {**others, **own, **frozen}

    def split(self, weights: Tensor) -> Sequence[Tensor]:
        """Views of (members, weights), one for each tensor of `shared`: (members, weights of the tensor)."""
        return weights.split(self.sizes(), dim=1)

    def sizes(self) -> list[int]:
        """Weights of each tensor of `shared`, of one network."""
        return [self.tensors[name][0].numel() for name in self.shared]

    @torch.no_grad()
    def scores(self, tensors: Mapping[str, Tensor], data: Splits, at_once: int = 1 << 15) -> list[Score]:
        """`loop.evaluate` of every member on the validation part, with these tensors.

        Args:
            at_once: images of all members together in one forward pass.
        """
        self.eval()
        part = data.validation
        loss, right = torch.zeros(2, self.members, dtype=torch.float64, device=part.labels.device)
        size = max(1, at_once // self.members)
        for images, labels in zip(part.images.split(size), part.labels.split(size), strict=True):
            logits = self.through(tensors, normalise(images, data.mean, data.std, len(data.shape)))
            expected = labels.expand(self.members, -1)
            loss += F.cross_entropy(logits.transpose(1, 2), expected, reduction="none").sum(dim=1)
            right += (logits.argmax(dim=2) == expected).sum(dim=1)
        table = torch.stack([loss, 100 * right]) / len(part)
        return [Score(*pair) for pair in zip(*table.tolist(), strict=True)]

    def weights(self) -> Tensor:
        """The tensors of `shared` as one matrix, (members, weights)."""
        return torch.cat([self.tensors[name].flatten(1) for name in self.shared], dim=1)

    @torch.no_grad()
    def keep(self, places: Sequence[int]) -> None:
        """Go on with the members in these places alone. Their tensors are new ones with the same values."""
        self.members = len(places)
        for name, tensor in self.tensors.items():
            kept = tensor.detach()[list(places)]
            trained = isinstance(tensor, nn.Parameter)
            self.tensors[name] = nn.Parameter(kept, requires_grad=tensor.requires_grad) if trained else kept

    @torch.no_grad()
    def member(self, index: int) -> nn.Module:
        """A network with the weights of one member; the next call overwrites it."""
        for name, tensor in _tensors(self._network[0]).items():
            tensor.copy_(self.tensors[name][index])
        return self._network[0]


class WithWeights(nn.Module):
    """A stack whose shared weights are computed whenever it runs.

    Args:
        weights: gives them, (members, weights).
        others_learn: whether the other parameters have gradients, too.
    """

    def __init__(self, stack: Stack, weights: Callable[[], Tensor], others_learn: bool = False) -> None:
        super().__init__()
        self._stack, self._weights, self._others_learn = [stack], weights, others_learn  # the stack is no submodule

    def forward(self, images: Tensor) -> Tensor:
        """(members, batch, channels, height, width) → (members, batch, classes)."""
        stack = self._stack[0]
        return stack.through(stack.with_weights(self._weights(), self._others_learn), images)


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; those that are tied, once."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}
