"""Defaults are said in three places: the flag's help, the settings of a data set, and a method's hyperparameters."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap

import pytest

from study.methods import registry
from study.settings import Settings, resolve

KINDS = ("kd", "kd_sws", "magnitude", "sws")
SAID = re.compile(r"Default: (\S+) on (digits|CIFAR), otherwise (\S+?)\.?$")
WORDS = {"all": "0"}


def helps(kind: type[Settings]) -> dict[str, str]:
    """The text under each field, that of a subclass before that of its parent."""
    texts: dict[str, str] = {}
    for cls in reversed(kind.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
        for field, text in zip(body, body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(field.target, ast.Name):
                texts[field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return texts


@pytest.mark.parametrize("kind", KINDS)
def test_a_flags_help_says_its_default(kind: str) -> None:
    """On digits, or on CIFAR, and otherwise: both are what the settings are filled with."""
    settings = registry.default_settings(kind)
    said = {name: match for name, text in helps(type(settings)).items() if (match := SAID.search(text))}
    assert len(said) >= 3
    for name, match in said.items():
        special, where, otherwise = match.groups()
        for dataset, expected in (("digits" if where == "digits" else "cifar10", special), ("mnist", otherwise)):
            value = resolve(settings.changed(dataset=dataset)).flat()[name]
            assert (f"{value:g}" if isinstance(value, float) else str(value)) == WORDS.get(expected, expected), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_hyperparameter_and_its_flag_have_one_default(kind: str) -> None:
    """A test or a search that leaves it out trains as the command does, unless the data set decides. Temperature and
    alpha are apart: those of the flags are for a teacher, and by default a compressed network has none."""
    flags = registry.default_settings(kind).flat()
    fields = dataclasses.fields(registry.method(kind).hparams)
    both = [f for f in fields if flags.get(f.name) is not None and f.default is not dataclasses.MISSING]
    both = [f for f in both if f.name not in ("temperature", "alpha")]
    assert both
    assert {f.name: f.default for f in both} == {f.name: flags[f.name] for f in both}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10", "cifar100"])
def test_every_default_keeps_to_its_bound(kind: str, dataset: str) -> None:
    """`resolve` checks every number, those that it fills in among them."""
    resolve(registry.default_settings(kind).changed(dataset=dataset))
