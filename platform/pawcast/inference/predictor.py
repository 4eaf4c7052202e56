"""Photos to predictions in this process, for evaluation and `pawcast predict`.

The service gives the same scores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pawcast.errors import ImageError
from pawcast.inference.batcher import MAX_BATCH, MAX_CONCURRENT_BATCHES, finite_or_error

if TYPE_CHECKING:
    from pawcast.inference.engine import Engine


class Prediction(NamedTuple):
    """The result of one photo.

    Attributes:
        label: The more probable class.
        probability: Its probability, in [0.5, 1].
        scores: Probability by class; they add up to 1.
    """

    label: str
    probability: float
    scores: dict[str, float]


def to_prediction(score: float, classes: list[str]) -> Prediction:
    """Turn the probability of class 1 into a prediction; exactly one half is class 0."""
    index = int(score > 0.5)
    return Prediction(classes[index], score if index else 1 - score, {classes[0]: 1 - score, classes[1]: score})


def predict_scores(engine: Engine, photos: Iterable[bytes | np.ndarray | ImageError]) -> Iterator[float | ImageError]:
    """Yield the probability of class 1 for each photo, in order, with a few batches in memory.

    Photos are the contents of image files, or pixels, uint8 [h, w, 3]. An `ImageError` takes the
    place of a photo that has no probability.
    """

    def load(data: bytes | np.ndarray | ImageError) -> np.ndarray | ImageError:
        if isinstance(data, ImageError):
            return data
        try:
            return engine.version.preprocessing.apply(data)
        except ImageError as error:
            return error

    def predict(batch: list[bytes | np.ndarray | ImageError]) -> list[float | ImageError]:
        loaded = [load(data) for data in batch]
        pixels = [item for item in loaded if not isinstance(item, ImageError)]
        scores = iter(engine.predict(np.stack(pixels)).tolist() if pixels else ())
        return [item if isinstance(item, ImageError) else finite_or_error(next(scores)) for item in loaded]

    source = iter(photos)
    batches = iter(lambda: list(islice(source, MAX_BATCH)), [])
    with ThreadPoolExecutor(MAX_CONCURRENT_BATCHES, thread_name_prefix="predict") as pool:
        # One batch decodes while another computes, and one more is read by then.
        submitted = deque(pool.submit(predict, batch) for batch in islice(batches, MAX_CONCURRENT_BATCHES + 1))
        while submitted:
            yield from submitted.popleft().result()
            submitted.extend(pool.submit(predict, batch) for batch in islice(batches, 1))
