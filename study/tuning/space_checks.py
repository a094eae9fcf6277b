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
from study.records.paths import TRIAL_ID, name_problem
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
    _check_baselines(space, method)
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
    _check_conditions(space)
    if settings:
        _check_trials(space, method, settings)
    _check_objectives(space, method)


def _values(space: SearchSpace) -> Iterator[tuple[str, Value, tuple[str, str]]]:
    """Hyperparameter, value, and its place, of the ends of every domain and of the baselines."""
    for name, domain in space.domains.items():
        yield from ((name, value, _place(space, name)) for value in domain.ends())
    for baseline, values in space.baselines.items():
        yield from ((name, value, (space.file, f" in baseline {baseline!r}")) for name, value in values.items())


def _check_trials(space: SearchSpace, method: Method, settings: Settings) -> None:
    """Refuse a value that no trial takes, whatever the others are: of each hyperparameter the ends, with the others in
    the middle, but for one at another end. And a trial that lacks what it cannot do without."""
    middle = {name: domain.middle() for name, domain in space.domains.items()}
    contexts = [middle, *({**middle, name: v} for name, domain in space.domains.items() for v in domain.ends())]
    for context in contexts:
        values = _active(space, context)
        if lacking := [name for name in missing(method, settings, values) if name in space.conditions]:
            where = space.origins.get(f"when {lacking[0]}", f"{space.file}: CONDITIONS of {lacking[0]}")
            raise UserError(f"{where}: no trial does without {lacking[0]}; give it no condition")
    for name in sorted(space.domains, key=lambda name: name not in space.origins):  # what was typed is to blame first
        for value in space.domains[name].ends():
            configurations = [_active(space, {**context, name: value}) for context in contexts]
            reasons = [_refused(method, settings, values) for values in configurations if name in values]
            if reasons and all(reasons):
                place, part = _place(space, name)
                raise UserError(f"{place}: {name} of {_shown(value)}{part}: no trial takes it ({reasons[0]})")
    for baseline, values in space.baselines.items():
        if reason := _refused(method, settings, values):
            raise UserError(f"{space.file}: baseline {baseline!r} is refused ({reason})")


def _active(space: SearchSpace, values: Values) -> Values:
    names = space.active(values)
    return {name: value for name, value in values.items() if name in names}


def _check_baselines(space: SearchSpace, method: Method) -> None:
    """Refuse names that cannot be those of rows and files, or are those of other rows."""
    for baseline in space.baselines:
        where = f"{space.file}: baseline {baseline!r} in BASELINES"
        if problem := name_problem(baseline):
            raise UserError(f"{where}: {problem}")
        if TRIAL_ID.fullmatch(baseline) or baseline == method.shared_work.name:
            raise UserError(f"{where}: is the name of another row of the tables; give it another one")


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
    try:
        _hyperparameters(method, settings, values)
    except ValueError as error:
        return str(error)
    except TypeError:
        lacking = missing(method, settings, values)
        return f"nothing says its {' and '.join(lacking)}" if lacking else ""
    return ""


def missing(method: Method, settings: Settings, values: Values) -> list[str]:
    """Hyperparameters that a trial with these values lacks: neither searched, nor a setting, nor with a default."""
    try:
        _hyperparameters(method, settings, values)
    except TypeError as error:
        return re.findall("'(.*?)'", str(error).partition(": ")[2])
    except ValueError:
        pass
    return []


def _hyperparameters(method: Method, settings: Settings, values: Values) -> object:
    make = method.hyperparameters or partial(hparams_from, method.hparams)
    return make(settings, values)
