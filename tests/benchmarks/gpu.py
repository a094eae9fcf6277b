"""What one GPU does in a second of training: steps recorded or not, in bfloat16 or not, packed or one after another.

    python tests/benchmarks/gpu.py --data-dir DIR                 # DIR holds MNIST/ and cifar10-jpeg/
    python tests/benchmarks/gpu.py --data-dir DIR --cases packed --members 1,8,64
    python tests/benchmarks/gpu.py --cases students --members 1,8,64        # needs no data
    python tests/benchmarks/gpu.py --cases students --members 1,4 --device cpu --examples 256 --width 0.125   # a try

Neither Ray nor Optuna is needed. Milliseconds of a step are those of the training loop alone, without evaluation; the
last table says which kernels a step of MiniVGG consists of, and how far they are from what the matrix units could do.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from study.compression.quantised_weights import flatten, shared_parameters
from study.data import registry
from study.data.splits import Part, Splits
from study.errors import TrialFailed
from study.methods.common.packed_training import Member
from study.methods.kd import packed as packed_students
from study.methods.kd.student import Hparams as Student
from study.methods.kd.student import fit_student
from study.methods.sws import packed, weight_sharing
from study.methods.sws.mixture import Mixture, negative_log_likelihood
from study.methods.sws.weight_sharing import Hparams
from study.training import cuda_graphs, distillation
from study.training.batches import Batch, EpochBatches
from study.training.distillation import Targets
from study.training.network import Training, build_network
from study.training.precision import logits

HPARAMS = Hparams(tau=0.05, components=17, pi_zero=0.999, epochs=20)


def milliseconds(call: Callable[[], Any], calls: int, rounds: int = 5) -> float:
    """Of one call; the median of rounds of so many, after two rounds that do not count."""
    found = []
    for _ in range(rounds + 2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
        found.append(1000 * (time.perf_counter() - began) / calls)
    return statistics.median(found[2:])


def stepper(
    model: nn.Module, splits: Splits, loss: Any, optimiser: Any, batch_size: int, augment: str, recorded: bool
) -> Callable[[], None]:
    """A step of `training.train` on ever new batches."""
    views = EpochBatches(splits, augment)
    views.shuffle(torch.Generator().manual_seed(0))
    recorder = cuda_graphs.CudaGraphStep
    cuda_graphs.CudaGraphStep = recorder if recorded else lambda step, _: step  # type: ignore
    run = cuda_graphs.make_step(model, views, loss, optimiser, torch.zeros((), device="cuda"))
    cuda_graphs.CudaGraphStep = recorder  # type: ignore
    batches = itertools.cycle(views.split(batch_size))
    rates = [float(group["lr"]) for group in optimiser.param_groups]

    def step() -> None:
        cuda_graphs.set_rates(optimiser, rates)
        run(next(batches))

    model.train()
    return step


def prior() -> None:
    print("\n| mixture prior, value and gradients, 266,610 weights | ms |\n|---|---|")
    torch.manual_seed(0)
    for components in (17, 64):
        weights = (0.05 * torch.randn(266_610, device="cuda")).requires_grad_()
        mixture = [
            torch.linspace(-0.3, 0.3, components, device="cuda").requires_grad_(),
            torch.full((components,), 6.0, device="cuda").requires_grad_(),
            torch.log_softmax(torch.zeros(components, device="cuda"), 0).requires_grad_(),
        ]

        def plain(w: Tensor, mu: Tensor, log_precision: Tensor, log_pi: Tensor) -> Tensor:
            z = -0.5 * log_precision.exp() * (w[:, None] - mu) ** 2 + 0.5 * log_precision + log_pi
            return -torch.logsumexp(z, 1).sum()

        arguments = [weights, *mixture]
        ways: dict[str, Callable[..., Tensor]] = {"one kernel": negative_log_likelihood, "plain autograd": plain}
        ways["plain, compiled"] = torch.compile(plain)
        for name, way in ways.items():

            def both(way: Callable[..., Tensor] = way, arguments: list[Tensor] = arguments) -> None:
                torch.autograd.grad(way(*arguments), arguments)

            both()
            print(f"| {components} components, {name}: as it is, recorded | {milliseconds(both, 20):.3f}, "
                  f"{milliseconds(recorded(both), 20):.3f} |", flush=True)  # fmt: skip


def recorded(call: Callable[[], Any]) -> Callable[[], None]:
    """The same as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def clustering_loss(model: nn.Module, mixture: Mixture, splits: Splits) -> Any:
    weights, plain = shared_parameters(model), distillation.accuracy_loss(Targets(), 1.0, 0.0)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return plain(model, batch) + HPARAMS.tau / len(splits.train) * mixture.complexity(flatten(weights))

    return loss


