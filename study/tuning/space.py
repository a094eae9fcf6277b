"""The search space of a study: what `search_spaces/NAME.py` says, typed and checked before anything starts."""

from __future__ import annotations

import difflib
import importlib
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from optuna.distributions import BaseDistribution

from study.errors import UserError
from study.methods import registry
from study.methods.method import ONE_MINUS, Method, settings_with
from study.records.search_domains import Choice, Domain, Value
from study.settings import Settings, Values
from study.tuning.tune_domains import from_tune, to_optuna

PACKAGE = "search_spaces"


@dataclass(frozen=True)
class SearchSpace:
    """What a kind of study searches.

    Attributes:
        name: of its module, which is that of the kind unless the method has several.
        domains: hyperparameter → where it is searched.
        objectives: metric → "max" or "min".
        baselines: name → hyperparameters, of configurations that are tried in addition to the search.
    """

    name: str
    domains: Mapping[str, Domain]
    objectives: Mapping[str, str]
    baselines: Mapping[str, Values]

    @classmethod
    def load(cls, name: str) -> SearchSpace:
        """The search space of this kind of study.

        Raises:
            UserError: there is none, or one that says something else than domains, directions and configurations.
        """
        try:
            module = importlib.import_module(f"{PACKAGE}.{name}")
        except ModuleNotFoundError as error:
            raise UserError(
                f"{file_of(name)}: there is none ({error}); write one, see .github/CONTRIBUTING.md"
            ) from error
        except Exception as error:  # a domain that Ray Tune refuses, or anything else in a user's file
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{file_of(name)}: cannot be read ({reason}); .github/CONTRIBUTING.md says what it must have"
            ) from error
        space, objectives, baselines = (_part(module, name, part) for part in ("SPACE", "OBJECTIVES", "BASELINES"))
        return cls.of(name, space, objectives, baselines)

    @classmethod
    def of(
        cls, name: str, space: Mapping[str, object], objectives: Mapping[str, Any], baselines: Mapping[str, Any]
    ) -> SearchSpace:
        """From Ray Tune's domains.

        Raises:
            UserError: a value that is no domain that can be searched, or an objective without a direction.
        """
        if not space or not objectives:
            raise UserError(f"{file_of(name)}: SPACE and OBJECTIVES must name one thing or more")
        for metric, direction in objectives.items():
            if direction not in ("max", "min"):
                raise UserError(f"{file_of(name)}: objective {metric} is {direction!r}; give 'max' or 'min'")
        return cls(name, {k: _domain(name, k, v) for k, v in space.items()}, dict(objectives), dict(baselines))

    @classmethod
    def of_study(cls, settings: Settings) -> SearchSpace:
        """The search space of a study's kind, without what its settings fix.

        Raises:
            UserError: see `load`; or nothing is left.
        """
        method = registry.method(settings.kind)
        space = cls.load(method.search_space(settings))
        fixed = space.true_of_all_trials(method.fixed, settings)
        domains = {name: domain for name, domain in space.domains.items() if name not in fixed}
        if not domains:
            raise UserError(f"{file_of(space.name)}: SPACE has only what is fixed: {'; '.join(fixed.values())}")
        return cls(space.name, domains, space.objectives, space.baselines)

    def check(self, method: Method, settings: Settings | None = None) -> None:
        """Refuse what the method does not know, before anything starts.

        Args:
            settings: of the study; with them, values that a flag of that name would not take are refused too.
        Raises:
            UserError: a name that is no hyperparameter of the method, with the nearest that is, or such a value.
        """
        known = method.searchable()
        groups = {"SPACE": self.domains, **{f"baseline {b!r}": values for b, values in self.baselines.items()}}
        for where, names in groups.items():
            for name in names:
                if name not in known:
                    raise UserError(f"{file_of(self.name)}: {name} in {where}: {_no_hyperparameter(name, known)}")
                values = self.domains[name].ends() if where == "SPACE" else [self.baselines[where[10:-1]][name]]
                for value in values:
                    if problem := _problem(method, settings, name, value):
                        raise UserError(
                            f"{file_of(self.name)}: {name} of {_shown(value)} in {where}: must be {problem}"
                        )
        idle = self.true_of_all_trials(method.without_effect, settings) if settings else {}
        for name in self.domains:
            if reason := idle.get(name.removeprefix(ONE_MINUS)):
                raise UserError(f"{file_of(self.name)}: {name} in SPACE: has no effect {reason}; leave it out of SPACE")

    def true_of_all_trials(self, facts: Callable[[Settings], dict[str, str]], settings: Settings) -> dict[str, str]:
        """Those facts of a study's settings that hold whichever value of each searched choice a trial has.

        Args:
            facts: settings → hyperparameter → a fact about it; see `Method.fixed` and `Method.without_effect`.
        """
        choices = {k: d.values for k, d in self.domains.items() if isinstance(d, Choice)}
        first = settings_with(settings, {name: values[0] for name, values in choices.items()})
        cases = [settings_with(first, {name: value}) for name, values in choices.items() for value in values]
        answers = [facts(case) for case in [first, *cases]]
        return {name: reason for name, reason in answers[0].items() if all(name in answer for answer in answers)}

    def cast(self, name: str, value: object) -> Value:
        """A cell of a table as the value that the search had."""
        return self.domains[name].cast(value)

    def configuration(self, row: Mapping[str, object]) -> dict[str, Value]:
        """The searched values in a row of a table."""
        return {name: self.cast(name, row[name]) for name in self.domains}

    def largest(self, settings: Settings) -> Settings:
        """The settings with every searched number that is a setting at its largest: what a trial takes at most."""
        largest: dict[str, Value] = {}
        for name, domain in self.domains.items():
            numbers = [v for v in domain.ends() if isinstance(v, int | float) and not isinstance(v, bool)]
            if numbers:
                largest[name] = max(numbers)
        return settings_with(settings, largest)

    def distributions(self) -> dict[str, BaseDistribution]:
        """As Optuna has them."""
        return {name: to_optuna(domain) for name, domain in self.domains.items()}

    def as_json(self) -> dict[str, dict[str, object]]:
        """As `study.json` has them."""
        return {
            "objectives": dict(self.objectives),
            "space": {name: domain.as_json() for name, domain in self.domains.items()},
            "baselines": {name: dict(values) for name, values in self.baselines.items()},
        }


def file_of(name: str) -> str:
    """The file of a kind's search space, as a message names it."""
    return f"{PACKAGE}/{name}.py"


def _part(module: ModuleType, name: str, part: str) -> dict[str, Any]:
    value = getattr(module, part, None)
    if not isinstance(value, Mapping):
        raise UserError(f"{file_of(name)}: {part} is missing, or no dict; see search_spaces/kd.py")
    return dict(value)


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
    hint = typing.get_type_hints(method.hparams)[field]
    kinds = [kind for kind in (typing.get_args(hint) or (hint,)) if kind is not type(None)]
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


def _domain(kind: str, name: str, domain: object) -> Domain:
    """A domain of Ray Tune's as one of ours.

    Raises:
        UserError: another one than those that can be searched.
    """
    try:
        return from_tune(domain)
    except ValueError as problem:
        raise UserError(f"{file_of(kind)}: {name} in SPACE {problem}") from problem
