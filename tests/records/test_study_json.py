"""`study.json` of right syntax and wrong types, and of wrong syntax, is one line that names the file and the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic

from study.errors import UserError
from study.records import paths, study_folder
from study.records.study_folder import load

HUGE = 10**400


def written(folder: Path) -> dict[str, Any]:
    """A good study's document, as it stands in its file."""
    study_folder.write_meta(folder, synthetic.meta_of("sws", 4))
    document: dict[str, Any] = json.loads((folder / paths.STUDY).read_text())
    return document


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load(folder)
    line = str(error.value)
    assert line.startswith(f"{folder / paths.STUDY}: ") and line.isprintable(), line
    return line


WRONG: list[tuple[str, Any]] = [
    ("kind", None), ("kind", 3), ("space", []), ("space", {"tau": 1}), ("objectives", {}), ("objectives", ["x"]),
    ("objectives", {"val_accuracy": "up"}), ("objectives", {"state": "max"}), ("baselines", []),
    ("baselines", {"../../victim": {}}), ("baselines", {"x": {"tau": [1]}}), ("seed", "0"), ("seed", -1),
    ("seed", HUGE),
    ("settings", []), ("settings", {"num_samples": "many"}), ("settings", {"num_samples": 0}),
    ("settings", {"min_accuracy": "high"}), ("settings", {"epochs": [1]}), ("settings", {"epochs": HUGE}),
    ("data", None),
    ("data", {"classes": 10}), ("data", {"classes": [1]}), ("data", {"shape": [1] * 5}),
    ("data", {"validation": "all"}),
    ("data", {"mean": ["0"]}), ("models", []), ("models", {"network": "lenet"}), ("models", {"network": {"name": 1}}),
    ("models", {"network": {"name": "x", "parameters": "many"}}), ("versions", ["torch"]), ("versions", {"torch": 2}),
    ("title", 5), ("subject", None), ("reference", []), ("shared_baseline", "/etc/passwd"), ("shared_baseline", 1),
    ("replaced", "teacher"), ("dense", {"teacher": "nobody"}), ("headings", {"x": 1}), ("counts_over", 7),
    ("columns", {"tau": {}}), ("columns", {"tau": {"label": "τ", "digits": -1}}),
    ("columns", {"tau": {"label": "τ", "scale": "round"}}), ("columns", {"tau": {"label": "τ", "phrase": "{0.x}"}}),
    ("shared_work", "../../victim"), ("continued", {}), ("continued", [{"created": "now"}]), ("command", ["run"]),
    ("space", {"tau": {"type": "float", "low": "a", "high": 1}}),
    ("space", {"tau": {"type": "float", "low": 2, "high": 1}}),
    ("space", {"tau": {"type": "float", "low": 0, "high": 1, "log": True}}), ("space", {"tau": {"type": "float"}}),
    ("space", {"tau": {"type": "choice", "values": []}}), ("space", {"trial_id": {"type": "choice", "values": [1]}}),
    ("name", "\x1b[31mred"), ("name", "\ud800"), ("command", "\0"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), WRONG, ids=lambda part: str(part)[:40].encode("ascii", "replace").decode())
def test_a_field_of_the_wrong_type_is_named(field: str, value: Any, tmp_path: Path) -> None:
    """One line has the file and the field; text that cannot be printed is not shown as it is."""
    document = written(tmp_path)
    (tmp_path / paths.STUDY).write_text(json.dumps({**document, field: value}))
    line = refused(tmp_path)
    assert field in line or "cannot be printed" in line


@pytest.mark.parametrize("field", ["kind", "space", "objectives", "seed"])
def test_a_field_that_every_reader_needs_is_missed(field: str, tmp_path: Path) -> None:
    """Without it the study cannot be read."""
    document = written(tmp_path)
    del document[field]
    (tmp_path / paths.STUDY).write_text(json.dumps(document))
    assert field in refused(tmp_path)


BROKEN: dict[str, Callable[[str], bytes]] = {
    "empty": lambda text: b"",
    "no JSON": lambda text: b"{",
    "no object": lambda text: b"[1]",
    "not UTF-8": lambda text: text.encode().replace(b"sws", b"s\xffs"),
    "UTF-16": lambda text: text.encode("utf-16"),
    "twice a key": lambda text: text.replace('"kind"', '"kind": "kd", "kind"', 1).encode(),
    "NaN": lambda text: text.replace('"seed": 0', '"seed": NaN').encode(),
    "Infinity": lambda text: text.replace('"seed": 0', '"later": -Infinity, "seed": 0').encode(),
    "too large a number": lambda text: text.replace('"seed": 0', '"later": 1e999, "seed": 0').encode(),
    "more digits than Python reads": lambda text: text.replace('"seed": 0', f'"seed": {"9" * 5000}').encode(),
    "deep": lambda text: text.replace('"seed": 0', f'"later": {"[" * 100_000}{"]" * 100_000}, "seed": 0').encode(),
    "less deep": lambda text: text.replace('"seed": 0', f'"later": {"[" * 500}{"]" * 500}, "seed": 0').encode(),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused(case: str, tmp_path: Path) -> None:
    """What `json.dumps` would not have written is damage, also where Python reads it."""
    written(tmp_path)
    text = (tmp_path / paths.STUDY).read_text()
    content = BROKEN[case](text)
    assert content != text.encode()
    (tmp_path / paths.STUDY).write_bytes(content)
    assert "damaged (" in refused(tmp_path)


def test_a_mark_at_the_beginning_is_passed_over(tmp_path: Path) -> None:
    """Some editors write a byte order mark; nothing is lost by it."""
    written(tmp_path)
    content = (tmp_path / paths.STUDY).read_bytes()
    (tmp_path / paths.STUDY).write_bytes(b"\xef\xbb\xbf" + content)
    assert load(tmp_path).meta["kind"] == "sws"


def test_what_is_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in the place of each file, a file that may not be read, and a name longer than the system takes."""
    written(tmp_path)
    (tmp_path / paths.STUDY).rename(tmp_path / "aside")
    (tmp_path / paths.STUDY).mkdir()
    assert "cannot be read" in refused(tmp_path)
    (tmp_path / paths.STUDY).rmdir()
    (tmp_path / "aside").rename(tmp_path / paths.STUDY)
    for name in (paths.TRIALS, paths.HISTORY, paths.CONFIRMED):
        (tmp_path / name).mkdir()
        with pytest.raises(UserError, match=f"^{tmp_path / name}: cannot be read"):
            load(tmp_path)
        (tmp_path / name).rmdir()
    for long in (Path("x" * 5000), tmp_path / ("y/" * 2500)):
        with pytest.raises(UserError, match="no study"):
            load(long)
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    assert "Permission denied" in refused(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", lambda path: (_ for _ in ()).throw(MemoryError()))
    assert "memory" in refused(tmp_path)
