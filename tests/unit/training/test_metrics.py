"""Loss and accuracy from sums."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pawcast.training.metrics import MetricSums, balanced_weights


def test_means_are_over_photos():
    sums = MetricSums(loss=6.0, correct=9.0, photos=12.0)
    assert (sums.mean_loss, sums.accuracy) == (0.5, 0.75)
    assert sums.is_finite
    assert not sums.has_diverged


def test_a_loss_that_is_unusable_is_recognised():
    assert not MetricSums(math.nan, 0, 1).is_finite
    assert not MetricSums(math.inf, 0, 1).is_finite
    assert MetricSums(60.0, 5, 10).has_diverged


def test_balanced_classes_count_alike_and_keep_the_mean_weight():
    labels = np.array([0, 0, 0, 1])
    weights = balanced_weights(labels)
    assert weights == pytest.approx((2 / 3, 2.0))
    assert np.mean(np.take(weights, labels)) == pytest.approx(1)
    assert balanced_weights(np.array([0, 1])) == (1.0, 1.0)
