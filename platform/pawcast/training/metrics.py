"""Loss and accuracy as sums over photos, which add up over steps and ranks."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

# Binary cross-entropy of a photo. Guessing costs 0.69; being certain, and wrong half of the time,
# costs about 8.
_DIVERGED_LOSS = 5.0


def balanced_weights(labels: np.ndarray) -> tuple[float, float]:
    """Return the weights of two classes that make both count alike; their mean over photos is 1.

    As scikit-learn's `class_weight="balanced"`: photos / (2 · photos of the class).

    Args:
        labels: int64 [photos], 0 or 1; both occur.
    """
    of_0, of_1 = (len(labels) / (2 * np.bincount(labels, minlength=2))).tolist()
    return of_0, of_1


class MetricSums(NamedTuple):
    """Sums over photos.

    Attributes:
        loss: Binary cross-entropy.
        correct: Correct predictions.
        photos: How many photos.
    """

    loss: float
    correct: float
    photos: float

    @property
    def is_finite(self) -> bool:
        """Whether the loss is neither infinite nor NaN."""
        return math.isfinite(self.loss)

    @property
    def has_diverged(self) -> bool:
        """Whether the loss is too high for a network that has learnt something.

        A network with fresh weights may have such a loss.
        """
        return self.mean_loss > _DIVERGED_LOSS

    @property
    def mean_loss(self) -> float:
        """Mean binary cross-entropy of a photo."""
        return self.loss / self.photos

    @property
    def accuracy(self) -> float:
        """The share of correct predictions."""
        return self.correct / self.photos
