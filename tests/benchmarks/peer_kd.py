"""The peer of a distillation study, as one writes it after the tutorials of PyTorch and Ray Tune:

    python tests/benchmarks/peer_kd.py --trials 8                 # digits; --concurrent 2, --workers 2

The teacher runs in every step, images are transformed one at a time, ASHA and Optuna come from Ray Tune. Networks,
epochs, rates and ranges are those of `python -m study.run kd`. The last line printed is the outcome as JSON.
"""

from __future__ import annotations

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

from study.methods.kd.settings import KDSettings
from study.models import registry
from study.settings import resolve

Report = Callable[[dict[str, Any]], None]


def settings_of(s: KDSettings, workers: int, device: str = "cpu") -> dict[str, Any]:
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
    return registry.build(network, data.shape, data.classes, **({} if width == 1 else {"width": width}))


def fit(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    config: dict[str, Any],
    data: peer_data.Data,
    report: Report,
) -> nn.Module:
    optimizer = torch.optim.AdamW(model.parameters(), config["learning_rate"], weight_decay=config["weight_decay"])
    peer_data.fit(model, loss, optimizer, config["epochs"], config, data, report)
    return model


def search(
    config: dict[str, Any], data: peer_data.Data, trials: int, cpus: float, folder: Path
) -> list[dict[str, Any]]:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    space = {"temperature": tune.loguniform(1.0, 20.0), "alpha": tune.uniform(0.0, 1.0)}
    return peer_data.search(
        train, config, space, data, trials, cpus, folder,
        metric="val_accuracy",
        mode="max",
        search_alg=OptunaSearch(seed=config["seed"]),
        scheduler=ASHAScheduler(max_t=config["epochs"], grace_period=config["epochs"] // 4, reduction_factor=3),
    )  # fmt: skip


def main() -> None:
    options = peer_data.command_line(__doc__).parse_args()
    import ray

    settings = resolve(KDSettings())
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
    best, epochs = max(row["val_accuracy"] for row in rows), sum(row["training_iteration"] for row in rows)
    print(json.dumps({"trials": len(rows), "epochs": epochs, "val_accuracy": best}))


if __name__ == "__main__":
    main()
