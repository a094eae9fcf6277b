"""Images that are mapped from files: made on every node of a cluster that lacks them, from the node's own disk.

The driver sends a node what the files are made from, and the node reports how far it is; no image travels. A node that
joins while a study runs is not waited for: the first trial on it makes the files before it trains.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import RayError

from study.data.folder_data import prepare, prepared
from study.data.mapped import Blueprint, MappedPart, find_entry
from study.data.splits import Splits
from study.errors import UserError, one_line
from study.tuning import cluster

INTERVAL = 30.0
"""Seconds between two lines about one node, where they do not go to a terminal."""
LOOK = 1.0
"""Seconds between two reports of a node, and after which the driver looks at them."""
CLEANING = 10.0
"""Seconds for nodes to remove what is half made, where the study does not start."""
STAGES = ("looked at", "decoded", "written")
"""What is done to all images, one after another."""

Count = tuple[str, int, int]
"""What was done to images, to how many, and of how many; see `study.data.progress`."""


class NodeCounts:
    """An actor that nodes tell how far they are, and that the driver asks."""

    def __init__(self) -> None:
        self.counts: dict[str, Count] = {}

    def report(self, node: str, count: Count) -> None:
        self.counts[node] = count

    def read(self) -> dict[str, Count]:
        return self.counts


class Lines:
    """Prints lines about several things, each at intervals."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    def say(self, about: str, line: str) -> None:
        """Print it, unless there was another about the same thing within `INTERVAL`; the first only after that."""
        now = time.monotonic()
        if now - self.times.setdefault(about, now) >= INTERVAL:
            self.times[about] = now
            print(line, flush=True)


def prepare_nodes(data: Splits) -> None:
    """See that every node has the files that images are mapped from. Those that lack them make them, all at once.

    Raises:
        UserError: a node that cannot, by its address.
    """
    if not isinstance(data.train, MappedPart):
        return
    blueprint = data.train.blueprint
    nodes = cluster.nodes_without(_has, blueprint)
    if not nodes:
        return
    for address in nodes.values():
        print(f"node {address}: decodes --data-dir {blueprint.source.root}, once", flush=True)
    driver = cluster.pinned_to(ray.get_runtime_context().get_node_id())
    counts: Any = ray.remote(NodeCounts).options(num_cpus=0, scheduling_strategy=driver).remote()
    tasks = {_start(node, blueprint, counts): node for node in nodes}
    try:
        with shown(nodes) as show:
            _wait(tasks, nodes, counts, show)
    finally:
        if tasks:  # that have not ended
            for task in tasks:
                ray.cancel(task)
            ray.wait(list(tasks), num_returns=len(tasks), timeout=CLEANING)
        ray.kill(counts)


def data_here(data: Splits, show: Callable[[str], None] = lambda what: None) -> Splits:
    """The splits with their images, also on a node that has just joined.

    Args:
        show: hears what this process does meanwhile.
    Raises:
        UserError: the files cannot be made, with the node's address.
    """
    lines = Lines()

    def progress(what: str, done: int, total: int) -> None:
        text = in_words((what, done, total))
        show(text)
        lines.say("", text)

    try:
        return prepared(data, progress, lambda: print("waits for another trial, which decodes the images", flush=True))
    except UserError as error:
        raise UserError(f"node {ray.util.get_node_ip_address()}: {error}") from error


def in_words(count: Count) -> str:
    """A count as in "120,000 of 400,000 images decoded"."""
    what, done, total = count
    return f"{done:,} of {total:,} images {what}"


@contextmanager
def shown(nodes: Mapping[str, str]) -> Iterator[Callable[[Mapping[str, Count]], None]]:
    """Show how far nodes are: in one line in front of a terminal, about the one that is behind all others.

    Args:
        nodes: id → address.
    Returns: what is to be called with the counts, again and again.
    """
    if not sys.stderr.isatty():
        lines = Lines()

        def show_lines(counts: Mapping[str, Count]) -> None:
            for node, count in counts.items():
                lines.say(node, f"node {nodes[node]}: {in_words(count)}")

        yield show_lines
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(20)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task(f"Starting on {len(nodes)} nodes", total=None)

        def show_bar(counts: Mapping[str, Count]) -> None:
            if counts:
                node, count = min(counts.items(), key=lambda item: (STAGES.index(item[1][0]), item[1][1]))
                others = f", the last of {len(nodes)}" if len(nodes) > 1 else ""
                bar.update(row, description=f"node {nodes[node]}{others}: {in_words(count)}")
                bar.update(row, completed=count[1], total=count[2])

        yield show_bar


def _has(blueprint: Blueprint) -> bool:
    return find_entry(blueprint) is not None


def _start(node: str, blueprint: Blueprint, counts: Any) -> ObjectRef[str]:
    """Start `_make_here` on a node; once more if its process is killed."""
    make = ray.remote(num_cpus=0, max_retries=1)(_make_here)
    placed = make.options(scheduling_strategy=cluster.pinned_to(node), name="decode images")
    return placed.remote(node, blueprint, counts)


def _make_here(node: str, blueprint: Blueprint, counts: Any) -> str:
    """In a process of the node: make its files. Returns what prevents that, or ""."""
    last = 0.0

    def progress(*count: Any) -> None:
        nonlocal last
        if time.monotonic() - last >= LOOK:
            last = time.monotonic()
            counts.report.remote(node, count)

    try:
        prepare(blueprint, progress, lambda: None)
    except UserError as error:
        return str(error)
    return ""


def _wait(
    tasks: dict[ObjectRef[str], str], nodes: Mapping[str, str], counts: Any, show: Callable[[Mapping[str, Count]], None]
) -> None:
    """Wait for these tasks, and take out each that has ended.

    Args:
        tasks: task → id of its node.
    Raises:
        UserError: one that could not do its work.
    """
    started = time.monotonic()
    while tasks:
        ended, _ = ray.wait(list(tasks), timeout=LOOK)
        for task in ended:
            node = tasks.pop(task)
            try:
                problem = ray.get(task)
            except RayError as error:
                if node not in cluster.alive_addresses():
                    print(f"node {nodes[node]}: has left the cluster", flush=True)
                    continue
                problem = f"the process that decoded images ended ({one_line(error)}); the same command tries again"
            if problem:
                raise UserError(f"node {nodes[node]}: {problem}")
            print(f"node {nodes[node]}: is ready after {time.monotonic() - started:.0f} s", flush=True)
        show(ray.get(counts.read.remote()))