def clustering(splits: Splits) -> None:
    """A step of LeNet-300-100 under the prior."""
    print("\n| LeNet-300-100 on MNIST, batch 256, under the prior | ms a step |\n|---|---|")
    for record, tf32 in ((False, False), (True, False), (True, True)):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        model = build_network(Training("lenet_300_100"), splits)
        mixture = weight_sharing.mixture_over(flatten(shared_parameters(model)), HPARAMS)
        optimiser = weight_sharing.adam(list(model.parameters()), mixture, HPARAMS)
        step = stepper(model, splits, clustering_loss(model, mixture, splits), optimiser, 256, "none", record)
        name = f"{'recorded' if record else 'step by step'}{', TF32' if tf32 else ''}"
        print(f"| {name} | {milliseconds(step, 100):.3f} |", flush=True)
        if record and not tf32:
            profile(step, 20)
    torch.backends.cuda.matmul.allow_tf32 = False


def networks(splits: Splits, precisions: list[str], compiled: bool) -> None:
    """A step of VGG-13 and of MiniVGG, and how far it is from the rate of the matrix units."""
    square = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    peak = 2 * 8192**3 / milliseconds(lambda: square @ square, 5) / 1e9
    print(f"\nA product of two 8192 × 8192 bfloat16 matrices: {peak:.0f} TFLOP/s.")
    print("\n| network, batch | arithmetic | ms a step | TFLOP/s | share of that product's | s an epoch |\n"
          + "|---" * 6 + "|")  # fmt: skip
    for name, batch_size in (("minivgg", 128), ("vgg13", 128), ("minivgg", 1024)):
        variants = [(p, recorded, False) for p in precisions for recorded in (False, True)]
        for precision, record, compile_ in variants + [("bfloat16", True, True)] * compiled:
            model, loss = build_network(Training(name), splits), taught(splits, precision)
            images = torch.randn(batch_size, *splits.shape, device="cuda")
            with FlopCounterMode(display=False) as counter:
                logits(model, images, precision).sum().backward()
            work = counter.get_total_flops()
            optimiser = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
            trained: Any = torch.compile(model) if compile_ else model
            step = stepper(trained, splits, loss, optimiser, batch_size, "flip", record)
            ms = milliseconds(step, 50, 3)
            way = f"{precision}, {'recorded' if record else 'step by step'}{', compiled' if compile_ else ''}"
            print(f"| {name}, {batch_size} | {way} | {ms:.3f} | {work / ms / 1e9:.1f} | {work / ms / 1e9 / peak:.1%} | "
                  f"{ms * len(splits.train) / batch_size / 1000:.2f} |", flush=True)  # fmt: skip
            if name == "minivgg" and batch_size == 128 and way == "bfloat16, recorded":
                profile(step, 14)


def taught(splits: Splits, precision: str) -> Any:
    targets = Targets(torch.randn(2, len(splits.train), 10, device="cuda"))
    return distillation.accuracy_loss(targets, 4.0, 0.9, precision=precision)


def side_by_side(splits: Splits, counts: list[int], each: int = 500) -> None:
    """MiniVGG several times in one process, each in a thread with a stream of its own: kernels of different networks
    share the GPU."""
    print("\n| MiniVGG at one time, batch 128, bfloat16 | ms a step of all | steps a second |\n|---|---|---|")
    for count in counts:
        ready, times = threading.Barrier(count + 1), []

        def work(ready: threading.Barrier = ready) -> None:
            with torch.cuda.stream(torch.cuda.Stream()):
                model = build_network(Training("minivgg"), splits)
                optimiser = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
                step = stepper(model, splits, taught(splits, "bfloat16"), optimiser, 128, "flip", True)
                for _ in range(20):
                    step()
                torch.cuda.current_stream().synchronize()
                ready.wait()
                for _ in range(each):
                    step()
                torch.cuda.current_stream().synchronize()
            ready.wait()

        threads = [threading.Thread(target=work) for _ in range(count)]
        for thread in threads:
            thread.start()
        for _ in range(2):
            ready.wait()
            times.append(time.perf_counter())
        for thread in threads:
            thread.join()
        seconds = times[1] - times[0]
        print(f"| {count} | {1000 * seconds / each:.3f} | {count * each / seconds:.0f} |", flush=True)


