"""What the nodes of Ray can hold, on this machine or in a cluster, and how many trials run at one time."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from ray.tune import PlacementGroupFactory
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study import addresses as copies
from study.errors import UserError
from study.settings import Settings
from study.training.precision import best_precision
from study.tuning import ray_home

SMALLEST_SHARE = 0.0001
"""Of a CPU or a GPU; Ray counts no less."""


Node = Mapping[str, float]
"""What a machine has, by Ray's names: CPU, GPU, and memory in bytes."""


def alive_nodes() -> list[Node]:
    """The nodes that are there now."""
    return [n["Resources"] for n in ray.nodes() if n["Alive"]]


def resources(settings: Settings, nodes: Sequence[Node]) -> tuple[float, int]:
    """GPUs of each trial, and trials at one time. Refuses what no node can hold, which Ray would wait for."""
    has_gpu = any(n.get("GPU", 0) for n in nodes)
    gpus = gpu_share(settings, has_gpu)
    cpus = settings.resources.cpus_per_trial
    if gpus and not has_gpu:
        raise UserError(f"--gpus-per-trial {gpus:g}: there is no GPU here; leave the flag out, or give 0")
    if cpus > max(n.get("CPU", 0) for n in nodes):
        most = max(n.get("CPU", 0) for n in nodes)
        raise UserError(f"--cpus-per-trial {cpus:g}: the largest machine has {most:g} CPUs; give that or less")
    if memory_bytes(settings) > max(n.get("memory", 0) for n in nodes):
        most = max(n.get("memory", 0) for n in nodes) / 1e9
        raise UserError(
            f"--memory-per-trial {settings.resources.memory_per_trial:g}: the largest machine has {most:.1f} GB; "
            "give less"
        )
    if settings.resources.pack > 1:
        return gpus, packed_at_once(settings.changed(gpus_per_trial=gpus), nodes)
    fit = trials_that_fit(nodes, resource_request(settings, gpus))
    if fit < 1:
        raise UserError(
            f"--cpus-per-trial {cpus:g} --gpus-per-trial {gpus:g}: no single machine has both; give less of one"
        )
    return gpus, min(fit, settings.resources.max_concurrent or fit)


def check_limits(settings: Settings) -> None:
    """Refuse what this machine cannot hold, before any trial starts; in a cluster that is known later.

    Raises:
        UserError: one line that names the flag.
    """
    asked = {"--cpus-per-trial": settings.resources.cpus_per_trial, "--gpus-per-trial": gpu_share(settings, False)}
    for flag, share in asked.items():
        if 0 < share < SMALLEST_SHARE:
            raise UserError(f"{flag} {share:g}: Ray counts in steps of {SMALLEST_SHARE:g}; give that or more")
    if (gpus := asked["--gpus-per-trial"]) > 1:
        raise UserError(
            f"--gpus-per-trial {gpus:g}: a training runs on one GPU, so others would be idle; give 1, or a fraction"
        )
    if not settings.resources.address:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # Ray will promise less of it
        resources(settings, [{"CPU": os.cpu_count() or 1, "GPU": torch.cuda.device_count(), "memory": memory}])


def best_precision_of_trials(settings: Settings) -> str:
    """What a machine that trials run on does best; in a cluster the driver's may be another kind."""
    kind = "cuda" if settings.resources.gpus_per_trial else "cpu"
    if not settings.resources.address:
        return best_precision(kind)
    asked = resource_request(settings, settings.resources.gpus_per_trial or 0)
    there = ray.remote(best_precision).options(
        num_cpus=asked.get("CPU", 0), num_gpus=asked.get("GPU", 0), memory=asked.get("memory")
    )
    return str(ray.get(there.remote(kind)))


def packs_at_once(settings: Settings, nodes: Sequence[Node]) -> int:
    """Packs that run at one time: one on each GPU, or one on CPUs."""
    return max(1, sum(int(n.get("GPU", 0)) for n in nodes)) if settings.resources.gpus_per_trial else 1


def packed_at_once(settings: Settings, nodes: Sequence[Node]) -> int:
    """Trials at one time, where they are packed."""
    most = settings.resources.pack * packs_at_once(settings, nodes)
    return min(most, settings.resources.max_concurrent or most)


def gpu_share(settings: Settings, has_gpu: bool) -> float:
    """GPUs of each trial, where the settings leave it open too."""
    share = settings.resources.gpus_per_trial
    return share if share is not None else (0.25 if has_gpu else 0.0)


def memory_bytes(settings: Settings) -> float:
    """Bytes of main memory that a trial is promised; 0 if none are."""
    return 1e9 * (settings.resources.memory_per_trial or 0)


def placement(settings: Settings) -> PlacementGroupFactory:
    """What Ray sets aside for a trial."""
    return PlacementGroupFactory([resource_request(settings, settings.resources.gpus_per_trial or 0)])


