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

KINDS = ("kd", "kd_sws", "magnitude", "ptq", "sws")
SAID = re.compile(
    r"Default: (?:(?P<special>\S+ on (?:digits|CIFAR)\b.*), otherwise )?(?P<otherwise>\d\S*?|\w+)[.;]?(?: |$)"
)
WORDS: dict[str, object] = {"all": 0}
DATASETS = {"digits": ("digits",), "CIFAR": ("cifar10", "cifar100")}


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
    """On digits, on CIFAR, and otherwise, as far as it is a number or is said of a data set."""
    settings = registry.default_settings(kind)
    said = {name: match for name, text in helps(type(settings)).items() if (match := SAID.search(text))}
    checked = 0
    for name, match in said.items():
        parts = (part.split(" on ") for part in (match["special"] or "").split(", ") if " on " in part)
        special = {data: word for word, where in parts for data in DATASETS[where]}
        if special or match["otherwise"][0].isdigit():
            checked += 1
            for dataset in ("mnist", *special):
                word = special.get(dataset, match["otherwise"])
                expected = WORDS.get(word, float(word) if word[0].isdigit() else word)
                assert resolve(settings.changed(dataset=dataset)).flat()[name] == expected, (name, dataset)
    assert checked >= (4 if kind == "ptq" else 5)  # it trains nothing, and has fewer flags


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
