"""Mutation testing of `study/` and `analysis/`: is a small change of the code noticed by a test?

    python tests/mutation/run.py --measure                # once: the suite under coverage.py, to know who runs a line
    python tests/mutation/run.py --sample 200 --seed 0    # 200 mutants over all modules; the survivors are printed
    python tests/mutation/run.py --only study/compression analysis/stats

Cosmic Ray's operators make the mutants. Its own runner starts a process and the whole suite for each, and torch alone
takes 4.5 s to import. Here a mutant is a fork of a process that has the libraries, and meets only the tests that run
its line, the fastest first, until one fails.

Not mutated: text, annotations, what Cosmic Ray has no operator for (arguments, returned values), and without a GPU
what only a GPU runs.
"""

from __future__ import annotations

import argparse
import ast
import functools
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import coverage
import pytest
from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator

ROOT = Path(__file__).parents[2]
DATA = ROOT / ".mutation"  # what --measure writes
LIBRARIES = "torch torchvision pandas plotly.graph_objects sklearn.datasets scipy.stats optuna moocore rich tyro jinja2"
NEED_A_GPU = ("study/methods/sws/mixture_kernel.py", "study/training/cuda_graphs.py")
TESTS, FIRST = 200, 12  # a mutant meets at most so many tests; the first of them before the others are imported
Place = tuple[int, int]  # line and column, as in `ast`


@dataclass(frozen=True)
class Mutant:
    path: str
    line: int
    source: str

    def change(self) -> str:
        before, after = (ROOT / self.path).read_text().split("\n"), self.source.split("\n")
        pairs = ((old.strip(), new.strip()) for old, new in zip(before, after, strict=False) if old != new)
        return next(f"{old}  ->  {new}" for old, new in pairs)


@functools.cache
def syntax(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def annotations(path: str) -> list[ast.expr]:
    nodes = [getattr(node, field, None) for node in ast.walk(syntax(path)) for field in ("annotation", "returns")]
    return [node for node in nodes if node is not None]


def changes(path: str) -> dict[Place, list[tuple[type[Operator], int]]]:
    """By place (line, column): the operators that apply there, each with its count of places before in the file."""
    found: dict[Place, list[tuple[type[Operator], int]]] = {}
    tree = get_ast((ROOT / path).read_text())
    left_out = [((a.lineno, a.col_offset), (a.end_lineno, a.end_col_offset)) for a in annotations(path)]
    for operator in map(plugins.get_operator, plugins.operator_names()):
        if operator.arguments():  # two operators that must be told a variable's name
            continue
        places = (start for node in ast_nodes(tree) for start, _ in operator().mutation_positions(node))
        for count, place in enumerate(places):
            if not any(first <= place < last for first, last in left_out):
                found.setdefault(place, []).append((operator, count))
    return found


def mutant(path: str, place: Place, operator: type[Operator], count: int) -> Mutant | None:
    """None where the change is no Python, such as that of a parameter's `*`, or changes nothing."""
    try:
        source = mutate_code((ROOT / path).read_text(), operator(), count)
        changed = ast.dump(ast.parse(source)) != ast.dump(syntax(path))
    except (SyntaxError, AttributeError):  # AttributeError: Cosmic Ray's own, at `except module.Error`
        return None
    return Mutant(path, place[0], source) if changed else None


def sample(paths: list[str], size: int, seed: int) -> list[Mutant]:
    """Mutants at `size` different places, drawn evenly over all places; of each place one of its mutants."""
    draw = random.Random(seed)
    places = [(path, place, options) for path in paths for place, options in changes(path).items()]
    draw.shuffle(places)
    made = (mutant(path, place, *draw.choice(options)) for path, place, options in places)
    return list(itertools.islice(filter(None, made), size))


def _lines(mutant: Mutant) -> set[int]:
    """The lines of the mutant's statement; none if it runs on import, as a module's constants and defaults do."""
    inside, lines = False, {mutant.line}
    for node in ast.walk(syntax(mutant.path)):
        if not isinstance(node, ast.stmt) or not node.lineno <= mutant.line <= (node.end_lineno or 0):
            continue
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if body else node.end_lineno or 0
        if mutant.line <= last:
            lines = set(range(node.lineno, last + 1))
        elif isinstance(node, ast.FunctionDef):
            inside = True
    return lines if inside else set()


def importers(path: str) -> list[str]:
    """The files that import this one."""
    package, _, name = path.removesuffix(".py").replace("/", ".").rpartition(".")
    importing = re.compile(rf"^ *from {package}(\.{name} import| import .*\b{name}\b)", re.MULTILINE)
    return [other for other in modules(["study", "analysis"]) if importing.search((ROOT / other).read_text())]


def contexts(mutant: Mutant, measured: coverage.CoverageData) -> set[str]:
    """Who runs the mutant's line; where that is unknown (on import, in autograd's threads, in other processes), who
    runs its file or a file that imports it."""
    by_line = measured.contexts_by_lineno(str(ROOT / mutant.path))
    if known := {context for line in _lines(mutant) for context in by_line.get(line, ())} - {""}:
        return known
    files = [mutant.path, *importers(mutant.path)]
    return {c for file in files for cs in measured.contexts_by_lineno(str(ROOT / file)).values() for c in cs}


def tests_of(mutant: Mutant, measured: coverage.CoverageData, seconds: dict[str, float], most: float) -> list[str]:
    """The tests that run the mutant's line, the fastest first. All of a file's, where its fixtures run the line."""
    names: set[str] = set()
    for context in contexts(mutant, measured) - {""}:
        name, _, part = context.rpartition("|")
        file = name.split("::")[0]
        names.update({name} if part == "test" else {other for other in seconds if other.split("::")[0] == file})
    chosen, spent = [], 0.0
    for name in sorted(names, key=lambda name: seconds.get(name, 0.0))[:TESTS]:
        spent += seconds.get(name, 0.0)
        if chosen and spent > most:
            break
        chosen.append(name)
    return chosen


def _copy_project() -> None:
    """Each process changes a copy of its own; the tests' own processes import it too."""
    folder = Path(tempfile.mkdtemp(prefix="mutation-")) / "project"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".venv", ".git", ".mutation", "results", "__pycache__"))
    compile_all = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", str(folder)]
    subprocess.run(compile_all, check=False)  # by hash: a mutant is as long, and as old, as its original
    os.chdir(folder)


