"""Ours against the peer, what a user would write instead (`peer_sws.py`, `peer_kd.py`), in turns in one process tree:

    python tests/benchmarks/against_peer.py --cases kd-digits,sws-digits             # one trial each, no data needed
    python tests/benchmarks/against_peer.py --cases sws-epoch,kd-epoch --data-dir DIR
    python tests/benchmarks/against_peer.py --cases kd-study,sws-study --trials 64 --concurrent 1,2

| case | what is timed |
|---|---|
| sws-epoch | --epochs of clustering LeNet-300-100 on MNIST (DIR/MNIST), from one trained network |
| kd-epoch | --epochs of MiniVGG under VGG-13 on --images of CIFAR-10 (DIR/cifar10-jpeg), mirrored at random |
| kd-digits, sws-digits, sws-mnist | a whole trial; ours begins with the pretrained network, or the teacher's logits |
| kd-study, sws-study, mnist-study | a study of --trials as its command, from start to exit |

Ours is the trial that a study runs: trace, checkpoint after every epoch, evaluation of what quantising now would give,
compressed file. Each side of the first five has a process of its own; ratios are of the two runs of one turn, their
spread is from the least to the most over turns. The peer runs with each number of `DataLoader` processes in --workers.
CPU seconds are those of all processes of a side. Peak memory is of the side's process, beyond what importing torch took
and without those that load images; of a study it is the most that all its processes held at one time, pages that they
share counted once.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peer_data
import peer_kd
import peer_sws
import psutil
import torch

from study.artifacts.checkpoints import Checkpoint
from study.compression import compressed_file
from study.data import registry
from study.data.splits import Splits, subset_per_class
from study.methods.kd import student as kd_student
from study.methods.kd.settings import KDSettings
from study.methods.kd.student import fit_student
from study.methods.sws import weight_sharing
from study.methods.sws.settings import SWSSettings
from study.records import study_folder
from study.settings import resolve
from study.training import distillation
from study.training.distillation import Targets
from study.training.network import Training, build_network, fit_teacher, load_network

Rows = list[dict[str, Any]]
Run = Callable[[], Rows]
"""One timed run; gives what it reported, one row an epoch."""

SWS_VALUES = {"tau": 0.05, "components": 17, "one_minus_pi_zero": 1e-3}
KD_VALUES = {"temperature": 4.0, "alpha": 0.9}
ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Side:
    """Who runs: `workers` is None for ours, else the processes of each of the peer's loaders."""

    workers: int | None

    @property
    def name(self) -> str:
        return "ours" if self.workers is None else f"peer, {self.workers} workers"


# --- what is timed: what a study does once is prepared first, in a process of its own, and read by both sides


def sws_settings(dataset: str, o: argparse.Namespace) -> SWSSettings:
    """Those of a study; of MNIST's for a case of its clustering alone, which needs no well trained network."""
    settings = resolve(SWSSettings.of(variant="soft", dataset="digits" if dataset == "digits" else "mnist"))
    if dataset == "clustering":
        return settings.changed(epochs=o.epochs, pretrain_epochs=2)
    return settings


def pretraining(s: SWSSettings) -> Training:
    return Training(s.network, {}, s.pretrain_epochs or 0, s.batch_size or 0, s.learning_rate, 0.0, "none", s.seed)


def prepare_sws(dataset: str, o: argparse.Namespace) -> None:
    settings = sws_settings(dataset, o)
    splits = registry.load(settings.dataset, o.data_dir)[0].to(o.device)
    torch.save(
        weight_sharing.pretrain(pretraining(settings), splits, lambda row: None).state_dict(), o.work / "network.pt"
    )


def ours_sws(dataset: str, o: argparse.Namespace) -> Run:
    settings = sws_settings(dataset, o)
    splits = registry.load(settings.dataset, o.data_dir)[0].to(o.device)
    start, training = torch.load(o.work / "network.pt"), pretraining(settings)
    names = {f.name for f in dataclasses.fields(weight_sharing.Hparams)} & set(vars(settings)) - {
        "temperature",
        "alpha",
    }
    hparams = weight_sharing.Hparams(
        tau=SWS_VALUES["tau"],
        components=int(SWS_VALUES["components"]),
        pi_zero=1 - SWS_VALUES["one_minus_pi_zero"],
        **{name: getattr(settings, name) for name in names},
    )

    def run() -> Rows:
        model, checkpoint = load_network(start, training, splits), Checkpoint(o.work / "trial.pt", {})
        if dataset == "clustering":
            loss = distillation.accuracy_loss(Targets(), 1.0, 0.0)
            ones = torch.ones(len(list(model.parameters())), device=o.device)
            weight_sharing.cluster(model, ones, hparams, splits, loss, checkpoint.write, checkpoint.progress)
            # Of the weights as they are: what the peer reports while it clusters.
            return [{**row, "val_accuracy": row["unquantised_val_accuracy"]} for row in checkpoint.rows]
        quantised, _ = weight_sharing.fit(model, hparams, splits, checkpoint.write, None, checkpoint.progress)
        compressed_file.encode(model, quantised, compressed_file.network_of(training.network, {}, splits))
        return checkpoint.rows

    return run