def profile(step: Callable[[], None], most: int) -> None:
    """Which kernels a step is made of."""
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    steps = 20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    events = [e for e in seen.key_averages() if e.self_device_time_total > 0]
    total, count = sum(e.self_device_time_total for e in events), sum(e.count for e in events)
    print(f"\nA step: {count / steps:.0f} kernels, {total / steps:.0f} µs in them.")
    for e in sorted(events, key=lambda e: -e.self_device_time_total)[:most]:
        print(f"  {e.self_device_time_total / steps:7.1f} µs {e.count / steps:5.1f} × {e.key[:90]}")
    print(flush=True)


def configurations(count: int, epochs: int, codebook_epochs: int) -> list[Hparams]:
    """So many, at random from the ranges that `search_spaces/sws.py` searches."""
    generator = torch.Generator().manual_seed(0)
    return [
        dataclasses.replace(
            HPARAMS,
            tau=float(10 ** (-2.5 + 1.9 * torch.rand((), generator=generator))),
            components=int(torch.randint(4, 65, (), generator=generator)),
            pi_zero=1 - float(10 ** (-4 + 3.3 * torch.rand((), generator=generator))),
            epochs=epochs,
            codebook_epochs=codebook_epochs,
        )
        for _ in range(count)
    ]


def pretrained(splits: Splits) -> nn.Module:
    """LeNet-300-100 after three epochs."""
    how = Training("lenet_300_100", epochs=3, batch_size=256, learning_rate=1e-3)
    return weight_sharing.pretrain(how, splits, lambda row: None)


def alone(network: nn.Module, hparams: Hparams, splits: Splits) -> dict[str, float] | None:
    """A trial's final metrics; None if it failed."""
    try:
        return weight_sharing.fit(copy.deepcopy(network), hparams, splits, lambda row: None)[1]
    except TrialFailed:
        return None


def packs(splits: Splits, counts: list[int], epochs: int, codebook_epochs: int) -> None:
    """Whole trials of soft weight-sharing, packed and one after another."""
    network = pretrained(splits)
    hparams = configurations(max(counts), epochs, codebook_epochs)
    print(f"\n| trials of {epochs} + {codebook_epochs} epochs | one after another, s a trial | packed, s a trial "
          "| gain | most difference in validation accuracy, sparsity | peak, GB |\n" + "|---" * 6 + "|")  # fmt: skip
    torch.cuda.synchronize()
    began, some = time.perf_counter(), min(4, max(counts))
    singles = [alone(network, h, splits) for h in hparams[:some]]
    torch.cuda.synchronize()
    single = (time.perf_counter() - began) / some
    for count in counts:
        torch.cuda.reset_peak_memory_stats()
        members = [Member(h, lambda row: None) for h in hparams[:count]]
        torch.cuda.synchronize()
        began = time.perf_counter()
        found = packed.fit([copy.deepcopy(network) for _ in members], members, splits)
        torch.cuda.synchronize()
        each = (time.perf_counter() - began) / count
        pairs = [(f[2], a) for f, a in zip(found, singles, strict=False) if a and not isinstance(f, Exception)]
        off = [max((abs(f[k] - a[k]) for f, a in pairs), default=0.0) for k in ("val_accuracy", "sparsity")]
        failed = [f for f in found if isinstance(f, Exception)]
        print(f"| {count} ({len(failed)} failed) | {single:.2f} | {each:.3f} | {single / each:.1f} × | "
              f"{off[0]:.2f}, {off[1]:.2f} | {torch.cuda.max_memory_allocated() / 1e9:.1f} |", flush=True)  # fmt: skip
        for failure in failed[:2]:
            print(repr(failure))


