"""Run a model over photos whose labels are known, from a dataset's split or from any labelled source."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import tee
from typing import NamedTuple

import numpy as np

from pawcast import sources
from pawcast.dataset import shards
from pawcast.dataset.manifest import Split
from pawcast.errors import DataError, ImageError
from pawcast.evaluation import Evaluation, evaluate
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import scores
from pawcast.store import Store

SAMPLES = 24


class Labelled(NamedTuple):
    """A photo and its truth."""

    id: str
    label: int
    data: bytes | ImageError


class Judged(NamedTuple):
    """A photo, its truth, and the probability of class 1 that the model gave it."""

    id: str
    label: int
    score: float
    data: bytes

    @property
    def wrong(self) -> bool:
        """Whether the model is on the wrong side of one half."""
        return (self.score > 0.5) != (self.label == 1)


class Judgement(NamedTuple):
    """Metrics, and photos to show: the worst mistakes, the worst first, and some that are right."""

    evaluation: Evaluation
    mistakes: list[Judged]
    right: list[Judged]
    unusable: list[tuple[str, str]]


def from_split(store: Store, split: Split) -> Iterator[Labelled]:
    """Yield a split's photos, one verified shard in memory at a time."""
    for shard in split.shards:
        for row in shards.rows(shards.read(store, shard)):
            yield Labelled(row.id, row.label, row.data)


def from_source(path: str, classes: list[str]) -> Iterator[Labelled]:
    """Yield a labelled zip's or folder's photos."""
    photos = sources.scan(path, classes)
    for photo, data in zip(photos, sources.read(path, photos), strict=True):
        yield Labelled(photo.id, photo.label, data)


def judge(engine: Engine, photos: Iterable[Labelled], progress: Callable[[int], None] = lambda done: None) -> Judgement:
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
    mistakes: list[tuple[float, int, Judged]] = []
    right: list[Judged] = []
    unusable: list[tuple[str, str]] = []
    for number, (photo, score) in enumerate(
        zip(ours, scores(engine, (photo.data for photo in theirs)), strict=True), start=1
    ):
        progress(number)
        if isinstance(score, ImageError) or isinstance(photo.data, ImageError):
            reason = score if isinstance(score, ImageError) else photo.data
            unusable.append((photo.id, str(reason)))
            continue
        found.append((score, photo.label))
        item = Judged(photo.id, photo.label, score, photo.data)
        if item.wrong:
            entry = (abs(score - photo.label), number, item)
            heapq.heappush(mistakes, entry) if len(mistakes) < SAMPLES else heapq.heappushpop(mistakes, entry)
        elif len(right) < SAMPLES:
            right.append(item)
    if not found:
        raise DataError("No photo could be used", received=unusable[0][1] if unusable else "no photo")
    values, labels = np.array([score for score, _ in found]), np.array([label for _, label in found])
    worst = [item for _, _, item in sorted(mistakes, reverse=True)]
    return Judgement(evaluate(values, labels), worst, right, unusable)
