"""The short version of fuzz.py: a few hundred damaged and hostile files, the same at every run."""

from __future__ import annotations

import fuzz
import pytest

INPUTS = {"codebook": 150, "trace": 25, "study": 60, "trials.csv": 25, "history.csv": 25, "confirmed.csv": 25}


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, fuzz.Target]:
    return fuzz.targets(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", INPUTS)
def test_nothing_but_a_user_error(name: str, targets: dict[str, fuzz.Target]) -> None:
    """Every input is read, or refused in one line, in time and in memory; both happen."""
    counts, findings = fuzz.run(targets[name], name, 0, range(INPUTS[name]))
    assert not findings
    assert counts["read"] and (counts["refused"] or name == "trace")  # a damaged trace is none


def test_the_fuzzer_notices(targets: dict[str, fuzz.Target], monkeypatch: pytest.MonkeyPatch) -> None:
    """Another exception, a message of two lines, much time and much memory are findings."""

    def fails(data: bytes) -> None:
        raise KeyError("x")

    assert fuzz.outcome(fails, b"")[0] == "another exception"
    monkeypatch.setattr(fuzz, "LIMIT", -1.0)
    assert fuzz.outcome(len, b"")[0] == "too slow"
    monkeypatch.setattr(fuzz, "MEMORY", 10)
    # Linux counts a process's pages by processor, and sums them up to 128 MB wrong where there are many processors.
    assert fuzz.outcome(lambda _: bytearray(b"x" * (400 << 20)), b"")[0] == "too large"
