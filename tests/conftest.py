"""What tests share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from study.data import registry
from study.data.splits import Splits
from study.training import network
from study.training.network import Training

torch.set_num_threads(1)  # pytest runs as many processes as there are cores; more threads would wait for each other

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

# Files that run complete studies.
STUDIES = (
    "test_study",
    "test_from_python",
    "test_packs",
    "test_extending",
    "test_nodes",
    "test_node_data",
    "test_faults",
    "test_monitor",
    "test_bucket",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first, so that no process is left with one of them when the others are through."""
    items.sort(key=lambda item: item.path.stem not in STUDIES)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as for what a shell's script starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # commands that tests start shall hear it


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a window; tests that need one are skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def digits() -> Splits:
    return registry.load("digits", None)[0]


@pytest.fixture(scope="module")
def pretrained(digits: Splits) -> nn.Module:
    """LeNet-300-100 after five epochs; tests change copies of it."""
    training = Training("lenet_300_100", epochs=5, batch_size=32, weight_decay=0.0)
    return network.fit_teacher(training, digits, lambda row: None)
