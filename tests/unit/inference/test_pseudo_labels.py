"""How sure is sure enough."""

from __future__ import annotations

import numpy as np

from pawcast.inference.pseudo_labels import confidence_for


def test_the_least_confidence_that_is_right_often_enough():
    probabilities = np.array([0.99, 0.02, 0.95, 0.1, 0.8, 0.3])
    labels = np.array([1, 0, 1, 1, 1, 0])
    assert confidence_for(probabilities, labels, 1.0) == 0.95
    # The mistake at 0.9 is outweighed by what comes after it.
    assert confidence_for(probabilities, labels, 0.8) == 0.7
    assert confidence_for(probabilities, 1 - labels, 0.9) is None


def test_photos_of_one_confidence_are_asked_about_together():
    probabilities = np.array([0.9, 0.9, 0.1, 0.6])
    assert confidence_for(probabilities, np.array([1, 1, 1, 1]), 1.0) is None
    assert confidence_for(probabilities, np.array([1, 1, 0, 0]), 1.0) == 0.9
