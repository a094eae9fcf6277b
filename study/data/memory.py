"""Memory that is left for data, so that a data set that does not fit is refused before it is read."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from study.errors import UserError


def require_memory(needed: int, what: str) -> None:
    """Refuse what does not fit into memory.

    Args:
        needed: bytes.
        what: begins the message: "--data-dir DIR: its 70,000 images".
    Raises:
        UserError: with the bytes needed and those available.
    """
    available = available_memory()
    if needed > available:
        raise UserError(
            f"{what} need {needed:,} bytes of memory, and {available:,} are available. To fix it: give fewer or "
            "smaller images, or a machine with more memory"
        )


def available_memory() -> int:
    """Bytes that this process can still take: the least of what the machine, its control group and its limit leave."""
    return max(0, min(_of_machine(), *_of_control_groups(), _of_limit()))


def main_memory() -> int:
    """Bytes that this process could take if it were alone: the machine's, or the least limit of its control groups."""
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_of_control_groups(limits=True)])


def _of_machine() -> int:
    for line in _lines(Path("/proc/meminfo")):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _of_control_groups(
    root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup"), *, limits: bool = False
) -> list[int]:
    """What each control group that this process is in leaves, as a container or a batch system sets it; or what it
    allows in all."""
    left = []
    for line in _lines(groups):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, limit, used = (
            (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
            if controllers
            else (root, "memory.max", "memory.current")
        )
        inner = Path(path.lstrip("/"))
        for folder in (top, *(top / parent for parent in (inner, *inner.parents))):  # a container sees its own as top
            numbers = [_number(folder / name) for name in (limit, used)]
            if limits and numbers[0] is not None:
                left.append(numbers[0])
            elif numbers[0] is not None and numbers[1] is not None:
                left.append(numbers[0] - numbers[1] + _file_cache(folder / "memory.stat"))
    return left


def _of_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return 2**63
    pages = next(iter(_lines(Path("/proc/self/statm"))), "0").split()[0]
    return soft - int(pages) * os.sysconf("SC_PAGE_SIZE")


def _file_cache(path: Path) -> int:
    """Bytes of files that the system drops when memory is short, though they count as used."""
    counts = dict(line.split(maxsplit=1) for line in _lines(path) if " " in line)
    return int(counts.get("total_inactive_file", counts.get("inactive_file", "0")))


def _number(path: Path) -> int | None:
    """None where there is no such file, or no limit."""
    text = next(iter(_lines(path)), "")
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
