"""Study folders made up for tests: the shape of real ones, in milliseconds, with nothing trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.stats.pareto_front import finished, pareto_front
from analysis.stats.standard_error import standard_error
from analysis.stats.summary import choose, summarise
from study.records import columns, paths, study_folder

CREATED = "2026-11-24T11:00:00+00:00"


def meta_of(kind: str, num_samples: int) -> dict[str, Any]:
    """A plausible `study.json`."""
    kd = kind == "kd"
    network = {"name": "lenet_300_100", "options": {}, "parameters": 266610}
    teacher = {"name": "vgg13", "options": {"width": 0.25}, "parameters": 592_906}
    student = {"name": "minivgg", "options": {"width": 0.125}, "parameters": 25_418}
    digits = {
        "name": "digits",
        "title": "Digits (scikit-learn, 8×8)",
        "shape": [1, 32, 32],
        "train": 1077,
        "validation": 360,
        "test": 360,
        "note": "Only 20 labelled images a class train the student.",
    }
    mnist = {
        "name": "mnist",
        "title": "MNIST",
        "shape": [1, 28, 28],
        "train": 50000,
        "validation": 10000,
        "test": 10000,
    }
    kd_space = {
        "temperature": {"type": "float", "low": 1.0, "high": 20.0, "log": True},
        "alpha": {"type": "float", "low": 0.0, "high": 1.0, "log": False},
    }
    sws_space = {
        "tau": {"type": "float", "low": 1e-3, "high": 1.0, "log": True},
        "components": {"type": "int", "low": 4, "high": 64, "log": False},
        "one_minus_pi_zero": {"type": "float", "low": 1e-4, "high": 0.2, "log": True},
    }
    settings = {
        "dataset": "digits" if kd else "mnist",
        "seed": 0,
        "epochs": 20,
        "num_samples": num_samples,
        "searcher": "tpe",
        "scheduler": "asha" if kd else "none",
        "max_concurrent": 2,
    }
    meta: dict[str, Any] = {
        "kind": kind,
        "name": f"{kind}-{settings['dataset']}",
        "command": f"python -m study.run {kind} --num-samples {num_samples}",
        "settings": settings,
        "data": {**(digits if kd else mnist), "classes": [str(i) for i in range(10)], "split_seed": 0},
        "models": {"teacher": teacher, "student": student} if kd else {"network": network},
        "objectives": {"val_accuracy": "max"} if kd else {"val_accuracy": "max", "sparsity": "max"},
        "space": kd_space if kd else sws_space,
        "baselines": {"student alone": {"alpha": 0.0}, "label smoothing": {"alpha": 0.0, "label_smoothing": 0.1}}
        if kd
        else {"paper mixture": {"tau": 0.05, "components": 17, "one_minus_pi_zero": 1e-3}},
        "seed": 0,
        "versions": {"python": "3.11.7", "torch": "2.14.1", "ray": "2.60.0", "optuna": "5.0.0"},
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "device": "cpu, 2 threads, AMD EPYC",
        "created": CREATED,
    }
    if not kd:
        meta["counts_over"] = "Weights and biases of all linear layers: 266,610 values."
    return meta


def states_of(rng: np.random.Generator, trials: int, pruned: float) -> list[str]:
    draws = rng.random(trials)
    return ["failed" if d < 0.04 else "pruned" if d < 0.04 + pruned else "complete" for d in draws]


def write_kd(
    folder: Path, trials: int = 64, seed: int = 0, epochs: int = 20, confirm: bool = True, fresh: int = 0
) -> Path:
    """A finished KD study: accuracy peaks near T = 4, alpha = 0.8, on a validation part of 360 images.

    Args:
        fresh: seeds with which the baselines and the best trials were trained again.
    """
    rng = np.random.default_rng(seed)
    temperature, alpha = np.exp(rng.uniform(0, np.log(20), trials)), rng.uniform(0, 1, trials)
    bump = np.exp(-((np.log(temperature / 4)) ** 2) / 0.9) * np.exp(-((alpha - 0.8) ** 2) / 0.12)
    accuracy = np.round((93.4 + 3.2 * bump + rng.normal(0, 0.45, trials)) * 3.6) / 3.6
    rows: list[dict[str, Any]] = [
        {"baseline": "teacher", "val_accuracy": 98.8889},
        {"baseline": "student alone", "val_accuracy": 94.1667},
        {"baseline": "label smoothing", "val_accuracy": 94.7222, "label_smoothing": 0.1},
    ]
    rows = [{"trial_id": f"b{i:03d}", "state": "complete", "reason": "", **row} for i, row in enumerate(rows)]
    for i, state in enumerate(states_of(rng, trials, 0.3)):
        rows.append(
            {
                "trial_id": f"t{i:03d}",
                "state": state,
                "baseline": "",
                "temperature": temperature[i],
                "alpha": alpha[i],
                "reason": "training loss became NaN in epoch 3" if state == "failed" else "",
                "val_accuracy": np.nan if state == "failed" else accuracy[i],
            }
        )
    frame, history = finish_rows(rows, rng, epochs, [("train", epochs)])
    best = finished(frame).nlargest(3, "val_accuracy")
    confirmed = confirm_rows(frame, rng, best.head(1), best, fresh, []) if confirm else None
    return write(folder, meta_of("kd", trials), frame, history, confirmed)


def write_sws(
    folder: Path, trials: int = 64, seed: int = 0, epochs: int = 40, confirm: bool = True, fresh: int = 0
) -> Path:
    """A finished SWS study on "MNIST": the larger tau, the sparser and, slowly and then fast, the worse.

    Args:
        fresh: seeds with which the baselines and five members of the front, the headline trial among them, were
            trained again.
    """
    rng = np.random.default_rng(seed)
    tau = np.exp(rng.uniform(np.log(1e-3), np.log(1.0), trials))
    components = rng.integers(4, 65, trials)
    slack = np.exp(rng.uniform(np.log(1e-4), np.log(0.2), trials))  # 1 − π₀
    pressure = np.log10(tau) + 0.35 * np.log10(1e-2 / slack) + rng.normal(0, 0.12, trials)
    nonzero = np.clip(100 / (1 + np.exp(2.1 * (pressure + 3.1))), 0.15, 100)
    lost = 0.05 + 0.9 / nonzero**1.2 + 2.5 / components + np.abs(rng.normal(0, 0.12, trials))
    accuracy = np.round(np.clip(98.3 - lost, 10, 98.3), 2)
    rows: list[dict[str, Any]] = [
        {"baseline": "uncompressed", "val_accuracy": 98.2, "sparsity": 0.0, "accuracy_drop": 0.0},
        {
            "baseline": "paper mixture",
            "tau": 0.05,
            "components": 17,
            "one_minus_pi_zero": 1e-3,
            "val_accuracy": 97.3,
            "sparsity": 96.1,
            "accuracy_drop": 0.9,
            "nonzero_ratio": 25.6,
            "entropy_ratio": 96.0,
        },
    ]
    rows = [{"trial_id": f"b{i:03d}", "state": "complete", "reason": "", **row} for i, row in enumerate(rows)]
    for i, state in enumerate(states_of(rng, trials, 0.0)):
        row = {
            "trial_id": f"t{i:03d}",
            "state": state,
            "baseline": "",
            "tau": tau[i],
            "components": components[i],
            "one_minus_pi_zero": slack[i],
            "reason": "the mixture collapsed in epoch 9" if state == "failed" else "",
        }
        scores = {
            "val_accuracy": accuracy[i],
            "accuracy_drop": round(98.2 - accuracy[i], 2),
            "sparsity": round(100 - nonzero[i], 3),
            "nonzero_ratio": 100 / nonzero[i],
            "entropy_ratio": 350 / nonzero[i],
            "codebook_values_used": int(components[i] * 0.8),
        }
        rows.append(row if state == "failed" else {**row, **scores})
    frame, history = finish_rows(rows, rng, epochs, [("cluster", epochs - 5), ("retrain", 5)])
    metrics = ["sparsity", "nonzero_ratio", "entropy_ratio"]
    objectives = {"val_accuracy": "max", "sparsity": "max"}
    front = pareto_front(finished(frame), objectives).sort_values("sparsity")
    answer, _ = choose(front, objectives, 98.2, standard_error(98.2, 10_000))
    spread = front["trial_id"].iloc[[round(i * (len(front) - 1) / 3) for i in range(4)]]
    again = front[front["trial_id"].isin([*spread, "" if answer is None else answer["trial_id"]])]
    confirmed = confirm_rows(frame, rng, front, again, fresh, metrics) if confirm else None
    return write(folder, meta_of("sws", trials), frame, history, confirmed)


def rename(folder: Path, old: str, new: str) -> Path:
    """Give a hyperparameter of a written study another name, everywhere."""
    trials = study_folder.read_frame(folder / paths.TRIALS, columns.TRIAL_COLUMNS)
    study_folder.write_frame(folder / paths.TRIALS, trials.rename(columns={old: new}))
    meta = study_folder.read_meta(folder)
    study_folder.write_meta(folder, {**meta, "space": {new if k == old else k: v for k, v in meta["space"].items()}})
    return folder


def finish_rows(
    rows: list[dict[str, Any]], rng: np.random.Generator, epochs: int, phases: list[tuple[str, int]]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add the columns every trial has, and a history that climbs to each trial's final score; one that was pruned has
    come as far as the others had by then."""
    names = [name for name, length in phases for _ in range(length)]
    history: list[dict[str, Any]] = []
    for row in rows:
        length = {"complete": epochs, "pruned": epochs // 3, "failed": 3}[row["state"]]
        final = row.get("val_accuracy", 60.0)
        final = 60.0 if np.isnan(final) else final
        row.update(
            seconds=round(float(rng.uniform(4, 9)), 2),
            epochs=length,
            val_loss=round((100 - final) / 30, 4),
            train_loss=round((100 - final) / 50, 4),
        )
        for epoch in range(1, length + 1):
            share = 1 - np.exp(-5 * epoch / epochs)
            noise = rng.normal(0, 0.3)
            ended = epoch == length and row["state"] != "pruned"
            accuracy = final if ended else min(final * (0.35 + 0.65 * share) + noise, 100)
            point = {
                "trial_id": row["trial_id"],
                "epoch": epoch,
                "phase": names[epoch - 1],
                "train_loss": 2.3 * (1 - share) + 0.02,
                "val_loss": 2.3 * (1 - share) + 0.1,
                "val_accuracy": accuracy,
            }
            if "sparsity" in row:
                point["sparsity"] = row["sparsity"] * share**0.5
            history.append(point)
        if row["state"] == "pruned":
            row["val_accuracy"] = accuracy
    return pd.DataFrame(rows), pd.DataFrame(history)


def confirm_rows(
    trials: pd.DataFrame,
    rng: np.random.Generator,
    front: pd.DataFrame,
    again: pd.DataFrame,
    fresh: int,
    metrics: list[str],
) -> pd.DataFrame:
    """Test rows as the confirm stage writes them: baselines and front as the search left them (seed 0), and with the
    seeds 1 to `fresh` the baselines and the trials `again`.

    A seed moves all configurations alike, and a bit each for itself. What was chosen for its score loses 0.3 points.
    """
    baselines = trials[trials["baseline"] != ""]
    shared = {seed: rng.normal(0, 0.3) for seed in range(1, fresh + 1)}
    rows = []
    for seed in range(fresh + 1):
        for row in pd.concat([baselines, again if seed else front]).to_dict("records"):
            luck = shared[seed] + rng.normal(0, 0.1) - (0.0 if row["baseline"] else 0.3) if seed else 0.0
            value = min(row["val_accuracy"] + luck, 100.0)
            sizes = {m: row[m] * (1 + (rng.normal(0, 1e-3) if seed else 0)) for m in metrics}
            rows.append(
                {
                    "trial_id": row["trial_id"],
                    "baseline": row["baseline"],
                    "seed": seed,
                    "val_accuracy": round(value, 3),
                    "test_accuracy": round(value - rng.uniform(0.1, 0.4), 3),
                    **{m: min(v, 100.0) if m == "sparsity" else v for m, v in sizes.items()},
                }
            )
    return pd.DataFrame(rows)


def write(
    folder: Path, meta: dict[str, Any], trials: pd.DataFrame, history: pd.DataFrame, confirmed: pd.DataFrame | None
) -> Path:
    study_folder.write_meta(folder, meta)
    study_folder.write_frame(folder / paths.TRIALS, trials)
    study_folder.write_frame(folder / paths.HISTORY, history)
    if confirmed is not None:
        study_folder.write_frame(folder / paths.CONFIRMED, confirmed)
    return folder


def write_bare(folder: Path, kind: str, state: str, trials: int = 3) -> Path:
    """A study that has no score yet: `none` has no table at all, otherwise every trial is in `state`."""
    meta = meta_of(kind, 64)
    study_folder.write_meta(folder, meta)
    if state != "none":
        values = {name: domain["high"] for name, domain in meta["space"].items()}
        reason = "out of memory" if state == "failed" else ""
        rows = [
            {
                "trial_id": f"t{i:03d}",
                "state": state,
                "reason": reason,
                "baseline": "",
                **values,
                "seconds": 1.0,
                "epochs": 0,
            }
            for i in range(trials)
        ]
        study_folder.write_frame(folder / paths.TRIALS, pd.DataFrame(rows))
    return folder


def write_sized(folder: Path, kind: str, trials: int = 40, seed: int = 0, confirm: bool = True, fresh: int = 0) -> Path:
    """A finished study on the digits of `write_kd`, of kind sws, magnitude or kd_sws, whose trials have files.

    The smaller the file, the less accurate; sws is best in the middle, magnitude where files are large, and kd_sws
    where they are small, since its students are small as well.
    """
    rng = np.random.default_rng(seed)
    bytes_ = np.round(np.exp(rng.uniform(np.log(600), np.log(60_000), trials)))
    best_at, height = {"sws": (9.0, 97.6), "magnitude": (10.5, 97.9), "kd_sws": (7.6, 96.6)}[kind]
    lost = 0.55 * np.clip(best_at - np.log(bytes_), 0, None) ** 2 + 0.05 * np.log(bytes_)
    accuracy = np.round((height - lost - np.abs(rng.normal(0, 0.5, trials))) * 3.6) / 3.6
    sparsity = np.clip(100 - bytes_ / 900, 0, 99.9)
    first = "teacher" if kind == "kd_sws" else "uncompressed"
    meta = {**meta_of("kd", trials), **sized_meta(kind, trials)}
    rows: list[dict[str, Any]] = [
        {"baseline": first, "val_accuracy": 98.6111, "sparsity": 0.0, "file_bytes": 1_066_440},
        {"baseline": "paper settings", "val_accuracy": 96.1111, "sparsity": 92.0, "file_bytes": 21_000},
    ]
    rows = [{"trial_id": f"b{i:03d}", "state": "complete", "reason": "", **row} for i, row in enumerate(rows)]
    space = meta["space"]
    for i, state in enumerate(states_of(rng, trials, 0.0)):
        values = {name: rng.uniform(domain["low"], domain["high"]) for name, domain in space.items()}
        row = {
            "trial_id": f"t{i:03d}",
            "state": state,
            "baseline": "",
            **values,
            "reason": "the mixture collapsed in epoch 9" if state == "failed" else "",
        }
        scores = {
            "val_accuracy": accuracy[i],
            "sparsity": sparsity[i],
            "file_bytes": bytes_[i],
            "compression_ratio": 1_066_440 / bytes_[i],
        }
        rows.append(row if state == "failed" else {**row, **scores})
    frame, history = finish_rows(rows, rng, 12, [("cluster", 12)])
    front = pareto_front(finished(frame), meta["objectives"]).sort_values("file_bytes")
    metrics = ["sparsity", "file_bytes", "compression_ratio"]
    confirmed = confirm_rows(frame, rng, front, front.tail(3), fresh, metrics) if confirm else None
    return write(folder, meta, frame, history, confirmed)


def sized_meta(kind: str, trials: int) -> dict[str, Any]:
    """What of `study.json` differs from that of a KD study on the same data."""
    share = {"type": "float", "low": 0.0, "high": 1.0, "log": False}
    kd_names = ["student_width", "temperature", "alpha"] if kind == "kd_sws" else []
    names = ["density", "codebook_size"] if kind == "magnitude" else [*kd_names, "tau", "components"]
    models = {"network": {"name": "lenet_300_100", "options": {}, "parameters": 266_610}}
    if kind == "kd_sws":
        models = {role: meta_of("kd", trials)["models"][role] for role in ("teacher", "student")}
    lengths = {"pretrain_epochs": 40, "epochs": 50, "codebook_epochs": 20}
    return {
        "kind": kind,
        "name": f"{kind}-digits",
        "command": f"python -m study.run {kind} --num-samples {trials}",
        "objectives": {"val_accuracy": "max", "sparsity": "max"}
        if kind == "sws"
        else {"val_accuracy": "max", "file_bytes": "min"},
        "space": dict.fromkeys(names, share),
        "baselines": {"paper settings": {}},
        "models": models,
        "settings": {"dataset": "digits", "seed": 0, "num_samples": trials, **lengths},
        "data": {**meta_of("kd", trials)["data"], "note": ""},
    }


def write_four(root: Path, fresh: int = 0) -> list[Path]:
    """A study of each kind on the same data and split."""
    sized = [
        write_sized(root / f"{kind}-digits", kind, seed=i, fresh=fresh)
        for i, kind in enumerate(("sws", "magnitude", "kd_sws"))
    ]
    return [write_kd(root / "kd-digits", epochs=6, fresh=fresh), *sized]


def write_trace(folder: Path, trial_id: str, epochs: int = 6, components: int = 5, weights: int = 30_000) -> Path:
    """The trace of a trial whose weights fall into a mixture, as `study.artifacts.weight_trace` leaves it."""
    rng = np.random.default_rng(0)
    before = rng.normal(0, 0.1, weights)
    values = np.linspace(-0.3, 0.3, components - 1)
    goal = np.where(np.abs(before) < 0.15, 0.0, values[np.abs(before[:, None] - values).argmin(axis=1)])
    edges, index = np.linspace(-0.9, 0.9, 302), np.arange(0, weights, weights // 500)
    arrays: dict[str, Any] = {
        "edges": edges,
        "index": index,
        "layers": ["first.weight", "<b>last</b>.weight"],
        "layer_weights": [weights - 1000, 1000],
    }
    phases = ["before", *["cluster"] * epochs, "quantised"]
    for i, phase in enumerate(phases):
        share = min(i / epochs, 1.0)
        now = goal if phase == "quantised" else (1 - share) * before + share * (goal + rng.normal(0, 0.004, weights))
        arrays |= {f"counts/{i}": np.histogram(now, edges)[0], f"sample/{i}": now[index].astype(np.float16)}
        if phase != "quantised":
            arrays |= {
                f"means/{i}": np.concatenate([[0.0], values]),
                f"sigmas/{i}": np.full(components, 0.05 * (1 - share) + 0.005),
                f"proportions/{i}": np.array([0.9, *[0.1 / (components - 1)] * (components - 1)]),
            }
    last = goal[-1000:]
    arrays |= {
        "epoch": [*range(epochs + 1), epochs + 2],
        "phase": phases,
        "codebook": np.concatenate([[0.0], values]),
        "layer_nonzero": [int((goal[:-1000] != 0).sum()), int((last != 0).sum())],
        "occupancy": [int((goal == v).sum()) for v in [0.0, *values]],
    }
    path = paths.trace_of(folder, trial_id)
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def write_pruned_trace(folder: Path, trial_id: str, epochs: int = 6, power: float = 1.0) -> Path:
    """The trace of a trial whose weights are pinned at zero step by step, by a score w² v̂ᵖ; by magnitude for p = 0."""
    path = write_trace(folder, trial_id, epochs)
    with np.load(path) as file:
        arrays = {name: array for name, array in file.items() if not name.startswith(("means", "sigmas", "propor"))}
    sizes = np.asarray(arrays["layer_weights"])
    shares = np.linspace(1, 0, epochs + 1)[:, None] ** 3
    counts = np.round(arrays["layer_nonzero"] ** (1 - shares) * sizes**shares).astype(int)
    arrays["phase"] = np.asarray(
        ["before", *["prune"] * (epochs // 2), *["quantise"] * (epochs - epochs // 2), "quantised"]
    )
    arrays |= {f"nonzero/{i}": count for i, count in enumerate(counts)}
    if power:
        rng = np.random.default_rng(1)
        magnitude, gradient = np.exp(rng.normal(-4, 1, 2000)), np.exp(rng.normal(-7, 2, 2000))
        scores = magnitude**2 * gradient ** (2 * power)
        survives = scores > np.median(scores)
        thresholds = [scores[survives].min(), np.median(magnitude)]
        disputed = int((survives & (magnitude < thresholds[1])).sum())
        arrays |= {"score_magnitude": magnitude, "score_gradient": gradient, "score_survives": survives}
        arrays |= {"score_counts": [1000, 29_000, disputed, 3000], "score_power": power, "score_thresholds": thresholds}
    np.savez_compressed(path, **arrays)
    return path


def write_layers(folder: Path, layers: int = 8) -> Path:
    """What a study of `write_sized` measured besides: latency of every trial, and what compression did to each layer of
    the headline trial and how much each bears. The deeper a layer, the smaller and the more of it is pruned."""
    trials = study_folder.read_frame(folder / paths.TRIALS, columns.TRIAL_COLUMNS)
    ratios = np.where(trials["baseline"] == "", np.linspace(0.3, 0.9, len(trials)), 1.0)
    study_folder.write_frame(folder / paths.TRIALS, trials.assign(latency_ratio=ratios, latency_ms=ratios / 50))
    best = summarise(study_folder.load(folder)).best
    assert best is not None
    names = [f"block.{i}.weight" for i in range(layers)]
    sizes = [20_000 // (i + 1) for i in range(layers)]
    rows: list[dict[str, Any]] = [
        {"tensor": name, "tensor_shape": f"100×{size // 100}", "weights": size, "compressed": 1, "values": 8,
         "nonzero": size // (i + 2), "coded_bytes": size / (3 * i + 9), "units": 100, "units_left": 100 - 5 * i}
        for i, (name, size) in enumerate(zip(names, sizes, strict=True))
    ]  # fmt: skip
    rows.append({"tensor": "norm.weight", "tensor_shape": "500", "weights": 500, "compressed": 0})
    study_folder.write_rows(paths.layers_of(folder, str(best["trial_id"])), rows, columns.LAYER_COLUMNS)
    bears = [{"tensor": "", "remaining": 100.0, "val_accuracy": 98.0}]
    bears += [
        {"tensor": name, "remaining": share, "val_accuracy": 97 - (i + 1) * 5 / share}
        for i, name in enumerate(names)
        for share in (50.0, 10.0, 2.0)
    ]
    study_folder.write_rows(folder / paths.SENSITIVITY, bears, columns.SENSITIVITY_COLUMNS)
    return folder


def write_knowledge(folder: Path, classes: int = 10) -> Path:
    """What a made-up teacher says of one image of each class: its own class first, the next one second."""
    rng = np.random.default_rng(0)
    logits = 9 * np.eye(classes) + 5 * np.roll(np.eye(classes), 1, axis=1) + rng.normal(0, 0.3, (classes, classes))
    path = paths.trace_of(folder, "teacher")
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        path,
        images=rng.integers(0, 256, (classes, 1, 32, 32), dtype=np.uint8),
        labels=np.arange(classes),
        logits=logits.astype(np.float32),
    )
    return path


def write_traced(folder: Path, kind: str, trials: int = 64, epochs: int = 50) -> Path:
    """A study of kind kd or sws with all that a report can show of it: fresh seeds, what the teacher says, and the
    traces of the front."""
    made = (write_kd if kind == "kd" else write_sws)(folder, trials, epochs=epochs, fresh=5)
    if kind == "kd":
        return write_knowledge(made).parents[1]
    for trial_id in summarise(study_folder.load(made)).front["trial_id"]:
        write_trace(made, trial_id, epochs=epochs - 5)
    return made
