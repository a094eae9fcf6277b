"""What a command builds on, checked before anything starts or is written: the study that it continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from study import describe
from study.data import Part, Splits
from study.errors import UserError


def check_spaces(recorded: dict[str, Any], spaces: Any, folder: Path) -> None:
    """Refuse a search space, objectives or baselines other than those a study was begun with.

    Raises:
        UserError: with each that differs.
    """
    differ = [
        f"{what} {name!r} is {now.get(name)} (the study has {recorded[what].get(name)})"
        for what, now in describe.searched(spaces).items()
        for name in dict.fromkeys((*now, *recorded.get(what, now)))
        if now.get(name) != recorded.get(what, now).get(name)
    ]
    if differ:
        file = spaces.__name__.replace(".", "/") + ".py"
        raise UserError(f"{folder} was begun with another {file}: {', '.join(differ)}; choose another --name")


def check_data(recorded: dict[str, Any], settings: Any, data: Splits, test: Part) -> None:
    """Refuse data other than those a study was begun with; one that did not record which they are is let through.

    Raises:
        UserError: some part differs.
    """
    known, now = recorded.get("data", {}).get("fingerprints", {}), describe.fingerprints(data, test)
    differ = [part for part in now if part in known and known[part] != now[part]]
    if differ:
        had = recorded["settings"].get("data_dir")
        named = f"--data-dir {settings.data_dir}" if settings.data_dir else f"--dataset {settings.dataset}"
        raise UserError(
            f"{named}: its {', '.join(differ)} images or labels are not those that {settings.folder} was begun with"
            f"{f', which lay in {had}' if had else ''}; give those, or choose another --name"
        )