def random_images(examples: int, device: str) -> Splits:
    """Noise in the shape of CIFAR-10, with a tenth as many validation images."""
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> Part:
        images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return Part(images, torch.randint(0, 10, (count,), generator=generator))

    classes = tuple(map(str, range(10)))
    splits = Splits("noise", "Noise", classes, part(examples), part(examples // 10), (0.5,) * 3, (0.29,) * 3, 0)
    return splits.to(torch.device(device))


def students(counts: list[int], epochs: int, examples: int, width: float, device: str) -> None:
    """Complete trials of distillation: MiniVGG, batch 128, mirrored images, under stored logits. Packed, one after
    another, and packed where three quarters of the members are stopped after the first half of the epochs."""
    splits = random_images(examples, device)
    targets = Targets(torch.randn(2, examples, 10, device=device))
    hparams = [
        Student(student="minivgg", student_width=width, temperature=1 + 0.25 * k, alpha=0.9, epochs=epochs,
                batch_size=128, augment="flip")
        for k in range(max(counts))
    ]  # fmt: skip

    def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        result = call()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began, result

    def pack(count: int, stopped: int) -> tuple[list[Any], list[dict[str, Any]]]:
        rows: list[dict[str, Any]] = [{} for _ in range(count)]

        def listener(number: int) -> Callable[[dict[str, Any]], None]:
            def on_epoch(row: dict[str, Any]) -> None:
                rows[number].update(row)
                if number >= count - stopped and row["epoch"] == epochs // 2:
                    raise TrialFailed("stopped")

            return on_epoch

        members = [Member(h, listener(number)) for number, h in enumerate(hparams[:count])]
        return packed_students.fit(members, splits, targets), rows

    some = hparams[: min(4, max(counts))]
    apart: list[dict[str, Any]] = [{} for _ in some]
    fit_student(some[0], splits, targets, lambda row: None)  # does not count: libraries choose their kernels
    single = seconds(lambda: [fit_student(h, splits, targets, r.update) for h, r in zip(some, apart, strict=True)])[0]
    single /= len(some)
    print(f"\n| students of {epochs} epochs, {examples} images | one after another, s a student | packed, s a student "
          "| gain | most difference in training loss | peak, GB | three quarters stopped halfway, s a student |\n"
          + "|---" * 7 + "|")  # fmt: skip
    for count in counts:
        whole, (ends, rows) = seconds(lambda count=count: pack(count, 0))
        failed = [end for end in ends if isinstance(end, Exception)]
        peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0
        halved, _ = seconds(lambda count=count: pack(count, 3 * count // 4))
        off = max((abs(r["train_loss"] - a["train_loss"]) for r, a in zip(rows, apart, strict=False) if r), default=0.0)
        print(f"| {count} ({len(failed)} failed) | {single:.2f} | {whole / count:.3f} | {single * count / whole:.1f} × "
              f"| {off:.4f} | {peak:.1f} | {halved / count:.3f} |", flush=True)  # fmt: skip
        for failure in failed[:2]:
            print(repr(failure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="of every case but prior and students")
    parser.add_argument("--cases", default="prior,clustering,networks,threads,packed,students")
    parser.add_argument("--members", default="1,8,64")
    parser.add_argument("--epochs", type=int, default=20, help="of packed trials")
    parser.add_argument("--codebook-epochs", type=int, default=4)
    parser.add_argument("--precisions", default="float32,bfloat16", help="of the networks")
    parser.add_argument("--threads", default="1,2,4,8", help="networks side by side")
    parser.add_argument("--student-epochs", type=int, default=4)
    parser.add_argument("--examples", type=int, default=20_000, help="of students")
    parser.add_argument("--width", type=float, default=1.0, help="of students")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="of students; others need a GPU")
    parser.add_argument("--compile", action="store_true", help="the networks by torch.compile, too")
    o = parser.parse_args()
    cases, counts = o.cases.split(","), [int(n) for n in o.members.split(",")]
    if o.data_dir is None and {"clustering", "packed", "networks", "threads"} & set(cases):
        parser.error("--data-dir: missing; only the cases prior and students need no data")
    print(torch.cuda.get_device_name() if o.device == "cuda" else "CPU", torch.__version__)
    if "students" in cases:
        students(counts, o.student_epochs, o.examples, o.width, o.device)
    if "prior" in cases:
        prior()
    if {"clustering", "packed"} & set(cases):
        mnist = registry.load("mnist", o.data_dir)[0].to("cuda")
        if "clustering" in cases:
            clustering(mnist)
        if "packed" in cases:
            packs(mnist, counts, o.epochs, o.codebook_epochs)
    if {"networks", "threads"} & set(cases):
        cifar = registry.load("folder", o.data_dir / "cifar10-jpeg")[0].to("cuda")
        if "threads" in cases:
            side_by_side(cifar, [int(n) for n in o.threads.split(",")])
        if "networks" in cases:
            networks(cifar, o.precisions.split(","), o.compile)


if __name__ == "__main__":
    main()
