"""Study folders with one file damaged at random: reading one works, or says in one line what is wrong.

    python tests/faults/damaged_folders.py --count 600             # reading, and continuing as far as the tables go
    python tests/faults/damaged_folders.py --count 600 --report    # the complete page as well

The suite does forty (tests/records/test_damaged_folders.py).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import synthetic

from analysis.page import study_page
from analysis.query import table_of
from analysis.stats.summary import summarise
from study.errors import UserError
from study.records import paths, study_folder
from study.records.ledger import Ledger

STRANGE: list[Any] = [
    None, "", "text", "../../victim", "\x1b[31m", "\ud800", True, -1, 0, 1e308, -0.5, 10**30, 10**400, [], [None], {},
    {"a": [1]}, [[[[]]]], "1", "9" * 5000, {"low": 2, "high": 1}, {"type": "choice", "values": []},
]  # fmt: skip
CELLS = [
    "", "text", "-1", "1e999", "nan", "-inf", "1.5", "/home/me/victim", '"', "True", "0", "9" * 400, "\x1b[31m", ",",
]  # fmt: skip


def good_folders(root: Path) -> list[Path]:
    """A study of two kinds, with all that a folder can have."""
    kd = synthetic.write_traced(root / "kd", "kd", trials=12, epochs=4)
    return [kd, synthetic.write_traced(root / "sws", "sws", trials=12, epochs=8)]


def flip_bits(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 3, 20])):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def cut(content: bytes, draw: random.Random) -> bytes:
    start, end = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    return draw.choice([content[:start], content[start:], content[:start] + content[end:]])


def insert(content: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(content) + 1)
    rubbish = [b"\0", b"\xff\xfe", b"\r", b"\xef\xbb\xbf", b'"', b"," * 5, b"\n" * 3, b"[" * 100_000, b"NaN", b"1e999"]
    return content[:place] + draw.choice(rubbish) + content[place:]


def change_lines(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    i, j = draw.randrange(len(lines)), draw.randrange(len(lines))
    what = draw.choice(["delete", "double", "swap", "head"])
    if what == "delete":
        del lines[i : i + draw.choice([1, 1, 5])]
    elif what == "double":
        lines.insert(j, lines[i])
    elif what == "swap":
        lines[i], lines[j] = lines[j], lines[i]
    else:
        lines = lines[:1]
    return b"".join(lines)


def change_json(content: bytes, draw: random.Random) -> bytes:
    """Another value, or none, in place of one of the document's."""
    document = json.loads(content)
    holders = [document]
    for holder in holders:  # grows as it goes
        children = holder.values() if isinstance(holder, dict) else holder
        holders += [child for child in children if isinstance(child, dict | list) and child]
    holder = draw.choice(holders)
    key = draw.choice(list(holder)) if isinstance(holder, dict) else draw.randrange(len(holder))
    if draw.random() < 0.25:
        del holder[key]
    elif isinstance(holder, dict) and draw.random() < 0.1:
        holder[draw.choice(["../x", "", "\x1b", "state", "a" * 5000])] = holder.pop(key)
    else:
        holder[key] = draw.choice(STRANGE)
    return json.dumps(document).encode()


def change_cells(content: bytes, draw: random.Random) -> bytes:
    lines = content.decode().split("\n")
    for _ in range(draw.choice([1, 1, 4])):
        row = draw.randrange(len(lines) - 1)
        cells = lines[row].split(",")
        cells[draw.randrange(len(cells))] = draw.choice(CELLS)
        lines[row] = ",".join(cells)
    return "\n".join(lines).encode()


def damage(folder: Path, draw: random.Random) -> str:
    """Damage one file; returns what was done."""
    names = [paths.STUDY, paths.TRIALS, paths.HISTORY, paths.CONFIRMED]
    path = draw.choice([*(folder / name for name in names), *sorted((folder / paths.TRACES).iterdir())[:2]])
    injuries: list[Callable[[bytes, random.Random], bytes]] = [flip_bits, cut, insert]
    if path.suffix in (".csv", ".json"):
        injuries.append(change_lines)
    injuries += {".json": [change_json] * 6, ".csv": [change_cells] * 4}.get(path.suffix, [])
    if draw.random() < 0.03:
        path.unlink()
        if draw.random() < 0.7:
            path.mkdir()
        return f"{path.name} is a folder or gone"
    injury = draw.choice(injuries)
    path.write_bytes(injury(path.read_bytes(), draw))
    return f"{injury.__name__} of {path.name}"


def look(folder: Path, report: bool) -> str:
    """Read it as the commands do; "read", or "refused" with one line.

    Raises:
        Exception: anything else, and then there is a fault.
    """
    outcome = "read"
    try:
        study = study_folder.load(folder)
        summarise(study)
        table_of(study)
        if report:
            study_page.write(folder)
    except UserError as error:
        assert "\n" not in str(error) and str(folder) in str(error), f"not one line with the file: {error}"
        assert str(error).isprintable(), f"not printable: {error!r}"
        outcome = "refused"
    try:
        Ledger.open(folder)
    except UserError as error:
        assert "\n" not in str(error) and str(folder) in str(error), f"not one line with the file: {error}"
    return outcome


def try_one(good: list[Path], seed: int, work: Path, report: bool = False) -> tuple[str, str]:
    """What was done to a copy of a good folder, and what became of it; a fault's name begins with "FAULT"."""
    draw = random.Random(seed)
    folder = Path(shutil.copytree(draw.choice(good), work / f"{seed}"))
    what = damage(folder, draw)
    try:
        return what, look(folder, report)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        own = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
        where = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else place.filename
        return what, f"FAULT {type(error).__name__} at {where}: {' '.join(str(error).split())[:150]}"
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--first", type=int, default=0, help="seed of the first one")
    parser.add_argument("--report", action="store_true", help="build the complete page, too")
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as root:
        good = good_folders(Path(root))
        for seed in range(options.first, options.first + options.count):
            what, outcome = try_one(good, seed, Path(root), options.report)
            counts[outcome.split()[0]] += 1
            if outcome.startswith("FAULT"):
                print(f"{seed}: {what}: {outcome}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))
    raise SystemExit(bool(counts["FAULT"]))


if __name__ == "__main__":
    main()
