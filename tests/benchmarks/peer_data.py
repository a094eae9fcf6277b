"""What both peers share, as tutorials have it: torchvision data sets, transforms of one image at a time, a
`DataLoader`, the loop over it, and Ray Tune around that.

The peer is what a user would write instead of this project; `peer_sws.py` and `peer_kd.py` are made of this. Only the
split is ours, so that both train on the same images.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import datasets, transforms

from study.data import registry
from study.data.splits import stratified, subset_per_class

STATISTICS = {
    "digits": ((0.3055,), (0.3759,)),
    "digits at 32": ((0.3055,), (0.3236,)),
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10-jpeg": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}
"""Mean and standard deviation of each channel, as tutorials write them down."""


@dataclass(frozen=True)
class Data:
    """Training and validation part; `shape` is (channels, height, width) of an image as the network sees it."""

    train: Dataset
    validation: Dataset
    shape: tuple[int, int, int]
    classes: int = 10


class Arrays(Dataset):
    """Images held in memory, transformed one at a time as torchvision's MNIST and CIFAR10 do it.

    Args:
        images: (n, height, width), uint8.
        labels: (n,).
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, transform: Any) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def load(
    name: str, root: Path | None, *, size: int = 0, flip: bool = False, per_class: int = 0, most: int = 0, seed: int = 0
) -> Data:
    """A data set by name: digits, mnist, or cifar10-jpeg (a folder of JPEG files, decoded whenever they are read).

    Args:
        size: side to enlarge images to, in pixels; 0 for none.
        flip: mirror half of the training images.
        per_class: training images of each class; 0 for all.
        most: training images, and half as many validation images, that `thinned` keeps; 0 for all.
    """
    resize = [transforms.Resize(size)] if size else []
    normalise = transforms.Normalize(*STATISTICS.get(f"{name} at {size}", STATISTICS[name]))
    plain = transforms.Compose([*resize, transforms.ToTensor(), normalise])
    augmented = transforms.Compose([transforms.RandomHorizontalFlip(), plain]) if flip else plain
    if name == "digits":
        splits, _ = registry.load("digits", None, split_seed=seed)
        train = subset_per_class(splits.train, per_class, seed) if per_class else splits.train
        first: Dataset = Arrays(train.images[:, 0].numpy(), train.labels.numpy(), augmented)
        second: Dataset = Arrays(splits.validation.images[:, 0].numpy(), splits.validation.labels.numpy(), plain)
    elif name == "mnist":
        whole = [datasets.MNIST(root, train=True, transform=t) for t in (augmented, plain)]
        first, second = _split(whole, whole[0].targets, 1 / 12, seed)
    else:
        whole = [datasets.ImageFolder(root / "train", transform=t) for t in (augmented, plain)]
        first, second = _split(whole, torch.tensor(whole[0].targets), 0.1, seed)
    if most:
        first, second = (Subset(d, thinned(len(d), n).tolist()) for d, n in ((first, most), (second, most // 2)))
    return Data(first, second, tuple(first[0][0].shape))


def _split(whole: Sequence[Dataset], labels: torch.Tensor, fraction: float, seed: int) -> tuple[Subset, Subset]:
    """Training part of the first and validation part of the second of two views of one data set."""
    held_out = stratified(labels, fraction, seed, range(10), "peer")
    parts = [mask.nonzero().flatten().tolist() for mask in (~held_out, held_out)]
    return Subset(whole[0], parts[0]), Subset(whole[1], parts[1])


def thinned(examples: int, most: int) -> torch.Tensor:
    """The same `most` of so many examples whenever it is asked, (most,), int64."""
    return torch.randperm(examples, generator=torch.Generator().manual_seed(0))[:most]


def loaders(data: Data, config: dict[str, Any]) -> tuple[DataLoader, DataLoader]:
    """For training and for validation, with `config["workers"]` processes each."""
    common = {
        "num_workers": config["workers"],
        "persistent_workers": config["workers"] > 0,
        "pin_memory": config["device"] == "cuda",
    }
    train = DataLoader(data.train, batch_size=config["batch_size"], shuffle=True, **common)
    return train, DataLoader(data.validation, batch_size=512, **common)


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader, device: str) -> dict[str, float]:
    """Validation loss (nats per example) and accuracy (%)."""
    model.eval()
    loss, correct, seen = 0.0, 0, 0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        logits = model(images)
        loss += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(dim=1) == labels).sum().item()
        seen += len(labels)
    return {"val_loss": loss / seen, "val_accuracy": 100 * correct / seen}


def fit(
    model: nn.Module,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    epochs: int,
    config: dict[str, Any],
    data: Data,
    after_epoch: Callable[[dict[str, Any]], None],
    before_evaluation: Callable[[], None] = lambda: None,
) -> None:
    """The training loop."""
    train_loader, validation_loader = loaders(data, config)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(train_loader))
    for _ in range(epochs):
        model.train()
        running = 0.0
        for images, labels in train_loader:
            value = loss(images.to(config["device"]), labels.to(config["device"]))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            scheduler.step()
            running += value.item()
        before_evaluation()
        scores = evaluate(model, validation_loader, config["device"])
        after_epoch({"train_loss": running / len(train_loader), **scores})


def search(
    train: Callable[..., Any],
    config: dict[str, Any],
    space: dict[str, Any],
    data: Data,
    trials: int,
    cpus: float,
    folder: Path,
    **how: Any,
) -> list[dict[str, Any]]:
    """The Tune entry: so many trials of so many CPUs each; returns the last report of each.

    Args:
        how: searcher, scheduler and what they look at, as `TuneConfig` takes them.
    """
    from ray import tune

    def trainable(config: dict[str, Any], data: Data) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        train(config, data, tune.report)

    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, data=data), {"cpu": cpus}),
        param_space={**config, **space},
        tune_config=tune.TuneConfig(num_samples=trials, **how),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    return [result.metrics for result in tuner.fit()]


def command_line(description: str | None) -> argparse.ArgumentParser:
    """What both commands take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--concurrent", type=int, default=1, help="trials at one time, which share the cores")
    parser.add_argument("--workers", type=int, default=0, help="processes of each DataLoader")
    return parser
