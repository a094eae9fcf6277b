"""The search space of a study as typed domains, and what `study.json` records of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from ray.tune.search.optuna import OptunaSearch
from ray.tune.search.sample import Domain, Integer, LogUniform


def searched(spaces: Any) -> dict[str, dict[str, Any]]:
    """What `search_spaces` says of a kind of study, as JSON values."""
    return {
        "objectives": dict(spaces.OBJECTIVES),
        "space": {name: _domain(domain) for name, domain in spaces.SPACE.items()},
        "baselines": dict(spaces.BASELINES),
    }


def _domain(domain: Domain) -> dict[str, Any]:
    integer = isinstance(domain, Integer)
    high = domain.upper - 1 if integer else domain.upper  # type: ignore[attr-defined]
    log = isinstance(domain.get_sampler(), LogUniform)
    return {"type": "int" if integer else "float", "low": domain.lower, "high": high, "log": log}  # type: ignore[attr-defined]


def distributions(space: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Tune domains as Optuna distributions."""
    return dict(OptunaSearch.convert_search_space(dict(space)))


def cast_value(name: str, value: Any, spaces: Any) -> Any:
    """A hyperparameter from a table, as the type that its domain has."""
    return int(value) if isinstance(spaces.SPACE[name], Integer) else float(value)
