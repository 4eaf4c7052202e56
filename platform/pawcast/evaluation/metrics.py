"""Metrics of a binary classifier on labelled photos: exact counts, with intervals."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

# The log loss clips probabilities this far from 0 and 1, so that no single mistake is infinite.
_EPSILON = 1e-7
_Z95 = 1.959963984540054


class ClassificationMetrics(NamedTuple):
    """Metrics over n photos.

    Attributes:
        photos: n.
        accuracy: Share of photos whose predicted class is the true one, in [0, 1].
        interval: The accuracy's 95% Wilson score interval.
        log_loss: Mean binary cross-entropy, in nats.
        auc: Area under the ROC curve, in [0, 1]: how often a photo of class 1 scores above one of
            class 0. NaN if all photos are of one class.
        confusion: Counts, [true class][predicted class].
    """

    photos: int
    accuracy: float
    interval: tuple[float, float]
    log_loss: float
    auc: float
    confusion: list[list[int]]


def compute_metrics(scores: np.ndarray, labels: np.ndarray) -> ClassificationMetrics:
    """Compare probabilities with the true labels. A score of exactly one half is class 0.

    Args:
        scores: float [n] in [0, 1], the probability of class 1.
        labels: int [n], 0 or 1.
    """
    scores = np.asarray(scores, np.float64)
    predicted = (scores > 0.5).astype(int)
    confusion = np.bincount(2 * labels + predicted, minlength=4).reshape(2, 2)
    correct = int(np.trace(confusion))
    clipped = np.clip(scores, _EPSILON, 1 - _EPSILON)
    losses = -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))
    return ClassificationMetrics(
        photos=len(labels),
        accuracy=correct / len(labels),
        interval=wilson_interval(correct, len(labels)),
        log_loss=float(losses.mean()),
        auc=_auc(scores, labels),
        confusion=confusion.tolist(),
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a proportion (E. B. Wilson, 1927, JASA 22:209-212).

    Example:
        >>> tuple(round(edge, 3) for edge in wilson_interval(909, 1000))
        (0.89, 0.925)
    """
    share, z2 = successes / trials, _Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 / (1 + z2 / trials) * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    # At 0 and at 1, rounding must not push an edge past the share itself.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def _auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the Mann-Whitney statistic; ties count half."""
    positives, negatives = scores[labels == 1], np.sort(scores[labels == 0])
    if not len(positives) or not len(negatives):
        return math.nan
    below = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
    return float(below.sum() / 2 / (len(positives) * len(negatives)))
