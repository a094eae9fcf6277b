"""After which epochs a trial is scored."""

import pytest

from study.artifacts.checkpoints import Progress
from study.tuning.scored_epochs import scored_epochs


def scored(*arguments, **named):
    is_scored = scored_epochs(*arguments, **named)
    return [epoch for epoch in range(1, arguments[0] + 1) if is_scored(epoch)]


def test_every_epoch_is_scored_where_that_is_cheap():
    assert scored(75, training=45_000, validation=5_000) == list(range(1, 76))


def test_a_small_training_part_is_scored_now_and_then_and_at_every_rung():
    assert scored(40, training=100, validation=360, rungs=(12, 36)) == [5, 10, 12, 15, 20, 25, 30, 35, 36, 40]


@pytest.mark.parametrize("epochs", [1, 2, 7, 8, 9, 30])
def test_a_curve_has_eight_points_whatever_they_cost_if_there_are_as_many_epochs(epochs):
    assert len(scored(epochs, training=10, validation=10_000)) >= min(epochs, 8)


@pytest.mark.parametrize(("training", "validation"), [(1000, 900), (1000, 1000), (300, 500), (1000, 3000)])
def test_scoring_takes_at_most_the_share_that_it_should(training, validation):
    """With a forward pass as a third of a step's work."""
    points = len(scored(400, training=training, validation=validation))
    scoring, trained = points * validation / 3, 400 * training
    assert scoring / (scoring + trained) <= 0.15
    if points < 400:
        assert 2 * scoring / (2 * scoring + trained) > 0.15, "oftener would have been cheap enough"


def test_an_epoch_counts_from_the_beginning_of_the_trial_and_each_part_of_it_ends_with_a_score():
    heard = []
    progress = Progress(is_scored=lambda epoch: epoch % 4 == 0, on_epoch=lambda: heard.append(1))
    points = []
    for epochs in (6, 3):
        progress.begin()
        for epoch in range(1, epochs + 1):
            progress.keep({"epoch": epoch, "model": {}, "others": [], "random": []})
            if progress.scores(epoch, epochs):
                points.append((epochs, epoch))
    assert points == [(6, 4), (6, 6), (3, 2), (3, 3)]
    assert len(heard) == 9
