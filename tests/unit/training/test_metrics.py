"""Loss and accuracy from sums."""

from __future__ import annotations

import math

from pawcast.training.metrics import MetricSums


def test_means_are_over_photos():
    sums = MetricSums(loss=6.0, correct=9.0, photos=12.0)
    assert (sums.mean_loss, sums.accuracy) == (0.5, 0.75)
    assert sums.is_finite
    assert not sums.has_diverged


def test_a_loss_that_is_unusable_is_recognised():
    assert not MetricSums(math.nan, 0, 1).is_finite
    assert not MetricSums(math.inf, 0, 1).is_finite
    assert MetricSums(60.0, 5, 10).has_diverged
