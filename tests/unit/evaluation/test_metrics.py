"""Classification metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pawcast.evaluation.metrics import compute_metrics, log_loss, wilson_interval


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


def test_what_one_class_alone_does_not_tell_is_none():
    result = compute_metrics(np.array([1.0, 0.2]), np.array([0, 0]))
    assert result.auc is None
    assert result.balanced_accuracy == 0.5
    assert result.per_class == [(2, 1, 1.0, 0.5, pytest.approx(2 / 3)), (0, 1, 0.0, None, 0.0)]
    assert result.never_predicted(["cat", "dog"]) == []


def test_each_class_has_precision_recall_and_f1():
    scores, labels = np.array([0.9, 0.2, 0.6, 0.4, 0.5, 0.7]), np.array([1, 0, 0, 1, 0, 1])
    cat, dog = compute_metrics(scores, labels).per_class
    assert (cat.photos, cat.predicted, cat.precision, cat.recall) == (3, 3, 2 / 3, 2 / 3)
    assert (dog.photos, dog.predicted, dog.precision, dog.recall) == (3, 3, 2 / 3, 2 / 3)
    assert cat.f1 == dog.f1 == pytest.approx(2 / 3)


def test_a_class_that_is_never_predicted_is_named():
    result = compute_metrics(np.full(10, 0.1), np.array([0] * 9 + [1]))
    assert result.accuracy == 0.9
    assert result.balanced_accuracy == 0.5
    assert result.per_class[1] == (1, 0, None, 0.0, 0.0)
    assert result.never_predicted(["cat", "dog"]) == ["dog"]


def test_clipping_bounds_the_loss_of_a_mistake():
    scores, labels = np.array([1.0, 1.0, 0.0]), np.array([0, 1, 0])
    assert log_loss(scores, labels, 0.01) == pytest.approx(-(math.log(0.01) + 2 * math.log(0.99)) / 3)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (909, 1000)])
def test_the_interval_contains_the_share_and_stays_in_range(successes, trials):
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials <= high <= 1
    assert high > low
