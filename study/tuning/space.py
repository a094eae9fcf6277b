"""The search space of a study: what `search_spaces/NAME.py` says, typed and checked before anything starts."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from optuna.distributions import BaseDistribution

from study.errors import UserError
from study.methods import registry
from study.methods.method import ONE_MINUS, Method, settings_with
from study.records.search_domains import Choice, Condition, Domain, Value
from study.settings import Settings, Values
from study.tuning import space_checks
from study.tuning.space_flags import typed
from study.tuning.tune_domains import from_tune, to_optuna

PACKAGE = "search_spaces"
MOST_OBJECTIVES = 4


@dataclass(frozen=True)
class SearchSpace:
    """What a kind of study searches.

    Attributes:
        file: that says so, as a message names it.
        domains: hyperparameter → where it is searched; one that is fixed is a choice of one.
        objectives: metric → "max" or "min".
        baselines: name → hyperparameters, of configurations that are tried in addition to the search.
        conditions: hyperparameter → when it has an effect, and is searched; of those that are not always.
        origins: hyperparameter or metric → the flag that says of it something else than the file.
    """

    file: str
    domains: Mapping[str, Domain]
    objectives: Mapping[str, str]
    baselines: Mapping[str, Values]
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, name: str) -> SearchSpace:
        """The search space that comes with a kind of study.

        Raises:
            UserError: there is none, or one that says something else than domains, directions and configurations.
        """
        return cls._read(file_of(name), lambda: importlib.import_module(f"{PACKAGE}.{name}"))

    @classmethod
    def from_file(cls, path: Path) -> SearchSpace:
        """The search space in a user's file.

        Raises:
            UserError: see `load`.
        """

        def run() -> ModuleType:
            module = ModuleType(path.stem)
            exec(compile(path.read_bytes(), path, "exec"), vars(module))  # any file the user names, whatever its ending
            return module

        return cls._read(f"--space {path}", run)

    @classmethod
    def _read(cls, file: str, run: Callable[[], ModuleType]) -> SearchSpace:
        try:
            module = run()
        except (ModuleNotFoundError, FileNotFoundError) as error:
            raise UserError(f"{file}: there is none ({error}); write one, see .github/CONTRIBUTING.md") from error
        except (Exception, SystemExit) as error:  # a domain that Ray Tune refuses, or anything else in a user's file
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{file}: cannot be read ({reason}); .github/CONTRIBUTING.md says what it must have"
            ) from error
        space, objectives, baselines = (_part(module, file, part) for part in ("SPACE", "OBJECTIVES", "BASELINES"))
        conditions = _part(module, file, "CONDITIONS") if hasattr(module, "CONDITIONS") else {}
        return cls.of(file, space, objectives, baselines, conditions)

    @classmethod
    def of(
        cls,
        file: str,
        space: Mapping[str, object],
        objectives: Mapping[str, Any],
        baselines: Mapping[str, Any],
        conditions: Mapping[str, Any] | None = None,
    ) -> SearchSpace:
        """From Ray Tune's domains.

        Args:
            conditions: hyperparameter → another one → its values with which the first is searched.
        Raises:
            UserError: a value that is no domain that can be searched, or an objective without a direction.
        """
        if not space or not objectives:
            raise UserError(f"{file}: SPACE and OBJECTIVES must name one thing or more")
        for part, names in (("SPACE", space), ("OBJECTIVES", objectives), ("BASELINES", baselines)):
            for name in names:
                if not isinstance(name, str):
                    raise UserError(f"{file}: {name!r} in {part}: must be a name, in quotes")
        for name, values in baselines.items():
            if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
                raise UserError(f"{file}: baseline {name!r} in BASELINES: must be a dict of hyperparameters")
        for name in space:
            if (twin := ONE_MINUS + name) in space:
                raise UserError(f"{file}: {name} and {twin} in SPACE: are one hyperparameter; leave one of them out")
        for metric, direction in objectives.items():
            if direction not in ("max", "min"):
                raise UserError(f"{file}: objective {metric} is {direction!r}; give 'max' or 'min'")
        domains = {k: _domain(file, k, v) for k, v in space.items()}
        return cls(file, domains, dict(objectives), dict(baselines), _conditions(file, conditions or {}))

    @classmethod
    def of_study(cls, settings: Settings) -> SearchSpace:
        """What a study searches: what its kind has, or the user's file, changed by flags, without what settings fix.

        Raises:
            UserError: see `load` and `with_flags`; or nothing is left.
        """
        method, flags = registry.method(settings.kind), settings.searched
        space = cls.from_file(flags.space) if flags.space else cls.load(method.search_space(settings))
        space = space.with_flags(settings, method)
        fixed = space.true_of_all_trials(method.fixed, settings)
        typed_too = [name for name in space.domains if name in fixed and name in space.origins]
        if typed_too:
            raise UserError(f"{space.origins[typed_too[0]]}: is not searched, since {fixed[typed_too[0]]}")
        domains = {name: domain for name, domain in space.domains.items() if name not in fixed}
        if not domains:
            raise UserError(f"{space.file}: SPACE has only what is fixed: {'; '.join(fixed.values())}")
        conditions = {name: c for name, c in space.conditions.items() if name not in fixed}
        return replace(space, domains=domains, conditions=conditions)

    def with_flags(self, settings: Settings, method: Method) -> SearchSpace:
        """The space as `--range`, `--choice`, `--fix`, `--when` and `--objective` change it.

        What is fixed holds for baselines too, unless they say something else.

        Raises:
            UserError: a flag that cannot be read, or objectives that are too many or none.
        """
        read = typed(
            settings.searched, [name for name in method.searchable() if int in space_checks.types_of(method, name)]
        )
        domains = {**self.domains, **read.domains}
        for name in read.domains:  # 1 − x and x are one hyperparameter
            other = name.removeprefix(ONE_MINUS) if name.startswith(ONE_MINUS) else ONE_MINUS + name
            if other in read.domains:
                raise UserError(f"{read.origins[name]}: {read.origins[other]} says something of it already")
            domains.pop(other, None)
        objectives = {k: v for k, v in {**self.objectives, **read.objectives}.items() if v != "none"}
        if not 1 <= len(objectives) <= MOST_OBJECTIVES:
            words = " ".join(read.origins[name] for name in read.objectives) or self.file
            raise UserError(f"{words}: makes {len(objectives)} objectives; there must be 1 to {MOST_OBJECTIVES}")
        unknown = [name for name, v in read.objectives.items() if v == "none" and name not in self.objectives]
        if unknown:
            raise UserError(
                f"{read.origins[unknown[0]]}: is none of the objectives; they are {', '.join(self.objectives)}"
            )
        fixed = {k: d.values[0] for k, d in read.domains.items() if isinstance(d, Choice) and len(d.values) == 1}
        for role in ("student", "network"):  # a baseline trains one of the networks that are searched
            if isinstance(d := read.domains.get(role), Choice) and not d.contains(settings.own().get(role)):
                fixed[role] = d.values[0]
        baselines = {name: {**_without_twins(fixed, values), **values} for name, values in self.baselines.items()}
        conditions = {**self.conditions, **read.conditions}
        return SearchSpace(self.file, domains, objectives, baselines, conditions, {**self.origins, **read.origins})

    def check(self, method: Method, settings: Settings | None = None) -> None:
        """Refuse what the method does not know or no trial takes, before anything starts; see `space_checks.check`."""
        space_checks.check(self, method, settings)

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
        """The searched values in a row of a table, without those whose condition does not hold there."""
        return {name: self.cast(name, row[name]) for name in self.active(row)}

    def active(self, values: Mapping[str, object]) -> list[str]:
        """Names of the hyperparameters that are searched in a configuration, or in a row of a table."""
        return [k for k in self.domains if k not in self.conditions or self.conditions[k].holds(values)]

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
            "space": {name: domain.as_json() | self._condition(name) for name, domain in self.domains.items()},
            "baselines": {name: dict(values) for name, values in self.baselines.items()},
        }

    def _condition(self, name: str) -> dict[str, object]:
        return {"when": self.conditions[name].as_json()} if name in self.conditions else {}


def file_of(name: str) -> str:
    """The file of a kind's search space, as a message names it."""
    return f"{PACKAGE}/{name}.py"


