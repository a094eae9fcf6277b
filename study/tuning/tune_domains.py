"""Ray Tune's domains as ours, and ours as Optuna's: what is recorded of a search is exactly what Optuna samples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ray.tune.search.sample import Categorical, Float, Integer, Quantized

from study.records.search_domains import Choice, Domain, Range, Value
from study.records.tables import MISSING

_LARGEST = 2**53
"""Whole numbers up to here are exact as the floats that JSON and tables may make of them."""
_UNIFORM = (Float._Uniform, Integer._Uniform)
_LOGARITHMIC = (Float._LogUniform, Integer._LogUniform)


def from_tune(domain: object) -> Domain:
    """A domain of Ray Tune's as one of ours.

    Raises:
        ValueError: it cannot be searched as it stands; the message is the end of a sentence that begins with its name.
    """
    if type(domain) is Categorical and type(domain.get_sampler()) is Categorical._Uniform:
        return choice_of(domain.categories)
    if type(domain) is Float or type(domain) is Integer:
        sampler, step = domain.get_sampler(), None
        if isinstance(sampler, Quantized):
            sampler, step = sampler.sampler, sampler.q  # type: ignore[attr-defined]
        if type(sampler) in _UNIFORM + _LOGARITHMIC:
            return _range(domain, type(sampler) in _LOGARITHMIC, step)
    raise ValueError(
        f"is {' '.join(repr(domain).split())[:100]}; give tune.uniform, loguniform, quniform, randint, qrandint, "
        "lograndint or choice (of numbers or words)"
    )


def to_optuna(domain: Domain) -> BaseDistribution:
    """The distribution that Optuna samples a domain of ours from.

    Raises:
        ValueError: Optuna has none such.
    """
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    if domain.integer:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log, step=int(domain.step or 1))
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


def _range(domain: Float | Integer, log: bool, quantum: object) -> Range:
    """Tune's upper end is part of a stepped range alone, whose values are the multiples of its step."""
    integer = isinstance(domain, Integer)
    low, high = (_number(end, integer, "ends") for end in (domain.lower, domain.upper))
    step = _step(quantum, integer)
    if integer and step in (None, 1):
        high, step = high - 1, None
    if step and not log:
        low, high = _multiple(low, step, up=True), _multiple(high, step, up=False)
    return _as_optuna_has_it(low, high, log, step, integer)


def range_of(low: float, high: float, *, log: bool = False, step: float | None = None, integer: bool = False) -> Range:
    """The range from `low` to `high`, both included; its steps begin at `low`.

    Raises:
        ValueError: see `from_tune`.
    """
    low, high = (_number(end, integer, "ends") for end in (low, high))
    step = _step(step, integer)
    if log and low <= 0:
        raise ValueError(f"has a logarithmic scale from {low:g}; give one from a number above 0")
    searched = _as_optuna_has_it(low, high, log, step, integer)
    if searched.low == searched.high:
        raise ValueError(f"is one number; give a range of two or more, or --fix for one: {low:g}")
    return searched


def _step(quantum: object, integer: bool) -> float | None:
    step = None if quantum is None else _number(quantum, integer, "a step")
    if step is not None and step <= 0:
        raise ValueError(f"has the step {step:g}; give one above 0")
    return step


def _as_optuna_has_it(low: float, high: float, log: bool, step: float | None, integer: bool) -> Range:
    if log and step:
        raise ValueError("has steps on a logarithmic scale; leave one of them out")
    if low > high:
        raise ValueError("is empty; give a range with its smaller end first")
    if not math.isfinite(high - low):
        raise ValueError("has ends too far apart; give nearer ones")
    with warnings.catch_warnings():  # Optuna takes steps as decimals, so that of 1/3 the last one lies a hair below 1
        warnings.filterwarnings("ignore", "The distribution is specified by", UserWarning)
        searched = to_optuna(Range(low, high, log, step, integer))
    assert isinstance(searched, FloatDistribution | IntDistribution)
    return Range(float(searched.low), float(searched.high), searched.log, step, integer)


def _number(value: object, integer: bool, what: str) -> float:
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < math.inf:
        raise ValueError(f"has {what} of {str(value)[:50]}; give finite numbers")
    if integer and (not float(value).is_integer() or abs(value) > _LARGEST):
        raise ValueError(f"has {what} of {value:g}; give whole numbers, of at most 2**53")
    return float(value)


def _multiple(end: float, step: float, up: bool) -> float:
    """The end itself where it is a multiple of the step; otherwise the nearest one inside, as Tune has it."""
    places = end / step
    if math.isclose(places, round(places)):
        return end
    return (math.ceil(places) if up else math.floor(places)) * step


def choice_of(values: Sequence[Value]) -> Choice:
    """One of these values.

    Raises:
        ValueError: see `from_tune`.
    """
    values = [v.item() if isinstance(v, np.generic) else v for v in values]
    for value in values:
        if problem := _problem_of_choice(value):
            raise ValueError(f"has the choice {' '.join(repr(value).split())[:50]}; {problem}")
    choice = Choice(tuple(values))
    twice = [v for i, v in enumerate(values) if choice.index(v) != i or values.index(v) != i]
    if twice:
        raise ValueError(f"has the choice {twice[0]!r} twice; leave one out")
    if not values:
        raise ValueError("is an empty choice; give tune.choice of one value or more")
    return choice


def _problem_of_choice(value: Value) -> str:
    """Why a table would not give this value back, or ""."""
    if type(value) not in (int, float, str, bool):
        return "give tune.uniform, or a choice of numbers or words"
    if isinstance(value, int | float):
        exact = math.isfinite(value) and (isinstance(value, float) or abs(value) <= _LARGEST)
        return "" if exact else "give finite numbers, whole ones of at most 2**53"
    word = str(value)
    if word in MISSING or not word.isprintable():
        return "give words of printable letters"
    if word.casefold() in ("true", "false"):
        return "give True and False, without quotes"
    try:
        float(word)
    except ValueError:
        return ""
    return "give the number, without quotes"
