"""Metrics of a binary classifier on labelled photos: exact counts, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_Z95 = 1.959963984540054


class ClassMetrics(NamedTuple):
    """How well one class is recognized. A value is None where it would divide by zero.

    Attributes:
        photos: Photos of the class.
        predicted: Photos that were predicted to be of the class.
        precision: Share of those predicted to be of the class that are, in [0, 1].
        recall: Share of the photos of the class that were predicted to be, in [0, 1].
        f1: Harmonic mean of precision and recall, in [0, 1].
    """

    photos: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


class ClassificationMetrics(NamedTuple):
    """Metrics over n photos.

    Attributes:
        photos: n.
        accuracy: Share of photos whose predicted class is the true one, in [0, 1].
        interval: The accuracy's 95% Wilson score interval.
        balanced_accuracy: Mean of the recall of the classes that have photos, in [0, 1].
        log_loss: Mean binary cross-entropy, in nats.
        auc: Area under the ROC curve, in [0, 1]: how often a photo of class 1 scores above one of
            class 0. None if all photos are of one class.
        confusion: Counts, [true class][predicted class].
        per_class: The metrics of class 0 and of class 1.
    """

    photos: int
    accuracy: float
    interval: tuple[float, float]
    balanced_accuracy: float
    log_loss: float
    auc: float | None
    confusion: list[list[int]]
    per_class: list[ClassMetrics]

    def never_predicted(self, classes: Sequence[str]) -> list[str]:
        """Return the names of the classes that have photos and aren't predicted for any."""
        return [name for name, of in zip(classes, self.per_class, strict=True) if of.photos and not of.predicted]


def compute_metrics(scores: np.ndarray, labels: np.ndarray) -> ClassificationMetrics:
    """Compare probabilities with the true labels. A score of exactly one half is class 0.

    Args:
        scores: float [n] in [0, 1], the probability of class 1; n at least 1.
        labels: int [n], 0 or 1.
    """
    scores = np.asarray(scores, np.float64)
    confusion = np.bincount(2 * labels + (scores > 0.5), minlength=4).reshape(2, 2)
    correct = int(np.trace(confusion))
    per_class = [_class_metrics(confusion, index) for index in (0, 1)]
    return ClassificationMetrics(
        photos=len(labels),
        accuracy=correct / len(labels),
        interval=wilson_interval(correct, len(labels)),
        balanced_accuracy=float(np.mean([of.recall for of in per_class if of.recall is not None])),
        log_loss=log_loss(scores, labels),
        auc=_auc(scores, labels),
        confusion=confusion.tolist(),
        per_class=per_class,
    )


def log_loss(scores: np.ndarray, labels: np.ndarray, clip: float = 1e-7) -> float:
    """Return the mean binary cross-entropy, in nats.

    Args:
        scores: float [n] in [0, 1], the probability of class 1.
        labels: int [n], 0 or 1.
        clip: Scores are clipped this far from 0 and 1, so that no single mistake is infinite.
    """
    clipped = np.clip(np.asarray(scores, np.float64), clip, 1 - clip)
    return float(-np.where(labels == 1, np.log(clipped), np.log1p(-clipped)).mean())


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


def _class_metrics(confusion: np.ndarray, index: int) -> ClassMetrics:
    right, photos, predicted = (
        int(n) for n in (confusion[index, index], confusion[index].sum(), confusion[:, index].sum())
    )
    return ClassMetrics(
        photos,
        predicted,
        precision=right / predicted if predicted else None,
        recall=right / photos if photos else None,
        f1=2 * right / (photos + predicted) if photos + predicted else None,
    )


def _auc(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the Mann-Whitney statistic; ties count half."""
    positives, negatives = scores[labels == 1], np.sort(scores[labels == 0])
    if not len(positives) or not len(negatives):
        return None
    below = np.searchsorted(negatives, positives, "left") + np.searchsorted(negatives, positives, "right")
    return float(below.sum() / 2 / (len(positives) * len(negatives)))
