"""The fuzzer: damaged and hostile files are read, and nothing but a UserError may come of it.

    python tests/faults/fuzz.py                                    # 100,000 inputs over all targets
    python tests/faults/fuzz.py --target codebook --inputs 50000   # one of them
    python tests/faults/fuzz.py --target codebook --number 4711    # one input again
    python tests/faults/fuzz.py --target codebook --atheris        # guided by coverage; pip install atheris

The corpus is made here, and every input follows from its seed and number. Another exception, more than LIMIT seconds,
or more than MEMORY MB is a finding. Prints the table of the README. A short version is in the suite (test_fuzz.py).
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import mutations  # noqa: E402
import synthetic  # noqa: E402
import torch  # noqa: E402

from study.compression import compressed_file  # noqa: E402
from study.compression.compressed_file import Network  # noqa: E402
from study.compression.quantised_weights import QuantisedWeights, shared_parameters  # noqa: E402
from study.errors import UserError, printable  # noqa: E402
from study.models import registry  # noqa: E402
from study.records import paths, study_folder  # noqa: E402

LIMIT = 5.0
"""Seconds for one input."""
MEMORY = 500
"""MB for one input, on top of what the process had before."""
PARAMETERS = 1_000_000
"""Of a network: one that is larger is right to take its time and its memory, and is refused here."""


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        share: of the inputs.
        corpus: files to start from.
        mutate: a file, changed.
        read: what a user's command does with it; raises UserError where it is refused.
    """

    share: float
    corpus: list[bytes]
    mutate: Callable[[random.Random, bytes], bytes]
    read: Callable[[bytes], object]


def targets(folder: Path) -> dict[str, Target]:
    """All of them, by name.

    Args:
        folder: empty; study folders are made in it.
    """
    study = synthetic.write_sws(folder / "study")
    synthetic.write_trace(study, "t001")
    tables = {name: (study / name).read_bytes() for name in (paths.TRIALS, paths.HISTORY, paths.CONFIRMED)}
    trace = paths.trace_of(study, "t001")

    def reader(path: Path, read: Callable[[], object]) -> Callable[[bytes], object]:
        def read_changed(data: bytes) -> object:
            before = path.read_bytes()
            try:
                path.write_bytes(data)
                return read()
            finally:
                path.write_bytes(before)

        return read_changed

    def load() -> object:
        return study_folder.load(study)

    made = {
        "codebook": Target(0.5, codebooks(), mutations.of_codebook, read_codebook),
        "trace": Target(
            0.1, [trace.read_bytes()], mutations.of_npz, reader(trace, lambda: study_folder.read_trace(study, "t001"))
        ),
        "study": Target(
            0.2, [(study / paths.STUDY).read_bytes()], mutations.of_json_file, reader(study / paths.STUDY, load)
        ),
    }
    for name, data in tables.items():
        made[name] = Target(0.2 / len(tables), [data], mutations.of_csv, reader(study / name, load))
    return made


def codebooks() -> list[bytes]:
    """Compressed files of small networks, with and without batch-norm, scales and options, and one of version 2."""
    return [
        (ROOT / "tests" / "fixtures" / "codebook" / "version2.codebook").read_bytes(),
        codebook(Network("lenet_300_100", {}, (1, 8, 8), 10, (0.5,), (0.25,), "digits")),
        codebook(Network("lenet_300_100", {}, (1, 1, 1), 2, (0.5,), (0.25,), "digits")),
        codebook(Network("lenet5", {}, (1, 16, 16), 10, (0.5,), (0.25,), "mnist")),
        codebook(
            Network("minivgg", {"width": 0.0625}, (3, 32, 32), 10, (0.5,) * 3, (0.25,) * 3, "cifar10"), scaled=True
        ),
    ]


def codebook(network: Network, scaled: bool = False) -> bytes:
    """A compressed file of random weights, 95 of 100 of them zero."""
    draw = torch.Generator().manual_seed(0)
    model = registry.build(network.name, network.input_shape, network.classes, **network.options)
    parameters = shared_parameters(model)
    weights = sum(p.numel() for p in parameters)
    assignment = torch.randint(1, 5, (weights,), generator=draw) * (torch.rand(weights, generator=draw) > 0.95)
    scales = torch.arange(1.0, len(parameters) + 1) if scaled else torch.ones(len(parameters))
    return compressed_file.encode(model, QuantisedWeights(assignment, torch.arange(5.0), scales), network)


