"""Results that papers report, to compare with a study's own. Each has its source and its own meaning of "rate".

A result that was counted on real bytes stands next to a study's file; one that follows from a formula does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from analysis.stats.names import FILE_SIZE

COLUMNS = (
    "method", "sparsity", FILE_SIZE, "compression_ratio", "test_accuracy", "test_accuracy_before", "rate", "definition",
    "source",
)  # fmt: skip

STORAGE = "bits before ÷ bits after, counting sparse indices, codebook and Huffman codes as Han et al. do"
SHARE = "number of weights ÷ number of nonzero weights; nothing is counted for their positions"
CODED = "float32 bytes ÷ bytes that an arithmetic coder wrote, with the model that decoding needs"
SEEDED = "float32 bytes ÷ bytes of indices; the decoder draws the weights they choose from with a seed it shares"
PALETTE = "float32 bytes ÷ bytes of the palettes and indices of all layers"


@dataclass(frozen=True)
class Result:
    """One row of a paper's table: test errors and nonzero share in percent.

    Attributes:
        nonzero: None where the paper does not say.
        file_bytes: None where the rate follows from a formula.
    """

    method: str
    error_before: float | None
    error_after: float
    nonzero: float | None
    rate: float
    definition: str
    source: str
    file_bytes: int | None = None


HAN = "Han, Mao & Dally 2016, arXiv:1510.00149"
GUO = "Guo, Yao & Chen 2016, arXiv:1608.04493"
ULLRICH = "Ullrich, Meeds & Welling 2017, arXiv:1702.04008"
MOLCHANOV = "Molchanov, Ashukha & Vetrov 2017, arXiv:1701.05369"
HAVASI = "Havasi, Peharz & Hernández-Lobato 2019, arXiv:1810.00440"
OKTAY = "Oktay, Ballé, Singh & Shrivastava 2020, arXiv:1906.06624"
CHO = "Cho, Alizadeh-Vahid, Adya & Rastegari 2022, arXiv:2108.12659"

RESULTS: dict[tuple[str, str], tuple[Result, ...]] = {
    ("mnist", "lenet_300_100"): (
        Result("Deep Compression", 1.64, 1.58, 8.0, 40, STORAGE, HAN),
        Result("Dynamic network surgery", 2.28, 1.99, 1.8, 56, SHARE, GUO),
        Result("Soft weight-sharing (paper)", 1.89, 1.94, 4.3, 64, STORAGE, ULLRICH),
        Result("Sparse variational dropout", None, 1.92, 100 / 68, 68, SHARE, MOLCHANOV),
        Result("Entropy-penalised reparameterisation", None, 1.9, None, 124, CODED, OKTAY, 8_560),
    ),
    ("mnist", "lenet5"): (
        Result("Deep Compression", 0.80, 0.74, 8.0, 39, STORAGE, HAN),
        Result("Dynamic network surgery", 0.91, 0.91, 0.9, 108, SHARE, GUO),
        Result("Soft weight-sharing (paper)", 0.88, 0.97, 0.5, 162, STORAGE, ULLRICH),
        Result("Sparse variational dropout", None, 0.75, 100 / 280, 280, SHARE, MOLCHANOV),
        Result("Entropy-penalised reparameterisation", None, 1.0, None, 606, CODED, OKTAY, 2_840),
        # 1.52 kB in the paper, of 1,024 bytes by its rate; the second point has about half that rate.
        Result("Minimal random code learning", None, 0.96, None, 1110, SEEDED, HAVASI, 1_553),
        Result("Minimal random code learning, lowest error", None, 0.69, None, 555, SEEDED, HAVASI, 3_107),
    ),
    # Networks that no name here builds: that VGG-16 has a hidden layer more, that ResNet-20 four times the channels.
    ("cifar10", "VGG-16"): (
        Result("Entropy-penalised reparameterisation", 6.6, 10.0, None, 590, CODED, OKTAY, 101_000),
    ),
    ("cifar10", "ResNet-20-4"): (
        Result("Entropy-penalised reparameterisation", 5.0, 8.8, None, 134, CODED, OKTAY, 128_000),
    ),
    ("imagenet", "ResNet-50"): (
        Result("Differentiable k-means", None, 25.5, None, 29.4, PALETTE, CHO, 3_480_000),  # 3.32 MB of 2**20 bytes
    ),
}
"""Data set and network → what papers report."""


def published(meta: Mapping[str, Any]) -> pd.DataFrame:
    """Published compression results for a study's own network and data; empty where the papers have none.

    Only the network of the papers on the data of the papers: a point from another task would say nothing.

    Args:
        meta: `study.json`.
    Returns: columns `COLUMNS`; sparsity and accuracies in percent, accuracies on **test** images. A result has a
        sparsity, or a number of bytes with their ratio, or both; NaN where the paper does not count it.
    """
    network = meta.get("models", {}).get("network", {}).get("name", "")
    results = RESULTS.get((meta.get("data", {}).get("name", ""), network), ())
    frame = pd.DataFrame([asdict(result) for result in results])
    if frame.empty:
        return pd.DataFrame(columns=pd.Index(COLUMNS))
    numbers = ["nonzero", "error_before", "error_after", FILE_SIZE]
    frame[numbers] = frame[numbers].astype(float)
    frame["sparsity"] = 100 - frame["nonzero"]
    frame["compression_ratio"] = frame["rate"].where(frame[FILE_SIZE].notna())
    frame["test_accuracy"] = 100 - frame["error_after"]
    frame["test_accuracy_before"] = 100 - frame["error_before"]
    return frame[list(COLUMNS)]
