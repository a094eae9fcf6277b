"""What a study costs as it grows: more nodes, more trials. Trials that wait stand for training on cores of their own:

    python tests/benchmarks/scaling.py                             # ten minutes
    python tests/benchmarks/scaling.py --nodes 1,2 --trials 100    # a smaller look

The nodes are Ray's own, simulated on this machine (`ray.cluster_utils`), each of four CPUs that exist only for Ray; the
harness is the real one (`harness.py`). Counted is the second half of the trials, when every worker has started.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from harness import Timed, harness

CPUS = 4
"""Of each node, so trials at one time on it."""


def on_nodes(nodes: int, seconds: float, trials: int) -> Timed:
    """A study of waiting trials on so many nodes."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": CPUS, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=CPUS)
        cluster.wait_for_nodes()
        with tempfile.TemporaryDirectory() as folder:
            return harness(seconds, trials, Path(folder), cluster.address)
    finally:
        cluster.shutdown()


def a_trial(timed: Timed, first: int, last: int) -> float:
    """Seconds from one trial's end to the next one's, on average."""
    return (timed.ends[last - 1] - timed.ends[first - 1]) / (last - first)


def numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=numbers, default=[1, 2, 4])
    parser.add_argument("--seconds", type=float, default=5.0, help="of a waiting trial on nodes")
    parser.add_argument("--trials", type=int, default=2000, help="trials that do nothing, on two CPUs")
    parser.add_argument("--searcher", default="tpe", help="of those; tpe takes longer the more trials there are")
    options = parser.parse_args()
    print("| nodes | trials at one time | trials an hour | without any cost |\n|---|---|---|---|")
    for nodes in options.nodes:
        at_once = nodes * CPUS
        timed = on_nodes(nodes, options.seconds, trials := 8 * at_once)
        rate, ideal = 3600 / a_trial(timed, trials // 2, trials), 3600 * at_once / options.seconds
        print(f"| {nodes} | {at_once} | {rate:,.0f} | {ideal:,.0f} |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        timed = harness(0.0, options.trials, Path(folder), searcher=options.searcher)
    print("\n| trials that do nothing | ms from one to the next | the driver's memory, MB |\n|---|---|---|")
    for (before, _), (count, memory) in pairwise([(1, 0.0), *(m for m in timed.memory if m[0] > 1)]):
        print(f"| {before} to {count} | {1000 * a_trial(timed, before, count):.0f} | {memory:.0f} |")
    print(f"\n{os.cpu_count()} cores; Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
