"""What is kept of a trial's weights: small, faithful, and without pickle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from study.artifacts.weight_trace import BINS, MOST_FRAMES, SAMPLE, Trace, npz_bytes
from study.records import paths, study_folder
from study.records.atomic_files import write_bytes


def followed(weights: int, epochs: int, components: int = 17) -> Trace:
    """A trace of weights that shrink by one percent an epoch."""
    generator = torch.Generator().manual_seed(1)
    w, trace = torch.randn(weights, generator=generator), Trace()
    for epoch in range(epochs + 1):
        mixture = {name: torch.rand(components, generator=generator) for name in ("means", "sigmas", "proportions")}
        trace.add(epoch, "cluster" if epoch else "before", w * 0.99**epoch, mixture)
    values = torch.tensor([0.0, -1.0, 1.0])
    assignment = torch.where(w.abs() < 2, 0, torch.where(w < 0, 1, 2))
    half = weights // 2
    trace.end(epochs, values[assignment], values, assignment, [("a.weight", half), ("b.weight", weights - half)])
    return trace


def read(trace: Trace, folder: Path) -> dict[str, np.ndarray]:
    write_bytes(paths.trace_of(folder, "t 001"), npz_bytes(trace.arrays()))
    return study_folder.read_trace(folder, "t 001")


@pytest.mark.parametrize(("weights", "epochs", "components"), [(300_000, 500, 64), (50, 3, 2)])
def test_a_trace_is_small_and_whole(weights: int, epochs: int, components: int, tmp_path: Path) -> None:
    """At most MOST_FRAMES epochs, evenly spaced, the first and the quantised weights among them; every weight in one
    bin of every histogram; under 1 MB on disk."""
    found = read(followed(weights, epochs, components), tmp_path)
    shown, phase = found["epoch"].tolist(), found["phase"].tolist()
    assert len(shown) <= MOST_FRAMES + 1
    assert phase[0] == "before" and shown[0] == 0 and phase[-1] == "quantised" and shown[-1] == epochs
    assert len(set(np.diff(shown[:-1]))) == 1
    assert all(found[f"counts/{i}"].sum() == weights for i in range(len(shown)))
    assert all(len(found[f"means/{i}"]) == components for i in range(len(shown) - 1))
    assert (tmp_path / "traces" / "t-001.npz").stat().st_size < 1_000_000


def test_the_same_weights_are_followed(tmp_path: Path) -> None:
    """Sampled weights are those of the same indices at every frame, half of them among the largest of the network."""
    found = read(followed(100_000, 4), tmp_path)
    w = torch.randn(100_000, generator=torch.Generator().manual_seed(1)).numpy()
    assert len(set(found["index"].tolist())) == len(found["index"]) == SAMPLE
    for i, epoch in enumerate(found["epoch"][:-1]):
        np.testing.assert_allclose(found[f"sample/{i}"], w[found["index"]] * 0.99**epoch, rtol=2e-3, atol=1e-4)
    squares = w[found["index"]] ** 2
    assert squares.mean() == pytest.approx((1 + 3) / 2, rel=0.15)  # of a normal weight, by itself and by its square


def test_a_histogram_counts_what_lies_in_its_bins(tmp_path: Path) -> None:
    """Counts are NumPy's over the same edges; weights beyond them are in the outermost bins."""
    w, trace = torch.linspace(-1, 1, 999), Trace()
    trace.add(0, "before", w)
    trace.add(1, "cluster", 4 * w)
    found = read(trace, tmp_path)
    edges = found["edges"]
    assert len(edges) == BINS + 1 and edges[0] == -2 and edges[-1] == 2
    expected = np.histogram(np.clip(4 * w.numpy(), -2, 2), edges)[0]
    assert np.abs(found["counts/1"] - expected).sum() <= 4  # on an edge, either side will do


def test_layers_and_codebook_are_counted(tmp_path: Path) -> None:
    """Nonzero weights of each layer, and weights of each value of the codebook, are those of the assignment."""
    found = read(followed(1000, 1), tmp_path)
    w = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    assert found["layers"].tolist() == ["a.weight", "b.weight"] and found["layer_weights"].tolist() == [500, 500]
    assert found["layer_nonzero"].tolist() == [int((half.abs() >= 2).sum()) for half in w.split(500)]
    assert found["occupancy"].tolist() == [int((w.abs() < 2).sum()), int((w <= -2).sum()), int((w >= 2).sum())]


def test_epochs_before_the_trace_are_added(tmp_path: Path) -> None:
    """A trace that follows a phase without one counts on from that phase's last epoch."""
    trace = followed(50, 4)
    trace.before = 3
    assert read(trace, tmp_path)["epoch"].tolist() == [3, 4, 5, 6, 7, 7]


def test_a_missing_or_damaged_trace_is_none(tmp_path: Path) -> None:
    """No trace, half of one, and one with a pickle in it are read as nothing, and nothing is executed."""
    assert study_folder.read_trace(tmp_path, "t001") == {}
    path = paths.trace_of(tmp_path, "t001")
    content = npz_bytes(followed(100, 2).arrays())
    for damaged in (b"", content[: len(content) // 2]):
        write_bytes(path, damaged)
        assert study_folder.read_trace(tmp_path, "t001") == {}
    np.savez(path, evil=np.array([{"a": 1}], dtype=object))
    assert study_folder.read_trace(tmp_path, "t001") == {}
