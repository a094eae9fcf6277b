"""What `--show-space` prints: what a study searches, and what else it could."""

from __future__ import annotations

import textwrap

from study.methods import registry
from study.methods.method import ONE_MINUS
from study.records.search_domains import Choice, Range
from study.settings import Settings
from study.tuning import measuring
from study.tuning.space import SearchSpace


def described(settings: Settings) -> str:
    """The search space of a study, for a person.

    Raises:
        UserError: what the study itself would refuse of it.
    """
    space, method = SearchSpace.of_study(settings), registry.method(settings.kind)
    space.check(method, settings)
    measuring.check_objectives(settings, space)
    rows = [(name, _domain(space, name), space.origins.get(name, "")) for name in space.domains]
    lines = [f"{settings.kind} searches ({space.file}):", *_aligned(rows), "", "Objectives:"]
    lines += _aligned([(name, way, space.origins.get(name, "")) for name, way in space.objectives.items()])
    if space.baselines:
        lines += ["", "Baselines, tried in addition:"]
        lines += _aligned(
            [(name, " ".join(f"{k}={v}" for k, v in b.items()), "") for name, b in space.baselines.items()]
        )
    taken = {name.removeprefix(ONE_MINUS) for name in space.domains} | set(method.without_effect(settings))
    further = [name for name in method.searchable() if name not in taken and not name.startswith(ONE_MINUS)]
    text = ", ".join(name for name in further if name not in method.fixed(settings))
    about = "Could be searched or fixed, too, with --range, --choice and --fix (one_minus_NAME is 1 − NAME): "
    return "\n".join([*lines, "", *textwrap.wrap(about + text, 80)])


def _domain(space: SearchSpace, name: str) -> str:
    domain = space.domains[name]
    kind = ""
    if isinstance(domain, Range):
        kind = (", whole numbers" if domain.integer else "") + (", logarithmic" if domain.log else "")
    elif isinstance(domain, Choice) and len(domain.values) == 1:
        return str(domain)
    condition = f", {space.conditions[name]}" if name in space.conditions else ""
    return f"{domain}{kind}{condition}"


def _aligned(rows: list[tuple[str, str, str]]) -> list[str]:
    """Name and value in columns, and the flag that says so."""
    name_width = max((len(name) for name, _, _ in rows), default=0)
    return [f"  {name:<{name_width}}  {value}{f'  ({origin})' if origin else ''}" for name, value, origin in rows]
