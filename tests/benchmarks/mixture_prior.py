"""The mixture prior against plain autograd of the same formula: `python tests/benchmarks/mixture_prior.py`.

Value and all gradients, float32, on one CPU thread or on a GPU (`--device cuda`), as a markdown table. Beside ours: the
formula as one writes it down, the same under `torch.compile` (it needs a C++ compiler; the library does not), and
`torch.exp` of as many numbers. The runs of one row take turns, so that other load on the machine hits all alike; each
counts by its best. 266,610 weights are those of LeNet-300-100. `--quick` does those × 17 components alone. `--step`
times a training step of LeNet-300-100 on a CPU, with the prior and without: as a study has it, from a table, and in
blocks, where components are met at every weight; at the start of phase two, and as it is after ten epochs of it.

Peak memory is what one call allocates beyond its arguments, its results included: on a CPU the highest running sum of
the allocations and releases that `torch.profiler` records, temporaries within operators too; on a GPU what
`torch.cuda.max_memory_allocated` says.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from study.methods.sws import mixture_table, weight_sharing
from study.methods.sws.mixture import negative_log_likelihood
from study.models import registry

Run = Callable[[], object]

LENET, COMPONENTS = 266_610, 17
SIZES = [(weights, components) for weights in (LENET, 1_600_000, 9_400_000) for components in (4, 17, 64)]
PLAIN_TENSORS = 6
"""Of weights × components, which plain autograd holds at its peak; rows of more than `PLAIN_BYTES` are left out."""
PLAIN_BYTES = 10e9
EXPONENTS = 1 << 24
"""`torch.exp` is timed on this many numbers at most, and its time scaled up."""


def plain(weights: Tensor, means: Tensor, log_precisions: Tensor, log_proportions: Tensor) -> Tensor:
    """The formula as one writes it down, on a weights × components tensor."""
    peak = log_proportions + 0.5 * (log_precisions - math.log(2 * math.pi))
    return -torch.logsumexp(peak - 0.5 * log_precisions.exp() * (weights[:, None] - means) ** 2, dim=1).sum()


def arguments(weights: int, components: int, log_precision: float, device: str) -> list[Tensor]:
    """Most weights near zero, one in fifty five times as wide; the zero component has the most of the proportion."""
    generator = torch.Generator().manual_seed(0)
    drawn = 0.05 * torch.randn(weights, generator=generator)
    drawn[::50] *= 5
    means = torch.cat([torch.zeros(1), torch.linspace(-0.6, 0.6, components - 1)])
    proportions = torch.log_softmax(torch.cat([torch.tensor([6.0]), torch.zeros(components - 1)]), dim=0)
    inputs = [drawn, means, torch.full((components,), log_precision), proportions]
    return [t.to(device).requires_grad_() for t in inputs]


def compiled(inputs: list[Tensor]) -> Run | str:
    """Value and gradients of `plain` under torch.compile for this one shape, or why that is impossible."""
    torch._dynamo.reset()
    formula = torch.compile(plain, dynamic=False)
    try:
        torch.autograd.grad(formula(*inputs), inputs)
    except Exception as error:  # whatever the compiler's absence raises
        return str(error).strip().splitlines()[0]
    return lambda: torch.autograd.grad(formula(*inputs), inputs)


def milliseconds(
    runs: dict[str, Run], device: str, seconds: float, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Best time of each run; they take turns of two calls for about so many seconds, two turns at least."""
    best, turns, end = dict.fromkeys(runs, math.inf), 0, time.perf_counter() + seconds
    while turns < 2 or time.perf_counter() < end:
        for name in (name for name in runs for _ in range(2)):
            synchronise(device)
            start = clock()
            runs[name]()
            synchronise(device)
            best[name] = min(best[name], 1000 * (clock() - start))
        turns += 1
    return best


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak_bytes(run: Run, device: str) -> int:
    gc.collect()
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = [e for e in json.loads(trace.read_text())["traceEvents"] if e["name"] == "[memory]"]
    held = highest = 0
    for event in sorted(events, key=lambda e: e["ts"]):
        held += event["args"]["Bytes"]
        highest = max(highest, held)
    return highest


