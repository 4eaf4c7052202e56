"""Photos in, predictions out, in process: what evaluation and `predict_one` use, and serving must agree with."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np

from pawcast.errors import ImageError
from pawcast.inference.engine import MAX_BATCH, MAX_CONCURRENT_BATCHES, Engine


class Prediction(NamedTuple):
    """What the model says of one photo.

    Attributes:
        label: The likelier class.
        probability: Of that class, in [0.5, 1].
        scores: Probability by class; they add up to 1.
    """

    label: str
    probability: float
    scores: dict[str, float]


def to_prediction(score: float, classes: list[str]) -> Prediction:
    """Turn the probability of class 1 into a prediction. Exactly one half is class 0, as in training."""
    index = int(score > 0.5)
    return Prediction(classes[index], score if index else 1 - score, {classes[0]: 1 - score, classes[1]: score})


def predict_scores(engine: Engine, photos: Iterable[bytes | np.ndarray | ImageError]) -> Iterator[float | ImageError]:
    """Yield the probability of class 1 for each photo, or why there is none; in order, a few batches in memory.

    Args:
        engine: The model.
        photos: Files' bytes, or pixels, uint8 [h, w, 3]; an `ImageError` passes through.
    """

    def load(data: bytes | np.ndarray | ImageError) -> np.ndarray | ImageError:
        if isinstance(data, ImageError):
            return data
        try:
            return engine.version.preprocessing.apply(data)
        except ImageError as error:
            return error

    def predict(batch: list[bytes | np.ndarray | ImageError]) -> list[float | ImageError]:
        pixels = [load(data) for data in batch]
        good = [item for item in pixels if not isinstance(item, ImageError)]
        found = iter(engine.predict(np.stack(good)).tolist() if good else ())
        return [item if isinstance(item, ImageError) else next(found) for item in pixels]

    source = iter(photos)
    batches = iter(lambda: list(islice(source, MAX_BATCH)), [])
    with ThreadPoolExecutor(MAX_CONCURRENT_BATCHES, thread_name_prefix="predict") as pool:
        # One decodes while another is in the network; a batch more is read by then.
        begun = deque(pool.submit(predict, batch) for batch in islice(batches, MAX_CONCURRENT_BATCHES + 1))
        while begun:
            yield from begun.popleft().result()
            begun.extend(pool.submit(predict, batch) for batch in islice(batches, 1))