def read_codebook(data: bytes) -> object:
    return compressed_file.decode(data, max_parameters=PARAMETERS)


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """TimeoutError after so long; only Python code can be interrupted."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def memory(name: str) -> float:
    """MB of this process: VmRSS now, or VmHWM, the most since `forget_peak`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def outcome(read: Callable[[bytes], object], data: bytes) -> tuple[str, str]:
    """What comes of one input: `read`, `refused`, or a finding, with what was found."""
    forget_peak()
    before, began = memory("VmRSS"), time.process_time()
    try:
        with alarm(60):
            read(data)
        what = "read", ""
    except UserError as error:
        clean = "\n" not in printable(str(error)) and str(error)
        what = ("refused", "") if clean else ("not one line", repr(str(error))[:200])
    except BaseException as error:  # Rust's panics are no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        what = (
            "another exception",
            f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}: {error}"[:300],
        )
    seconds, extra = time.process_time() - began, memory("VmHWM") - before
    if seconds > LIMIT:
        what = "too slow", f"{seconds:.1f} s; {what[1]}"
    if extra > MEMORY:
        what = "too large", f"{extra:.0f} MB; {what[1]}"
    return what


def input_of(target: Target, name: str, seed: int, number: int) -> bytes:
    draw = random.Random(f"{seed} {name} {number}")
    return target.mutate(draw, draw.choice(target.corpus))


def run(target: Target, name: str, seed: int, numbers: range) -> tuple[Counter[str], dict[str, str]]:
    """Counts of outcomes, and of each finding the input that first showed it."""
    counts: Counter[str] = Counter()
    findings: dict[str, str] = {}
    for number in numbers:
        kind, found = outcome(target.read, input_of(target, name, seed, number))
        counts[kind] += 1
        if found:
            where = f"--target {name} --seed {seed} --number {number}"
            if findings.setdefault(f"{kind}: {found.split(': ')[0]}", f"{where}: {found}").startswith(where):
                print(f"{kind}: {where}: {printable(found)}", flush=True)
    return counts, findings


def run_atheris(target: Target, inputs: int, seed: int, folder: Path) -> Counter[str]:
    """The same, guided by the coverage of `study`, with our mutations among libFuzzer's."""
    import atheris

    counts: Counter[str] = Counter()
    corpus = folder / "corpus"
    corpus.mkdir()
    for i, data in enumerate(target.corpus):
        (corpus / str(i)).write_bytes(data)

    def test_one_input(data: bytes) -> None:
        kind, found = outcome(target.read, data)
        counts[kind] += 1
        if found:
            (folder / f"finding-{sum(counts.values())}").write_bytes(data)
            print(f"{kind}: {printable(found)}", flush=True)

    def mutate(data: bytes, most: int, mutation_seed: int) -> bytes:
        draw = random.Random(mutation_seed)
        with contextlib.suppress(Exception):  # where libFuzzer left no structure
            return target.mutate(draw, data)[:most]
        return atheris.Mutate(data, most)

    for module in (compressed_file, study_folder):
        for name, value in vars(module).items():
            if callable(value) and getattr(value, "__module__", "") == module.__name__ and not isinstance(value, type):
                setattr(module, name, atheris.instrument_func(value))
    arguments = [
        sys.argv[0],
        f"-runs={inputs}",
        f"-seed={seed + 1}",
        "-rss_limit_mb=8000",
        "-max_len=100000",
        str(corpus),
    ]
    atheris.Setup(arguments, test_one_input, custom_mutator=mutate)
    with contextlib.suppress(SystemExit):
        atheris.Fuzz()
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", help="codebook, trace, study, or a table's name; default: all")
    parser.add_argument("--inputs", type=int, default=100_000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, help="this input alone")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    chosen = {n: t for n, t in targets(folder).items() if options.target in (None, n)}
    share = sum(target.share for target in chosen.values())
    failed = False
    print("| target | inputs | refused | read | findings | inputs a second |\n|---|---|---|---|---|---|")
    for name, target in chosen.items():
        inputs = round(options.inputs * target.share / share)
        began = time.monotonic()
        if options.atheris:
            counts = run_atheris(target, inputs, options.seed, folder)
        else:
            numbers = range(inputs) if options.number is None else range(options.number, options.number + 1)
            counts, _ = run(target, name, options.seed, numbers)
        total = counts.total()
        bad = total - counts["read"] - counts["refused"]
        failed |= bool(bad)
        rate = total / (time.monotonic() - began)
        print(f"| {name} | {total:,} | {counts['refused']:,} | {counts['read']:,} | {bad} | {rate:.0f} |", flush=True)
    shutil.rmtree(folder)
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