MOST_THREADS = 16
"""Of a training: more of them gain nothing with networks of this size."""


def for_shared_work(settings: Settings, trainings: int) -> Settings:
    """The settings for the shared work: its trainings split the cores that the search will have.

    What all trials wait for would otherwise run on one core, and the others be idle. In a cluster that was joined it
    gets what a trial gets: others may use the machines, and all of one might never be free.
    """
    if settings.resources.address:
        return settings
    return settings.changed(cpus_per_trial=shared_cores(settings, Capacity(settings)(), trainings))


def shared_cores(settings: Settings, at_once: int, trainings: int = 1) -> float:
    """Cores of each of these trainings, which split the cores of all concurrent trials."""
    return max(
        settings.resources.cpus_per_trial, min(MOST_THREADS, at_once * settings.resources.cpus_per_trial // trainings)
    )


def resource_request(settings: Settings, gpus: float) -> dict[str, float]:
    """What Ray sets aside for a trial, by the name of the resource."""
    asked = {"CPU": settings.resources.cpus_per_trial, "GPU": gpus, "memory": memory_bytes(settings)}
    return {k: v for k, v in asked.items() if v}


def trials_that_fit(nodes: Sequence[Node], asked: Mapping[str, float]) -> int:
    """Trials that these nodes hold together at one time."""
    return sum(min(int(node.get(k, 0) / v + 1e-9) for k, v in asked.items()) for node in nodes)


class Capacity:
    """Calling it gives the number of trials that the present machines hold; nodes come and go."""

    SECONDS = 2.0
    """Seconds for which an answer is reused."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.known, self.until = 0, 0.0

    def __call__(self) -> int:
        if time.monotonic() > self.until:
            request = resource_request(self.settings, self.settings.resources.gpus_per_trial or 0)
            fit = max(1, trials_that_fit(alive_nodes(), request))
            self.known = min(fit, self.settings.resources.max_concurrent or fit)
            self.until = time.monotonic() + self.SECONDS
        return self.known


def check_shared(folder: Path) -> None:
    """See that every node of a cluster has this folder: trials keep their checkpoints and weights in it.

    Raises:
        UserError: a node that does not, by its address.
    """
    token = folder / f".shared-{uuid.uuid4().hex}"
    token.touch()
    try:
        blind = list(nodes_without(os.path.exists, str(token)).values())
    finally:
        token.unlink(missing_ok=True)
    if blind:
        if address := copies.address_of(folder):
            raise UserError(
                f"--results-dir {address.rpartition('/')[0]}: node {blind[0]} does not see its copy, {folder}; set "
                f"{copies.CACHE_VARIABLE} to a folder that all nodes share, such as one on NFS"
            )
        raise UserError(
            f"--results-dir {folder.parent}: node {blind[0]} does not see it; give a folder that all nodes share, "
            "such as one on NFS"
        )


def alive_addresses() -> dict[str, str]:
    """Id of each node that is there now → its address."""
    return {n["NodeID"]: n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]}


def nodes_without(has: Callable[[Any], bool], what: object) -> dict[str, str]:
    """Id → address of the nodes that do not have something, where there are several nodes.

    Args:
        has: is called with `what` on each.
    """
    nodes = alive_addresses()
    if len(nodes) < 2:
        return {}
    ask = ray.remote(num_cpus=0, max_retries=0)(has)
    asked = {node: ask.options(scheduling_strategy=pinned_to(node)).remote(what) for node in nodes}
    return {node: nodes[node] for node, answer in asked.items() if not ray.get(answer, timeout=120)}


def pinned_to(node: str) -> NodeAffinitySchedulingStrategy:
    """How Ray places what must run on the node of this id."""
    return NodeAffinitySchedulingStrategy(node, soft=False)


def addresses(settings: Settings, dashboard: str) -> list[str]:
    """Lines that tell where a running study can be watched."""
    lines = [f"Ray dashboard: {dashboard}{_way_in()}"] if dashboard else []
    if settings.watching.prometheus:
        nodes = [n for n in ray.nodes() if n["Alive"]]
        targets = ", ".join(f"{n['NodeManagerAddress']}:{n['MetricsExportPort']}" for n in nodes)
        lines.append(f"Prometheus scrape target: {targets} (/metrics; the study's are ray_study_*)")
    return lines


def _way_in() -> str:
    """How the dashboard lets one in. Its token is shown to a person at a terminal, and written into no log or file."""
    if os.environ.get("RAY_AUTH_MODE") != "token":  # Ray sets it for clusters that it starts
        return ""
    token = ray_home.token() if sys.stdout.isatty() else ""
    if token:
        return f"\n    its token: {token}"
    own = os.environ.get("RAY_AUTH_TOKEN")
    return f"  (it asks for a token, once: {'that of $RAY_AUTH_TOKEN' if own else 'ray get-auth-token prints it'})"
