"""Run a model over photos whose labels are known, from a dataset's split or from any labelled source."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from itertools import tee
from typing import NamedTuple

import numpy as np

from pawcast.data.reader import LabelledPhoto
from pawcast.errors import DataError, ImageError
from pawcast.evaluation.metrics import ClassificationMetrics, compute_metrics
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import predict_scores

SAMPLES = 24


class ScoredPhoto(NamedTuple):
    """A photo, its truth, and the probability of class 1 that the model gave it."""

    id: str
    label: int
    score: float
    data: bytes

    @property
    def wrong(self) -> bool:
        """Whether the model is on the wrong side of one half."""
        return (self.score > 0.5) != (self.label == 1)


class Evaluation(NamedTuple):
    """Metrics, and photos to show: the worst mistakes, the worst first, and some that are right."""

    metrics: ClassificationMetrics
    mistakes: list[ScoredPhoto]
    right: list[ScoredPhoto]
    unusable: list[tuple[str, str]]


def evaluate(
    engine: Engine, photos: Iterable[LabelledPhoto], progress: Callable[[int], None] = lambda done: None
) -> Evaluation:
    """Predict every photo and compare with its label; a few photos are kept to be shown.

    Args:
        engine: The model.
        photos: What to judge it on.
        progress: Called with the photos done.

    Raises:
        DataError: If no photo could be used.
    """
    ours, theirs = tee(photos)
    found: list[tuple[float, int]] = []
    mistakes: list[tuple[float, int, ScoredPhoto]] = []
    right: list[ScoredPhoto] = []
    unusable: list[tuple[str, str]] = []
    for number, (photo, score) in enumerate(
        zip(ours, predict_scores(engine, (photo.data for photo in theirs)), strict=True), start=1
    ):
        progress(number)
        if isinstance(score, ImageError) or isinstance(photo.data, ImageError):
            reason = score if isinstance(score, ImageError) else photo.data
            unusable.append((photo.id, str(reason)))
            continue
        found.append((score, photo.label))
        item = ScoredPhoto(photo.id, photo.label, score, photo.data)
        if item.wrong:
            entry = (abs(score - photo.label), number, item)
            heapq.heappush(mistakes, entry) if len(mistakes) < SAMPLES else heapq.heappushpop(mistakes, entry)
        elif len(right) < SAMPLES:
            right.append(item)
    if not found:
        raise DataError("No photo could be used", received=unusable[0][1] if unusable else "no photo")
    values, labels = np.array([score for score, _ in found]), np.array([label for _, label in found])
    worst = [item for _, _, item in sorted(mistakes, reverse=True)]
    return Evaluation(compute_metrics(values, labels), worst, right, unusable)
