"""Constants of normalisation: what a flag may say, and what each kind of image gets."""

from __future__ import annotations

import pytest

from study.errors import UserError
from study.normalisation import IMAGENET, Constants, for_channels, parse


def test_what_the_flag_names() -> None:
    """Those of the data are not known here; others are ImageNet's, or as they are given."""
    assert parse(None) is None and parse("data") is None and parse("imagenet") == IMAGENET
    assert parse("0.1,0.2,0.3/0.4,0.5,0.6") == Constants((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert parse("0/1") == Constants((0.0,), (1.0,))


@pytest.mark.parametrize("text", ["", "x", "0.5", "0.5/", "0.5/0.5/0.5", "0.5,0.5/0.5", "0.5/0", "0.5/-1", "nan/1",
                                  "0/inf", "0.5 0.5/1 1", "Imagenet", "a,b/c,d"])  # fmt: skip
def test_what_the_flag_does_not_name(text: str) -> None:
    """One line with the flag."""
    with pytest.raises(UserError, match=f"^--normalise {text}: "):
        parse(text)


def test_constants_for_the_channels_of_the_images() -> None:
    """One number is for all of them; grey images take the mean of ImageNet's three, but of no others."""
    assert for_channels(Constants((0.5,), (0.2,)), 3, "x") == Constants((0.5,) * 3, (0.2,) * 3)
    grey = for_channels(IMAGENET, 1, "x")
    assert grey.mean == pytest.approx([0.449]) and grey.std == pytest.approx([0.226])
    three = Constants((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert for_channels(three, 3, "x") == three
    with pytest.raises(UserError, match="^--normalise y: has 3 numbers, but the images have 1 channel; "):
        for_channels(three, 1, "--normalise y")
    for wrong in (Constants((123.7,), (58.4,)), Constants((-0.5,), (0.5,)), Constants((0.5,), (2.0,))):
        with pytest.raises(UserError, match="pixels are scaled to 0…1 first"):
            for_channels(wrong, 1, "--normalise y")
        assert for_channels(wrong, 1, "--normalise y", pixels=False) == wrong
