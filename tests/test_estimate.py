"""What a dry run says a study would cost."""

from __future__ import annotations

import torch

from search_spaces import magnitude, sws
from study import data
from study.estimate import trial_seconds
from study.settings import SWS, Magnitude, resolve


def test_epochs_and_the_prior_have_their_price() -> None:
    """On the same network, data and epochs a trial of soft weight-sharing takes longer than one of pruning, which has
    no prior; eight times the epochs take between four and sixteen times as long."""
    digits = data.load("digits", None)[0]
    threads = torch.get_num_threads()
    try:
        shared = trial_seconds(resolve(SWS(epochs=40)), sws, digits, 1)
        pruned = trial_seconds(resolve(Magnitude(epochs=40, codebook_epochs=resolve(SWS()).codebook_epochs)),
                               magnitude, digits, 1)  # fmt: skip
        longer = trial_seconds(resolve(SWS(epochs=320)), sws, digits, 1)
    finally:
        torch.set_num_threads(threads)
    assert shared > 1.5 * pruned
    assert 4 < longer / shared < 16
