"""The peer of a distillation study, as one writes it after the tutorials of PyTorch and Ray Tune:

    python tests/benchmarks/peer_kd.py --trials 8                 # digits; --concurrent 2, --workers 2

The teacher runs in every step, images are transformed one at a time, ASHA and Optuna come from Ray Tune. Networks,
epochs, rates and ranges are those of `python -m study.run kd`. The last line printed is the outcome as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peer_data
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from study import models
from study.settings import KD, resolve

Report = Callable[[dict[str, Any]], None]


def settings_of(s: KD, workers: int, device: str = "cpu") -> dict[str, Any]:
    """What is the same in all trials of a study with these settings."""
    return {
        "teacher": s.teacher,
        "teacher_width": s.teacher_width,
        "teacher_epochs": s.teacher_epochs,
        "student": s.student,
        "student_width": s.student_width,
        "epochs": s.epochs,
        "batch_size": s.batch_size,
        "learning_rate": s.learning_rate,
        "weight_decay": s.weight_decay,
        "seed": s.seed,
        "workers": workers,
        "device": device,
    }


def kd_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float) -> Tensor:
    """Hinton et al. (2015): soft targets, scaled by T², and the labels."""
    soft_targets = F.softmax(teacher / temperature, dim=1)
    soft_student = F.log_softmax(student / temperature, dim=1)
    distillation = F.kl_div(soft_student, soft_targets, reduction="batchmean") * temperature**2
    return alpha * distillation + (1 - alpha) * F.cross_entropy(student, labels)


def train(config: dict[str, Any], data: peer_data.Data, report: Report) -> nn.Module:
    """Distil one student from the teacher whose weights lie in `config["teacher_file"]`."""
    teacher = build(config["teacher"], config["teacher_width"], data).to(config["device"])
    teacher.load_state_dict(torch.load(config["teacher_file"]))
    teacher.eval()
    torch.manual_seed(config["seed"])
    student = build(config["student"], config["student_width"], data).to(config["device"])

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            teacher_logits = teacher(images)
        return kd_loss(student(images), teacher_logits, labels, config["temperature"], config["alpha"])

    return fit(student, loss, config, data, report)


def train_teacher(config: dict[str, Any], data: peer_data.Data, report: Report) -> nn.Module:
    """Train the teacher on the labels."""
    torch.manual_seed(config["seed"])
    teacher = build(config["teacher"], config["teacher_width"], data).to(config["device"])
    config = {**config, "epochs": config["teacher_epochs"], "batch_size": max(config["batch_size"], 64)}
    return fit(teacher, lambda images, labels: F.cross_entropy(teacher(images), labels), config, data, report)


def build(network: str, width: float, data: peer_data.Data) -> nn.Module:
    return models.build(network, data.shape, data.classes, **({} if width == 1 else {"width": width}))


def fit(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    config: dict[str, Any],
    data: peer_data.Data,
    report: Report,
) -> nn.Module:
    train_loader, validation_loader = peer_data.loaders(data, config)
    optimizer = torch.optim.AdamW(model.parameters(), config["learning_rate"], weight_decay=config["weight_decay"])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config["epochs"] * len(train_loader))
    for epoch in range(1, config["epochs"] + 1):
        model.train()
        running = 0.0
        for images, labels in train_loader:
            value = loss(images.to(config["device"]), labels.to(config["device"]))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            scheduler.step()
            running += value.item()
        scores = peer_data.evaluate(model, validation_loader, config["device"])
        report({"epoch": epoch, "train_loss": running / len(train_loader), **scores})
    return model


def search(
    config: dict[str, Any], data: peer_data.Data, trials: int, cpus: float, folder: Path, gpus: float = 0
) -> list[dict[str, Any]]:
    """The Tune entry: so many trials of so many CPUs each; returns the last report of each."""
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    def trainable(config: dict[str, Any], data: peer_data.Data) -> None:
        torch.set_num_threads(max(1, int(cpus)))
        train(config, data, tune.report)

    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, data=data), {"cpu": cpus, "gpu": gpus}),
        param_space={**config, "temperature": tune.loguniform(1.0, 20.0), "alpha": tune.uniform(0.0, 1.0)},
        tune_config=tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            search_alg=OptunaSearch(seed=config["seed"]),
            scheduler=ASHAScheduler(max_t=config["epochs"], grace_period=config["epochs"] // 4, reduction_factor=3),
            num_samples=trials,
        ),
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    )
    return [result.metrics for result in tuner.fit()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--concurrent", type=int, default=1, help="trials at one time, which share the cores")
    parser.add_argument("--workers", type=int, default=0, help="processes of each DataLoader")
    options = parser.parse_args()
    import ray

    settings = resolve(KD())
    config, cpus = settings_of(settings, options.workers), max(1, (os.cpu_count() or 1) // options.concurrent)
    per_class = settings.student_examples or 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.set_num_threads(cpus)
        teacher = train_teacher(config, peer_data.load("digits", None, size=32), lambda row: None)
        torch.save(teacher.state_dict(), folder / "teacher.pt")
        ray.init(log_to_driver=False)
        config["teacher_file"] = str(folder / "teacher.pt")
        students = peer_data.load("digits", None, size=32, per_class=per_class)
        rows = search(config, students, options.trials, cpus, folder)
        ray.shutdown()
    best = max(row["val_accuracy"] for row in rows)
    print(json.dumps({"trials": len(rows), "epochs": sum(row["epoch"] for row in rows), "val_accuracy": best}))


if __name__ == "__main__":
    main()