def row(weights: int, components: int, log_precision: float, device: str, seconds: float, with_compiled: bool) -> str:
    """One line of the table."""
    inputs = arguments(weights, components, log_precision, device)
    exponents = -10 * torch.rand(min(weights * components, EXPONENTS), device=device)
    out, scale = torch.empty_like(exponents), weights * components / len(exponents)

    def ours() -> object:
        return torch.autograd.grad(negative_log_likelihood(*inputs), inputs)

    def autograd() -> object:
        return torch.autograd.grad(plain(*inputs), inputs)

    runs: dict[str, Run] = {"ours": ours, "exp": lambda: torch.exp(exponents, out=out)}
    if 4 * PLAIN_TENSORS * weights * components <= PLAIN_BYTES:
        runs["plain"] = autograd
        if with_compiled and not isinstance(call := compiled(inputs), str):
            runs["compiled"] = call
    best = milliseconds(runs, device, seconds)
    mine = peak_bytes(ours, device) / 1e6
    theirs = peak_bytes(autograd, device) / 1e6 if "plain" in runs else None
    cells = [f"{weights:,} × {components}", f"e^{log_precision:g}", f"{best['ours']:.1f}"]
    cells += [f"{best[name] / best['ours']:.1f}" if name in best else "-" for name in ("plain", "compiled")]
    cells += [f"{best['ours'] / best['exp'] / scale:.1f}", f"{mine:,.0f}"]
    cells += [f"{theirs:,.0f}", f"{theirs / mine:.0f}"] if theirs is not None else ["-", "-"]
    return "| " + " | ".join(cells) + " |"


def step(components: int, tabulate: bool = True, later: bool = False) -> Run:
    """One step of phase two of LeNet-300-100 on a batch of 256; no components stand for no prior.

    Args:
        later: with weights and components as the tenth epoch of a trial has them, half of the weights at zero.
    """
    torch.manual_seed(0)
    model = registry.build("lenet_300_100", (1, 28, 28), 10)
    parameters = list(model.parameters())
    images, labels = torch.randn(256, 1, 28, 28), torch.randint(10, (256,))
    hparams = weight_sharing.Hparams(tau=0.3, components=components or 2, pi_zero=0.99, alpha=0.0, sigma=0.028, seed=0)
    if later:
        move_to_tenth_epoch(parameters)
    mixture = weight_sharing.mixture_over(torch.cat([p.detach().flatten() for p in parameters]), hparams)
    if later:
        with torch.no_grad():
            mixture.log_precisions.fill_(-2 * math.log(0.02))
            mixture.log_precisions[0] = -2 * math.log(0.0062)
    optimiser, pays = weight_sharing.adam(parameters, mixture, hparams), mixture_table.FEWEST
    for group in optimiser.param_groups:
        group["lr"] = 0.0  # so that every step is the same

    def run() -> None:
        mixture_table.FEWEST = pays if tabulate else 10**9
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        if components:
            loss = loss + 1e-5 * mixture.complexity(torch.cat([p.flatten() for p in parameters]))
        loss.backward()
        optimiser.step()

    return run


@torch.no_grad()
def move_to_tenth_epoch(parameters: list[torch.nn.Parameter]) -> None:
    """Half of the weights at zero, one in seventy anywhere between -0.6 and 0.6, and the others near zero."""
    for p in parameters:
        kind = torch.rand_like(p)
        p.copy_(torch.where(kind < 0.5, 0.0, torch.where(kind > 69 / 70, 1.2 * torch.rand_like(p) - 0.6, p / 10)))
    parameters[0][0, :2] = torch.tensor([-0.6, 0.6])


def steps() -> None:
    """The table of `--step`."""
    torch.empty(7_500_000)  # freed at once: the C library now keeps what is freed, as in a trial that has scored
    runs = {"none": step(0)}
    for components in (17, 33, 64):
        runs |= {f"{components}, table": step(components), f"{components}, blocks": step(components, tabulate=False)}
        runs[f"{components}, table, later"] = step(components, later=True)
    best = milliseconds(runs, "cpu", 60.0, time.process_time)
    print("| components | step, ms of CPU | against none |\n|---|---|---|")
    for name, time_ in best.items():
        print(f"| {name} | {time_:.1f} | {time_ / best['none']:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{LENET:,} weights × {COMPONENTS} components alone")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--step", action="store_true", help="a training step with the prior against one without")
    flags = parser.parse_args()
    if flags.step:
        torch.set_num_threads(1)
        return steps()
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's chatter on stderr
    torch.set_num_threads(1)
    why_not = compiled(arguments(10, 2, 2.0, flags.device))
    can_compile = not isinstance(why_not, str)
    print("| weights × components | precision | ours, ms | plain / ours | compiled / ours | ours / exp "
          "| peak of ours, MB | of plain, MB | plain / ours |\n|" + 9 * " ---: |")  # fmt: skip
    rows = [(LENET, COMPONENTS, p, 4.0) for p in (2.0, 4.0, 6.0, 8.0, 10.0, 12.0)]
    if not flags.quick:
        rows += [(weights, components, 6.0, 4.0) for weights, components in SIZES]
    for weights, components, log_precision, seconds in rows:
        print(row(weights, components, log_precision, flags.device, seconds, can_compile), flush=True)
    if not can_compile:
        print(f"\nNo times of torch.compile: {why_not}")


if __name__ == "__main__":
    main()
