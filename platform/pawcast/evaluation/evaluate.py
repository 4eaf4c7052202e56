"""Run a model over labelled photos: metrics over all of them, and a few photos to show."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import tee
from typing import NamedTuple

import numpy as np

from pawcast.core.progress import Progress, silent
from pawcast.data.reader import LabelledPhoto
from pawcast.data.shards import PhotoRow
from pawcast.errors import DataError, ImageError
from pawcast.evaluation.metrics import ClassificationMetrics, compute_metrics
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import predict_scores

MAX_SHOWN = 24
"""Most mistakes, and most correct photos, that an evaluation keeps to be shown."""


class ScoredPhoto(NamedTuple):
    """A photo, its true label, 0 or 1, and the probability of class 1 that the model gave it."""

    id: str
    label: int
    score: float
    data: bytes

    @property
    def wrong(self) -> bool:
        """Whether the predicted class is another than the true one."""
        return (self.score > 0.5) != (self.label == 1)


class Evaluation(NamedTuple):
    """How a model did on labelled photos.

    Attributes:
        metrics: Over all photos that could be used.
        mistakes: The most confident mistakes, the most confident first.
        right: Some photos that were classified correctly.
        unusable: Ids of photos that couldn't be decoded, and why.
    """

    metrics: ClassificationMetrics
    mistakes: list[ScoredPhoto]
    right: list[ScoredPhoto]
    unusable: list[tuple[str, str]]


def evaluate(
    engine: Engine, photos: Iterable[LabelledPhoto | PhotoRow], progress: Progress = silent, total: int = 0
) -> Evaluation:
    """Predict all photos and compare the predictions with their labels.

    The stage `evaluating` is reported for each photo; `total` is for these reports only.

    Raises:
        DataError: If no photo could be used.
    """
    labelled, to_predict = tee(photos)
    scores: list[float] = []
    labels: list[int] = []
    mistakes: list[ScoredPhoto] = []
    right: list[ScoredPhoto] = []
    unusable: list[tuple[str, str]] = []
    progress("evaluating", 0, total)
    predictions = zip(labelled, predict_scores(engine, (photo.data for photo in to_predict)), strict=True)
    for number, (photo, score) in enumerate(predictions, start=1):
        progress("evaluating", number, max(number, total))
        if isinstance(score, ImageError) or isinstance(photo.data, ImageError):
            unusable.append((photo.id, str(score)))
            continue
        scores.append(score)
        labels.append(photo.label)
        scored = ScoredPhoto(photo.id, photo.label, score, photo.data)
        if scored.wrong:
            mistakes = sorted([scored, *mistakes], key=lambda photo: -abs(photo.score - photo.label))[:MAX_SHOWN]
        elif len(right) < MAX_SHOWN:
            right.append(scored)
    if not scores:
        raise DataError(
            "No photo could be evaluated",
            received=f"{len(unusable):,} unusable photos, the first: {unusable[0][1]}" if unusable else "no photo",
            expected="at least one labelled photo that can be decoded",
        )
    return Evaluation(compute_metrics(np.array(scores), np.array(labels)), mistakes, right, unusable)
