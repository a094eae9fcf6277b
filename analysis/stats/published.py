"""Results that papers report, to compare with a study's own. Each has its source and its own meaning of "rate"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

COLUMNS = ("method", "sparsity", "test_accuracy", "test_accuracy_before", "rate", "definition", "source")

STORAGE = "bits before ÷ bits after, counting sparse indices, codebook and Huffman codes as Han et al. do"
SHARE = "number of weights ÷ number of nonzero weights; nothing is counted for their positions"


@dataclass(frozen=True)
class Result:
    """One row of a paper's table: MNIST test errors and nonzero share in percent."""

    method: str
    error_before: float | None
    error_after: float
    nonzero: float
    rate: float
    definition: str
    source: str


HAN = "Han, Mao & Dally 2016, arXiv:1510.00149"
GUO = "Guo, Yao & Chen 2016, arXiv:1608.04493"
ULLRICH = "Ullrich, Meeds & Welling 2017, arXiv:1702.04008"
MOLCHANOV = "Molchanov, Ashukha & Vetrov 2017, arXiv:1701.05369"

MNIST: dict[str, tuple[Result, ...]] = {
    "lenet_300_100": (
        Result("Deep Compression", 1.64, 1.58, 8.0, 40, STORAGE, HAN),
        Result("Dynamic network surgery", 2.28, 1.99, 1.8, 56, SHARE, GUO),
        Result("Soft weight-sharing (paper)", 1.89, 1.94, 4.3, 64, STORAGE, ULLRICH),
        Result("Sparse variational dropout", None, 1.92, 100 / 68, 68, SHARE, MOLCHANOV),
    ),
    "lenet5": (
        Result("Deep Compression", 0.80, 0.74, 8.0, 39, STORAGE, HAN),
        Result("Dynamic network surgery", 0.91, 0.91, 0.9, 108, SHARE, GUO),
        Result("Soft weight-sharing (paper)", 0.88, 0.97, 0.5, 162, STORAGE, ULLRICH),
        Result("Sparse variational dropout", None, 0.75, 100 / 280, 280, SHARE, MOLCHANOV),
    ),
}


def published(meta: Mapping[str, Any]) -> pd.DataFrame:
    """Published compression results for a study's own network and data; empty where the papers have none.

    Only the network of the papers on the data of the papers: a point from another task would say nothing.

    Args:
        meta: `study.json`.
    Returns: columns `COLUMNS`; sparsity and accuracies in percent, accuracies on the MNIST **test** images.
    """
    network = meta.get("models", {}).get("network", {}).get("name", "")
    results = MNIST.get(network, ()) if meta.get("data", {}).get("name") == "mnist" else ()
    frame = pd.DataFrame([asdict(result) for result in results])
    if frame.empty:
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    frame["sparsity"] = 100 - frame["nonzero"]
    frame["test_accuracy"] = 100 - frame["error_after"]
    frame["test_accuracy_before"] = 100 - frame["error_before"]
    return frame[list(COLUMNS)]
