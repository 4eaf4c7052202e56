"""Classification metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pawcast.evaluation.metrics import compute_metrics, wilson_interval


def test_metrics_are_exact():
    scores, labels = np.array([0.9, 0.2, 0.6, 0.4, 0.5]), np.array([1, 0, 0, 1, 0])
    result = compute_metrics(scores, labels)
    assert result.confusion == [[2, 1], [1, 1]]
    assert result.accuracy == 0.6
    expected = -np.mean([math.log(0.9), math.log(0.8), math.log(0.4), math.log(0.4), math.log(0.5)])
    assert result.log_loss == pytest.approx(expected)
    assert result.auc == pytest.approx(4 / 6)


def test_a_confident_mistake_has_a_large_but_finite_log_loss():
    assert 10 < compute_metrics(np.array([1.0]), np.array([0])).log_loss < 20
    assert math.isnan(compute_metrics(np.array([1.0]), np.array([0])).auc)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (909, 1000)])
def test_the_interval_contains_the_share_and_stays_in_range(successes, trials):
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    assert high > low