def meet(task: tuple[Mutant, list[str], float]) -> tuple[Mutant, str]:
    """What becomes of a mutant: `killed`, `timeout`, `survived`, or `no test` where no test runs its line."""
    mutant, tests, limit = task
    if not tests:
        return mutant, "no test"
    file = Path(mutant.path)
    original = file.read_text()
    file.write_text(mutant.source)
    try:
        return mutant, _outcome(tests, limit)
    finally:
        file.write_text(original)


def _outcome(tests: list[str], limit: float) -> str:
    child = os.fork()
    if child == 0:
        _run_tests(tests)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return "survived" if status == 0 else "killed"
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def _run_tests(tests: list[str]) -> None:
    os.setsid()
    sys.path.insert(0, os.getcwd())
    os.environ["PYTHONPATH"] = os.getcwd()  # for processes that tests start
    with open("pytest.log", "w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        for part in (tests[:FIRST], tests[FIRST:]):  # most mutants end in the first, before all files are imported
            if part and (status := pytest.main(["-x", "-q", "-n0", "-p", "no:cacheprovider", *part])):
                os._exit(int(status))
        os._exit(0)
    finally:
        os._exit(1)


def modules(only: list[str]) -> list[str]:
    files = (path.relative_to(ROOT) for folder in ("study", "analysis") for path in (ROOT / folder).rglob("*.py"))
    wanted = sorted(str(path) for path in files if any(path.is_relative_to(part) for part in only))
    return [path for path in wanted if shutil.which("nvidia-smi") or path not in NEED_A_GPU]


def measure(tests: list[str]) -> int:
    """Run these tests, or all, under coverage.py; what is known of other tests stays. Returns the exit status."""
    DATA.mkdir(exist_ok=True)
    run = [sys.executable, "-m", "coverage", "run", "--append", f"--source={ROOT}/study,{ROOT}/analysis"]
    run += [f"--data-file={DATA / 'coverage'}", "-m", "pytest", "-q", "-n0", "-p", "contexts", *tests]
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": path, "MUTATION_SECONDS": str(DATA / "seconds.json")}
    return subprocess.run(run, cwd=ROOT, env=environment).returncode


def outcomes(chosen: list[Mutant], most: float, processes: int) -> Iterator[tuple[Mutant, str]]:
    measured = coverage.CoverageData(str(DATA / "coverage"))
    measured.read()
    seconds = json.loads((DATA / "seconds.json").read_text())
    tasks = []
    for mutant in chosen:
        tests = tests_of(mutant, measured, seconds, most)
        tasks.append((mutant, tests, 20 + 5 * sum(seconds.get(name, 0.0) for name in tests)))
    for library in LIBRARIES.split():
        __import__(library)
    with multiprocessing.get_context("fork").Pool(processes, _copy_project) as pool:
        yield from pool.imap_unordered(meet, tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs="*", metavar="TESTS", help="all, or these again")
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=["study", "analysis"], metavar="FOLDER")
    parser.add_argument("--seconds", type=float, default=60, help="of tests that a mutant meets")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.measure is not None:
        sys.exit(measure(options.measure))
    counts: Counter[str] = Counter()
    chosen = sample(modules(options.only), options.sample, options.seed)
    for mutant, outcome in outcomes(chosen, options.seconds, options.processes):
        counts[outcome] += 1
        if outcome in ("survived", "no test"):
            print(f"{outcome}: {mutant.path}:{mutant.line}  {mutant.change()}", flush=True)
    noticed = counts["killed"] + counts["timeout"]
    print(f"{noticed} of {counts.total()} mutants were noticed ({noticed / counts.total():.0%}): {dict(counts)}")


if __name__ == "__main__":
    main()
