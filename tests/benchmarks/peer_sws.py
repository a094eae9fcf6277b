"""The peer of a soft weight-sharing study, as one writes it after the paper's tutorial and Ray Tune's examples:

    python tests/benchmarks/peer_sws.py --trials 8                              # digits; --concurrent 2, --workers 2
    python tests/benchmarks/peer_sws.py --trials 8 --dataset mnist --data-dir DIR

Every trial trains the network first, the prior is plain autograd on a weights × components tensor, images are
transformed one at a time. Network, epochs, rates and ranges are those of `python -m study.run sws --variant soft`. The
last line printed is the outcome as JSON.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peer_data
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from study.methods.sws.settings import SWSSettings
from study.models import registry
from study.settings import resolve

Report = Callable[[dict[str, Any]], None]


def settings_of(s: SWSSettings, workers: int, device: str = "cpu") -> dict[str, Any]:
    """What is the same in all trials of a study with these settings."""
    names = (
        "network pretrain_epochs epochs codebook_epochs batch_size learning_rate weight_rate precision_rate "
        "codebook_rate sigma seed"
    )
    return {**{name: getattr(s, name) for name in names.split()}, "workers": workers, "device": device}


class MixturePrior(nn.Module):
    """Gaussian mixture over the weights, with Gamma hyper-priors on the precisions (Ullrich et al. 2017).

    Component 0 has mean zero and the fixed proportion `pi_zero`.
    """

    def __init__(self, weights: Tensor, components: int, pi_zero: float, sigma: float) -> None:
        super().__init__()
        low, high = float(weights.min()), float(weights.max())
        self.pi_zero = pi_zero
        self.means = nn.Parameter(torch.linspace(low, high, components - 1))
        self.log_precisions = nn.Parameter(torch.full((components,), -2 * math.log(sigma)))
        self.logits = nn.Parameter(torch.zeros(components - 1))
        self.register_buffer("shape", torch.tensor([5e3] + [250.0] * (components - 1)))
        self.register_buffer("rate", torch.tensor([2.0] + [0.1] * (components - 1)))

    def all_means(self) -> Tensor:
        return torch.cat([self.means.new_zeros(1), self.means])

    def log_joint(self, weights: Tensor) -> Tensor:
        """log πⱼ N(wᵢ | μⱼ, 1/λⱼ): (weights,) → (weights, components)."""
        log_zero = self.logits.new_full((1,), math.log(self.pi_zero))
        log_rest = math.log(1 - self.pi_zero) + torch.log_softmax(self.logits, dim=0)
        log_normal = 0.5 * (
            self.log_precisions
            - math.log(2 * math.pi)
            - self.log_precisions.exp() * (weights.unsqueeze(1) - self.all_means()) ** 2
        )
        return torch.cat([log_zero, log_rest]) + log_normal

    def forward(self, weights: Tensor) -> Tensor:
        """Negative log prior and hyper-prior, nats, summed over weights."""
        hyper = (self.rate * self.log_precisions.exp() - (self.shape - 1) * self.log_precisions).sum()
        return hyper - torch.logsumexp(self.log_joint(weights), dim=1).sum()

    @torch.no_grad()
    def assign(self, weights: Tensor) -> Tensor:
        """The most responsible component of each weight, (weights,)."""
        return self.log_joint(weights).argmax(dim=1)


def train(config: dict[str, Any], data: peer_data.Data, report: Report) -> nn.Module:
    """One trial: pretrain, cluster, quantise."""
    torch.manual_seed(config["seed"])
    model = build(config, data)
    pretrain(model, config, data, report)
    quantise(model, cluster(model, config, data, report), config, data, report)
    return model


def build(config: dict[str, Any], data: peer_data.Data) -> nn.Module:
    # By itself: cloudpickle takes a function that names `torch` and `classes` to hold torch.classes, and fails.
    return registry.build(config["network"], data.shape, data.classes).to(config["device"])


def pretrain(model: nn.Module, config: dict[str, Any], data: peer_data.Data, report: Report) -> None:
    """Phase one: ordinary training on the labels."""
    optimizer = torch.optim.Adam(model.parameters(), lr=config["learning_rate"])

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(model(images), labels)

    def after_epoch(scores: dict[str, float]) -> None:
        report({"sparsity": 0.0} | scores)

    peer_data.fit(model, loss, optimizer, config["pretrain_epochs"], config, data, after_epoch)


def cluster(model: nn.Module, config: dict[str, Any], data: peer_data.Data, report: Report) -> MixturePrior:
    """Phase two: weights and mixture move towards each other; returns the mixture."""
    with torch.no_grad():
        weights = flat(model)
    prior = MixturePrior(weights, config["components"], 1 - config["one_minus_pi_zero"], config["sigma"])
    prior.to(config["device"])
    factor = config["tau"] / len(data.train)
    optimizer = torch.optim.Adam(
        [
            {"params": list(model.parameters()), "lr": config["weight_rate"]},
            {"params": [prior.means], "lr": 1e-4},
            {"params": [prior.log_precisions], "lr": config["precision_rate"]},
            {"params": [prior.logits], "lr": 3e-3},
        ]
    )

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(model(images), labels) + factor * prior(flat(model))

    def after_epoch(scores: dict[str, float]) -> None:
        report({"sparsity": sparsity(prior.assign(flat(model)))} | scores)

    peer_data.fit(model, loss, optimizer, config["epochs"], config, data, after_epoch)
    return prior


def quantise(
    model: nn.Module, prior: MixturePrior, config: dict[str, Any], data: peer_data.Data, report: Report
) -> None:
    """Phase three: every weight becomes its component's mean, and the means are trained on with the weights tied."""
    assignment = prior.assign(flat(model))
    share = sparsity(assignment)
    names, parameters = zip(*model.named_parameters(), strict=True)
    parts = assignment.split([p.numel() for p in parameters])
    tied = {name: part.view_as(p) for name, p, part in zip(names, parameters, parts, strict=True)}
    means = nn.Parameter(prior.means.detach().clone())

    def weights() -> dict[str, Tensor]:
        codebook = torch.cat([means.new_zeros(1), means]).unsqueeze(1)
        return {name: F.embedding(index, codebook).squeeze(-1) for name, index in tied.items()}

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, weights(), images), labels)

    def write() -> None:
        with torch.no_grad():
            for p, value in zip(parameters, weights().values(), strict=True):
                p.copy_(value)

    def after_epoch(scores: dict[str, float]) -> None:
        report({"sparsity": share} | scores)

    optimizer = torch.optim.Adam([means], lr=config["codebook_rate"])
    peer_data.fit(model, loss, optimizer, config["codebook_epochs"], config, data, after_epoch, write)