def theirs_sws(dataset: str, workers: int, o: argparse.Namespace) -> Run:
    settings = sws_settings(dataset, o)
    config = {**peer_sws.settings_of(settings, workers, o.device), **SWS_VALUES}
    images = peer_data.load(settings.dataset, o.data_dir)

    def run() -> Rows:
        rows: Rows = []
        if dataset == "clustering":
            network = peer_sws.build(config, images)
            network.load_state_dict(torch.load(o.work / "network.pt"))
            peer_sws.cluster(network, config, images, rows.append)
        else:
            peer_sws.train(config, images, rows.append)
        return rows

    return run


def kd_settings(name: str, o: argparse.Namespace) -> KDSettings:
    if name == "digits":
        return resolve(KDSettings())
    return dataclasses.replace(resolve(KDSettings.of(dataset="cifar10")), epochs=o.epochs)


def kd_splits(name: str, o: argparse.Namespace) -> Splits:
    if name == "digits":
        return registry.load("digits", None, size=32)[0].to(o.device)
    whole = registry.load("folder", o.data_dir / name)[0]
    fewer = {"train": o.images, "validation": o.images // 2}
    parts = {what: getattr(whole, what)[peer_data.thinned(len(getattr(whole, what)), n)] for what, n in fewer.items()}
    return dataclasses.replace(whole, **parts).to(o.device)


def training(s: KDSettings, network: str, width: float | None, epochs: int | None, batch_size: int) -> Training:
    options = {} if width == 1 else {"width": width}
    return Training(network, options, epochs or 0, batch_size, s.learning_rate, s.weight_decay, s.augment or "none")


def student_hparams(s: KDSettings) -> kd_student.Hparams:
    return kd_student.Hparams(
        student=s.student, student_width=s.student_width or 1.0, epochs=s.epochs or 0, batch_size=s.batch_size or 0,
        learning_rate=s.learning_rate, weight_decay=s.weight_decay, augment=s.augment or "none", **KD_VALUES,
    )  # fmt: skip


def teaching(s: KDSettings) -> Training:
    return training(s, s.teacher, s.teacher_width, s.teacher_epochs, max(s.batch_size or 0, 64))


def prepare_kd(name: str, o: argparse.Namespace) -> None:
    """The teacher; untrained for the JPEG files, where what it says does not matter to the time."""
    make = functools.partial(fit_teacher, on_epoch=lambda row: None) if name == "digits" else build_network
    torch.save(make(teaching(kd_settings(name, o)), kd_splits(name, o)).state_dict(), o.work / "teacher.pt")


def ours_kd(name: str, o: argparse.Namespace) -> Run:
    settings, splits = kd_settings(name, o), kd_splits(name, o)
    teacher = load_network(torch.load(o.work / "teacher.pt"), teaching(settings), splits)
    if settings.student_examples:
        seen = subset_per_class(splits.train, settings.student_examples, settings.seed)
        splits = dataclasses.replace(splits, train=seen)
    hparams = student_hparams(settings)
    began = time.perf_counter()
    targets = Targets(distillation.teacher_logits(teacher, splits.train, splits, hparams.augment))
    say(f"the teacher's logits, once a study: {time.perf_counter() - began:.1f} s")

    def run() -> Rows:
        checkpoint = Checkpoint(o.work / "trial.pt", {})
        fit_student(hparams, splits, targets, checkpoint.write, checkpoint.progress)
        return checkpoint.rows

    return run


def theirs_kd(name: str, workers: int, o: argparse.Namespace) -> Run:
    settings = kd_settings(name, o)
    config = {**peer_kd.settings_of(settings, workers, o.device), **KD_VALUES, "teacher_file": o.work / "teacher.pt"}
    if name == "digits":
        images = peer_data.load(name, None, size=32, per_class=settings.student_examples or 0)
    else:
        images = peer_data.load(name, o.data_dir / name, flip=settings.augment == "flip", most=o.images)

    def run() -> Rows:
        rows: Rows = []
        peer_kd.train(config, images, rows.append)
        return rows

    return run


SWS_CASES = {"sws-epoch": "clustering", "sws-digits": "digits", "sws-mnist": "mnist"}
KD_CASES = {"kd-epoch": "cifar10-jpeg", "kd-digits": "digits"}


def prepare(case: str, o: argparse.Namespace) -> None:
    torch.set_num_threads(o.threads)
    prepare_kd(KD_CASES[case], o) if case in KD_CASES else prepare_sws(SWS_CASES[case], o)


def trial(case: str, side: Side, o: argparse.Namespace) -> Run:
    what = {**SWS_CASES, **KD_CASES}[case]
    if side.workers is None:
        return ours_kd(what, o) if case in KD_CASES else ours_sws(what, o)
    return (theirs_kd if case in KD_CASES else theirs_sws)(what, side.workers, o)


def child(pipe: Any, case: str, side: Side, o: argparse.Namespace) -> None:
    """Make one side of a case ready, then run and time it whenever the parent says so."""
    # A spawned process would spawn the loaders' processes, too, and each would import torch again.
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(o.threads)
    libraries = psutil.Process().memory_info().rss
    run = trial(case, side, o)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory counts from here
    pipe.send("ready")
    while pipe.recv():
        wall, cpu = time.perf_counter(), cpu_seconds()
        rows = run()
        timed = {"wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}
        last = {k: rows[-1][k] for k in ("val_accuracy", "sparsity") if k in rows[-1]}
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - libraries
        pipe.send({"epochs": len(rows), **last, **timed, "peak": peak / 2**20})


def cpu_seconds() -> float:
    """Of this process and of those that loaded images for it, which have ended by now."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def in_turns(case: str, o: argparse.Namespace) -> dict[Side, list[dict[str, float]]]:
    """Every side's runs, the sides taking turns."""
    spawn, sides = multiprocessing.get_context("spawn"), [Side(None), *map(Side, o.workers)]
    first = spawn.Process(target=prepare, args=(case, o))
    first.start()
    first.join()
    if first.exitcode:
        raise SystemExit(f"{case}: could not be prepared; its error is above")
    pipes: dict[Side, Any] = {}
    for side in sides:
        pipes[side], theirs = spawn.Pipe()
        spawn.Process(target=child, args=(theirs, case, side, o)).start()
        theirs.close()
        pipes[side].recv()
    runs: dict[Side, list[dict[str, float]]] = {side: [] for side in sides}
    for _ in range(o.repeats):
        for side in sides:
            pipes[side].send(True)
            runs[side].append(pipes[side].recv())
            say(f"{case}, {side.name}: {rounded(runs[side][-1])}")
    for pipe in pipes.values():
        pipe.send(False)
    return runs


# --- whole studies

STUDIES = {"kd-study": ("kd", "digits"), "sws-study": ("sws", "digits"), "mnist-study": ("sws", "mnist")}


def study_command(case: str, side: Side, concurrent: int, folder: Path, o: argparse.Namespace) -> list[str]:
    kind, dataset = STUDIES[case]
    where = ["--dataset", "mnist", "--data-dir", str(o.data_dir)] if dataset == "mnist" else []
    where += o.both.split()
    if side.workers is not None:
        peer = Path(__file__).with_name(f"peer_{kind}.py")
        counts = ["--trials", str(o.trials), "--concurrent", str(concurrent), "--workers", str(side.workers)]
        return [sys.executable, str(peer), *counts, *where]
    cpus = max(1, (os.cpu_count() or 1) // concurrent)
    counts = ["--num-samples", str(o.trials), "--max-concurrent", str(concurrent), "--cpus-per-trial", str(cpus)]
    soft = ["--variant", "soft"] if kind == "sws" else []  # what the peer does
    command = [sys.executable, "-m", "study.run", kind, *soft, *counts, *where]
    return [*command, "--results-dir", str(folder), "--name", "study"]


def run_study(case: str, side: Side, concurrent: int, o: argparse.Namespace) -> dict[str, float]:
    """A whole study as its command; a fresh folder, so nothing is in the cache."""
    with tempfile.TemporaryDirectory(dir=o.work) as name, (o.work / "study.log").open("w+") as log:
        folder, began = Path(name), time.perf_counter()
        command = study_command(case, side, concurrent, folder, o)
        process = psutil.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        cpu, peak = watch(process)
        wall = time.perf_counter() - began
        log.seek(0)
        text = log.read()
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{text[-2000:]}")
        found = json.loads(text.splitlines()[-1]) if side.workers is not None else outcome(folder / "study")
    return {**found, "wall": wall, "cpu": cpu, "peak": peak, "rate": 3600 * o.trials / wall}


def outcome(folder: Path) -> dict[str, float]:
    """Of our study's searched trials, as the peers print theirs: best accuracy, at 95 % sparsity where there is one."""
    trials = study_folder.load(folder).trials
    trials = trials[trials["baseline"].fillna("") == ""]
    good = trials[trials["sparsity"] >= 95] if "sparsity" in trials else trials
    best = float(good["val_accuracy"].max())
    return {"trials": len(trials), "epochs": int(trials["epochs"].sum()), "val_accuracy": best}


def watch(process: psutil.Popen) -> tuple[float, float]:
    """Wait for a process to end; CPU seconds of it and all its descendants, and the most memory of them all (MB)."""
    used: dict[tuple[int, float], float] = {}
    peak = 0.0
    for look in itertools.count():
        if process.poll() is not None:
            break
        held = 0.0
        weighs = look % 10 == 0  # the pages of a dozen processes take a core half a second, which the study wants
        for p in [process, *process.children(recursive=True)]:
            try:
                times = p.cpu_times()
                used[p.pid, p.create_time()] = times.user + times.system
                held += p.memory_full_info().pss if weighs else 0
            except psutil.Error:  # it has just ended
                continue
        peak = max(peak, held)
        time.sleep(0.5)
    return sum(used.values()), peak / 2**20


# --- the tables


def table(case: str, runs: dict[Side, list[dict[str, float]]]) -> str:
    """One line for each side, ratios of the runs of one turn to ours as median (least–most)."""
    ours = next(iter(runs.values()))
    lines = []
    for side, found in runs.items():
        cells = [case, side.name, middle(found, "wall", 1), middle(found, "cpu", 1)]
        cells.append(f"{statistics.median(r['wall'] / r['epochs'] for r in found):.3f}")
        cells.append(middle(found, "rate", 0))
        cells += ["", ""] if found is ours else [ratio(found, ours, key) for key in ("wall", "cpu")]
        cells += [middle(found, "peak", 0), middle(found, "val_accuracy", 2), middle(found, "sparsity", 2)]
        cells.append(middle(found, "epochs", 0))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


HEADINGS = (
    "case", "side", "wall, s", "CPU, s", "wall an epoch, s", "trials an hour", "peer / ours, wall", "peer / ours, CPU",
    "peak, MB", "validation accuracy, %", "sparsity, %", "epochs",
)  # fmt: skip


def middle(found: list[dict[str, float]], key: str, digits: int) -> str:
    return f"{statistics.median(r[key] for r in found):.{digits}f}" if key in found[0] else ""


def ratio(theirs: list[dict[str, float]], ours: list[dict[str, float]], key: str) -> str:
    pairs = [a[key] / b[key] for a, b in zip(theirs, ours, strict=True)]
    return f"{statistics.median(pairs):.2f} ({min(pairs):.2f}–{max(pairs):.2f})"


def rounded(found: dict[str, float]) -> dict[str, float]:
    return {k: round(v, 2) for k, v in found.items()}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="kd-digits,sws-digits")
    parser.add_argument("--data-dir", type=Path, help="holds MNIST/ and cifar10-jpeg/")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=numbers, default=[0, 2], help="processes of the peer's loaders, each a side")
    parser.add_argument("--epochs", type=int, default=2, help="of sws-epoch and kd-epoch")
    parser.add_argument("--images", type=int, default=1000, help="of kd-epoch; half as many for validation")
    parser.add_argument("--threads", type=int, default=1, help="of each side, outside studies")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="of all but studies")
    parser.add_argument("--trials", type=int, default=8, help="of a study")
    parser.add_argument("--both", default="", help='flags of both commands of a study, as in "--epochs 2"')
    parser.add_argument("--concurrent", type=numbers, default=[1, 2], help="trials of a study at one time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        options.work = Path(work)
        lines = []
        for case in options.cases.split(","):
            if case not in STUDIES:
                lines.append(table(case, in_turns(case, options)))
                continue
            for concurrent in options.concurrent:
                sides = [Side(None), *map(Side, options.workers)]
                runs: dict[Side, list[dict[str, float]]] = {side: [] for side in sides}
                for _ in range(options.repeats):
                    for side in sides:
                        runs[side].append(run_study(case, side, concurrent, options))
                        say(f"{case}, {side.name}, {concurrent} at a time: {rounded(runs[side][-1])}")
                lines.append(table(f"{case}, {options.trials} trials, {concurrent} at a time", runs))
    print("| " + " | ".join(HEADINGS) + " |\n" + "|---" * len(HEADINGS) + "|\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
