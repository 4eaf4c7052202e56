"""Photos in, predictions out, in process: what evaluation and `predict_one` use, and serving must agree with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np

from pawcast import images
from pawcast.errors import ImageError
from pawcast.inference.engine import MAX_BATCH, Engine


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


def describe(score: float, classes: list[str]) -> Prediction:
    """Turn the probability of class 1 into a prediction. Exactly one half is class 0, as in training."""
    index = int(score > 0.5)
    return Prediction(classes[index], score if index else 1 - score, {classes[0]: 1 - score, classes[1]: score})


def scores(engine: Engine, photos: Iterable[bytes | ImageError], threads: int = 2) -> Iterator[float | ImageError]:
    """Yield the probability of class 1 for each photo, or why there is none; in order, two batches in memory.

    Args:
        engine: The model.
        photos: Files' bytes; an `ImageError` passes through.
        threads: Decoding threads.
    """

    def load(data: bytes | ImageError) -> np.ndarray | ImageError:
        if isinstance(data, ImageError):
            return data
        try:
            return images.load(data, engine.size)
        except ImageError as error:
            return error

    source = iter(photos)
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:

        def decoding() -> Iterator[np.ndarray | ImageError]:
            return pool.map(load, list(islice(source, MAX_BATCH)))

        following = decoding()
        # The next batch is decoded while the network is at this one.
        while batch := list(following):
            following = decoding()
            good = [pixels for pixels in batch if not isinstance(pixels, ImageError)]
            found = iter(engine.predict(np.stack(good)).tolist() if good else ())
            for item in batch:
                yield item if isinstance(item, ImageError) else next(found)