def _part(module: ModuleType, file: str, part: str) -> dict[str, Any]:
    value = getattr(module, part, None)
    if not isinstance(value, Mapping):
        raise UserError(f"{file}: {part} is missing, or no dict; see search_spaces/kd.py")
    return dict(value)


def _conditions(file: str, given: Mapping[str, Any]) -> dict[str, Condition]:
    conditions = {}
    for name, condition in given.items():
        if not isinstance(condition, Mapping) or len(condition) != 1 or not isinstance(next(iter(condition)), str):
            raise UserError(f'{file}: CONDITIONS of {name}: give another one and its values, as in {{"loss": ["dkd"]}}')
        ((other, values),) = condition.items()
        values = values if isinstance(values, list | tuple) else [values]
        conditions[name] = Condition(other, tuple(values))
    return conditions


def _without_twins(fixed: Values, values: Values) -> Values:
    """What is fixed, but for that of which a baseline has the distance from 1, or the other way round."""
    own = {name.removeprefix(ONE_MINUS) for name in values}
    return {name: value for name, value in fixed.items() if name.removeprefix(ONE_MINUS) not in own}


def _domain(file: str, name: str, domain: object) -> Domain:
    """A domain of Ray Tune's as one of ours.

    Raises:
        UserError: another one than those that can be searched.
    """
    try:
        return from_tune(domain)
    except ValueError as problem:
        raise UserError(f"{file}: {name} in SPACE {problem}") from problem
