"""A student that comes to harm: every one that begins to train takes the next fate from the file FATES names."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from study.models import registry


def next_fate() -> str:
    """The first line of the file, which leaves it; "" when there are none left."""
    with Path(os.environ["FATES"]).open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        fates = file.read().split()
        file.seek(0)
        file.truncate()
        file.write("\n".join(fates[1:]))
    return fates[0] if fates else ""


IS_TRIAL = Path(sys.argv[0]).name == "default_worker.py"
"""Whether this is a process of Ray's: before Ray starts, the command tries a step, which comes to no harm."""


class Faulty(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.fate: str | None = None

    def forward(self, images: Tensor) -> Tensor:
        if self.training and self.fate is None and IS_TRIAL:
            self.fate = next_fate()
        logits: Tensor = self.network(images)
        if not self.training:
            return logits
        if self.fate == "raise":
            raise ArithmeticError("this student raises")
        if self.fate == "hang":
            time.sleep(1e6)
        if self.fate == "kill":
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does when memory runs out
        if self.fate == "memory":
            torch.ones(10**12)
        return logits * float("nan") if self.fate == "nan" else logits


def build(input_shape: tuple[int, int, int], classes: int, width: float = 0.125) -> nn.Module:
    return Faulty(registry.build("minivgg", input_shape, classes, width=width))