def flat(model: nn.Module) -> Tensor:
    """All weights and biases as one vector; the networks here have no others."""
    return torch.cat([p.flatten() for p in model.parameters()])


def sparsity(assignment: Tensor) -> float:
    """Share of weights that component 0 takes, in percent."""
    return 100 * float((assignment == 0).float().mean())


def search(
    config: dict[str, Any], data: peer_data.Data, trials: int, cpus: float, folder: Path
) -> list[dict[str, Any]]:
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    space = {
        "tau": tune.loguniform(3e-3, 0.3),
        "components": tune.randint(4, 65),
        "one_minus_pi_zero": tune.loguniform(1e-4, 0.2),
    }
    searcher = OptunaSearch(metric=["val_accuracy", "sparsity"], mode=["max", "max"], seed=config["seed"])
    return peer_data.search(train, config, space, data, trials, cpus, folder, search_alg=searcher)


def main() -> None:
    parser = peer_data.command_line(__doc__)
    parser.add_argument("--dataset", choices=["digits", "mnist"], default="digits")
    parser.add_argument("--data-dir", type=Path)
    same = {"pretrain_epochs": int, "epochs": int, "codebook_epochs": int, "sigma": float, "precision_rate": float}
    for name, kind in same.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, help="as of `python -m study.run sws --variant soft`"
        )
    options = parser.parse_args()
    import ray

    given = {name: getattr(options, name) for name in same if getattr(options, name) is not None}
    config = settings_of(resolve(SWSSettings.of(variant="soft", dataset=options.dataset, **given)), options.workers)
    data = peer_data.load(options.dataset, options.data_dir)
    ray.init(log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        rows = search(config, data, options.trials, max(1, (os.cpu_count() or 1) // options.concurrent), Path(folder))
    ray.shutdown()
    sparse = [row["val_accuracy"] for row in rows if row["sparsity"] >= 95]
    epochs = sum(row["training_iteration"] for row in rows)
    print(json.dumps({"trials": len(rows), "epochs": epochs, "val_accuracy": max(sparse, default=math.nan)}))


if __name__ == "__main__":
    main()
