"""What `--range`, `--choice`, `--fix`, `--when` and `--objective` say, one word of the command line each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from study.errors import UserError
from study.records.search_domains import Condition, Domain, Range, Value
from study.settings_groups import SpaceFlags
from study.tuning.tune_domains import choice_of, range_of

_EXAMPLES = {
    "--range": "--range temperature=2:8, with :log, :int or :step=0.5 behind it where that is meant",
    "--choice": "--choice augment=none,flip",
    "--fix": "--fix alpha=0.9",
    "--when": "--when alpha:augment=flip",
    "--objective": "--objective file_bytes:min; max, or none to leave one out",
}


@dataclass(frozen=True)
class Typed:
    """What the flags change of a search space.

    Attributes:
        domains: hyperparameter → where it is searched now.
        conditions: hyperparameter → when it has an effect, and is searched.
        objectives: metric → "max", "min", or "none" for one that is left out.
        origins: hyperparameter or metric → the flag and its word, as they were typed; of a condition, "when NAME".
    """

    domains: dict[str, Domain] = field(default_factory=dict)
    conditions: dict[str, Condition] = field(default_factory=dict)
    objectives: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)


def typed(flags: SpaceFlags, whole: Sequence[str]) -> Typed:
    """Read the flags.

    Args:
        whole: hyperparameters that are whole numbers, whose ranges need no `:int`.
    Raises:
        UserError: a word that says no such thing, or one hyperparameter twice.
    """
    read = Typed()
    for flag, word in _words(flags):
        name, rest = _divided(flag, word)
        try:
            if flag == "--objective":
                _add(read, read.objectives, name, _direction(rest), flag, word)
            elif flag == "--when":
                _add_condition(read, name, rest, word)
            else:
                _add(read, read.domains, name, _domain(flag, rest, name in whole), flag, word)
        except ValueError as problem:
            raise UserError(f"{flag} {word}: {problem}") from problem
    return read


def _words(flags: SpaceFlags) -> Iterator[tuple[str, str]]:
    for name in ("range", "choice", "fix", "when", "objective"):
        for word in getattr(flags, name):
            yield f"--{name}", word


def _divided(flag: str, word: str) -> tuple[str, str]:
    """The name in front of the first `=` or `:`, as a hyperparameter is written, and what is behind it.

    Raises:
        UserError: there is nothing on one of the sides.
    """
    sign = "=" if flag in ("--range", "--choice", "--fix") else ":"
    name, found, rest = word.partition(sign)
    name = name.strip().removeprefix("--").replace("-", "_")
    if not found or not rest.strip() or not re.fullmatch(r"[A-Za-z]\w*", name):
        raise UserError(f"{flag} {word}: is not understood; give it as in {_EXAMPLES[flag]}")
    return name, rest.strip()


def _add(read: Typed, where: dict, name: str, value: object, flag: str, word: str) -> None:
    if name in where:
        raise UserError(f"{flag} {word}: {read.origins[name]} says something of {name} already; leave one of them out")
    where[name] = value
    read.origins[name] = f"{flag} {word}"


def _add_condition(read: Typed, name: str, rest: str, word: str) -> None:
    parent, found, values = rest.partition("=")
    parent = parent.strip().removeprefix("--").replace("-", "_")
    if not found or not values:
        raise UserError(f"--when {word}: is not understood; give it as in {_EXAMPLES['--when']}")
    if name in read.conditions:
        raise UserError(f"--when {word}: there is a condition of {name} already; leave one of them out")
    read.origins[f"when {name}"] = f"--when {word}"
    read.conditions[name] = Condition(parent, tuple(value_of(part) for part in values.split(",")))


def _direction(text: str) -> str:
    if text not in ("max", "min", "none"):
        raise ValueError(f"gives the direction {text!r}; give max or min, or none to leave the objective out")
    return text


def _domain(flag: str, text: str, whole: bool) -> Domain:
    if flag == "--range":
        return _range(text, whole)
    if flag == "--fix":
        return choice_of([value_of(text)])
    values = [value_of(part) for part in text.split(",")]
    if len(values) == 1:
        raise ValueError(f"one value is no choice; give two or more with commas, or --fix for one: {text}")
    return choice_of(values)


def _range(text: str, whole: bool) -> Range:
    """LOW:HIGH[:log][:int][:step=S], both ends included."""
    low, *rest = text.split(":")
    if not rest:
        raise ValueError(f"has one end; give it as in {_EXAMPLES['--range']}")
    high, *marks = rest
    step: float | None = None
    log, integer = False, whole
    for mark in marks:
        if mark == "log":
            log = True
        elif mark == "int":
            integer = True
        elif mark.startswith("step="):
            step = _number(mark.removeprefix("step="))
        else:
            raise ValueError(f"has {mark or 'nothing'} behind a colon; give log, int or step=NUMBER there")
    return range_of(_number(low), _number(high), log=log, step=step, integer=integer)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text or 'nothing'} is no number") from None
    if not math.isfinite(number):
        raise ValueError(f"{text} is no finite number")
    return number


def value_of(text: str) -> Value:
    """A word of the command line as a number, a truth or a word."""
    text = text.strip()
    if text.casefold() in ("true", "false"):
        return text.casefold() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
