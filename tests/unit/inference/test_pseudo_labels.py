"""The confidence threshold from which on a model's labels are accurate enough."""

from __future__ import annotations

import numpy as np

from pawcast.inference.pseudo_labels import confidence_threshold


def test_the_threshold_is_the_lowest_confidence_that_reaches_the_accuracy():
    probabilities = np.array([0.99, 0.02, 0.95, 0.1, 0.8, 0.3])
    labels = np.array([1, 0, 1, 1, 1, 0])
    assert confidence_threshold(probabilities, labels, 1.0) == 0.95
    # The mistake at confidence 0.9 is outweighed by the correct predictions after it.
    assert confidence_threshold(probabilities, labels, 0.8) == 0.7
    assert confidence_threshold(probabilities, 1 - labels, 0.9) is None


def test_photos_of_equal_confidence_are_accepted_together():
    probabilities = np.array([0.9, 0.9, 0.1, 0.6])
    assert confidence_threshold(probabilities, np.array([1, 1, 1, 1]), 1.0) is None
    assert confidence_threshold(probabilities, np.array([1, 1, 0, 0]), 1.0) == 0.9
