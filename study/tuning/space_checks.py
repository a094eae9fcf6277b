"""What is refused of a search space before anything starts: each as one line, with the flag or file that says it."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from study.errors import UserError
from study.methods.method import ONE_MINUS, Method, hparams_from
from study.records.columns import MEASURED
from study.records.search_domains import Choice, Value
from study.settings import Settings, Values

if TYPE_CHECKING:
    from study.tuning.space import SearchSpace


def check(space: SearchSpace, method: Method, settings: Settings | None = None) -> None:
    """Refuse what the method does not know, before anything starts.

    Args:
        settings: of the study; with them, values that a flag of that name would not take are refused too.
    Raises:
        UserError: a name that is no hyperparameter of the method, with the nearest that is, such a value, a
            condition that is never met, or an objective that no trial reports.
    """
    known = method.searchable()
    for name, value, (place, part) in _values(space):
        if name not in known:
            raise UserError(f"{place}: {name}{part}: {_no_hyperparameter(name, known)}")
        if problem := _problem(method, settings, name, value):
            raise UserError(f"{place}: {name} of {_shown(value)}{part}: must be {problem}")
    idle = space.true_of_all_trials(method.without_effect, settings) if settings else {}
    for name in space.domains:
        if reason := idle.get(name.removeprefix(ONE_MINUS)):
            place, part = _place(space, name)
            raise UserError(f"{place}: {name}{part}: has no effect {reason}; leave it out")
    if settings:
        _check_trials(space, method, settings)
    _check_conditions(space)
    _check_objectives(space, method)


def _values(space: SearchSpace) -> Iterator[tuple[str, Value, tuple[str, str]]]:
    """Hyperparameter, value, and its place, of the ends of every domain and of the baselines."""
    for name, domain in space.domains.items():
        yield from ((name, value, _place(space, name)) for value in domain.ends())
    for baseline, values in space.baselines.items():
        yield from ((name, value, (space.file, f" in baseline {baseline!r}")) for name, value in values.items())


def _check_trials(space: SearchSpace, method: Method, settings: Settings) -> None:
    """Refuse a value that no trial takes: of each hyperparameter the ends, the others in the middle."""
    middle = {name: domain.middle() for name, domain in space.domains.items()}
    for name in sorted(space.domains, key=lambda name: name not in space.origins):  # what was typed is to blame first
        for value in space.domains[name].ends():
            if reason := _refused(method, settings, {**middle, name: value}):
                place, part = _place(space, name)
                raise UserError(f"{place}: {name} of {_shown(value)}{part}: no trial takes it ({reason})")
    for baseline, values in space.baselines.items():
        if reason := _refused(method, settings, values):
            raise UserError(f"{space.file}: baseline {baseline!r} is refused ({reason})")


def _place(space: SearchSpace, name: str) -> tuple[str, str]:
    """Where a hyperparameter's domain is said, as a message has it before and behind its name."""
    return (space.origins[name], "") if name in space.origins else (space.file, " in SPACE")


def _check_conditions(space: SearchSpace) -> None:
    for name, condition in space.conditions.items():
        where = space.origins.get(f"when {name}", f"{space.file}: CONDITIONS of {name}")
        if name not in space.domains:
            raise UserError(f"{where}: it is not searched; add it to SPACE, or with --range or --choice")
        if condition.name not in space.domains:
            near = difflib.get_close_matches(condition.name, space.domains, 1)
            hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join(space.domains)}"
            raise UserError(f"{where}: {condition.name} is not searched; {hint}")
        if condition.name in space.conditions:
            raise UserError(f"{where}: {condition.name} has a condition itself; name one without")
        domain = space.domains[condition.name]
        for value in condition.values:
            if not isinstance(domain, Choice) or not domain.contains(value):
                raise UserError(f"{where}: {condition.name} is never {_shown(value)}; it is {domain}")


def _check_objectives(space: SearchSpace, method: Method) -> None:
    """Refuse an objective that no trial of the method reports, where the method says what they report."""
    for name in space.objectives:
        if method.metrics and name not in (*method.metrics, *MEASURED):
            near = difflib.get_close_matches(name, (*method.metrics, *MEASURED), 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join((*method.metrics, *MEASURED))}"
            place = space.origins.get(name, f"{space.file}: the objective {name}")
            raise UserError(f"{place}: no trial of this study reports {name}; {hint}")


def types_of(method: Method, name: str) -> list[type]:
    """The types of a hyperparameter's values; those of its distance from 1 are numbers."""
    if name.startswith(ONE_MINUS):
        return [float]
    hint = typing.get_type_hints(method.hparams)[name]
    return [kind for kind in (typing.get_args(hint) or (hint,)) if kind is not type(None)]


def _no_hyperparameter(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"no such hyperparameter; did you mean {near[0]}?"
    return f"no such hyperparameter; give some of {', '.join(k for k in known if not k.startswith(ONE_MINUS))}"


def _shown(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _problem(method: Method, settings: Settings | None, name: str, value: Value) -> str:
    """What a value of a hyperparameter must be, or "" where it is that: its type, and what a flag of its name takes."""
    field = name.removeprefix(ONE_MINUS)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    kinds = types_of(method, field)
    if field != name:
        if not number or float not in kinds:
            return "a number, of a hyperparameter that is one"
        value = 1 - float(str(value))
    elif bool in kinds and not isinstance(value, bool):
        return "True or False"
    elif int in kinds and not (number and isinstance(value, int)):
        return "a whole number"
    elif float in kinds and not number:
        return "a number"
    elif str in kinds and not isinstance(value, str):
        return "a word"
    return "" if settings is None else type(settings).problem(field, value)


def _refused(method: Method, settings: Settings, values: Values) -> str:
    """Why no trial has these values, or ""."""
    make = method.hyperparameters or partial(hparams_from, method.hparams)
    try:
        make(settings, values)
    except ValueError as error:
        return str(error)
    except TypeError as error:
        missing = re.findall("'(.*?)'", str(error).partition(": ")[2])
        return f"nothing says its {' and '.join(missing)}" if missing else ""
    return ""
