"""A contact sheet of predictions: the most confident of each class, and the least confident."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np

from pawcast.errors import ImageError
from pawcast.evaluation.reports.gallery import Tile, draw_contact_sheet
from pawcast.vision import preprocess

TILE_SIZE = 150
"""Height and width, in pixels, that photos are decoded to for a sheet."""
_PER_SECTION = 16  # two rows of the sheet


class PhotoReader(Protocol):
    """Photos by their position, such as `client.photos.PhotoSequence` or `data.SplitReader`."""

    def read(self, start: int, stop: int) -> Iterator[tuple[object, bytes | ImageError]]:
        """Yield each of these photos with its bytes, or with the reason why it can't be read."""
        ...


def format_prediction(score: float, classes: Sequence[str]) -> str:
    """Return the predicted class and its probability, such as `dog 97.3%`."""
    return f"{classes[int(score > 0.5)]} {max(score, 1 - score):.1%}"


def draw_prediction_sheet(
    photos: PhotoReader, ids: Sequence[str], scores: Sequence[float | None], classes: Sequence[str], model: str
) -> bytes:
    """Draw photos with their predicted label.

    Args:
        photos: All photos that were predicted.
        ids: The photos' ids, in the same order.
        scores: Their probabilities of class 1; None for a photo without a prediction.
        classes: The two classes' names.
        model: The model's name, for the title.

    Returns:
        A PNG.
    """
    scored = [(score, ids[index], index) for index, score in enumerate(scores) if score is not None]
    ascending = sorted(scored)
    by_doubt = sorted(scored, key=lambda item: (abs(item[0] - 0.5), item[1]))
    sections = [
        (f"Most confident: {classes[1]}", ascending[::-1][:_PER_SECTION]),
        (f"Most confident: {classes[0]}", ascending[:_PER_SECTION]),
        ("Least confident", by_doubt[:_PER_SECTION]),
    ]
    pixels = _load(photos, {index for _, items in sections for *_, index in items})
    return draw_contact_sheet(
        [
            (
                heading,
                [
                    Tile(pixels[index], format_prediction(score, classes), id_)
                    for score, id_, index in items
                    if index in pixels
                ],
            )
            for heading, items in sections
        ],
        f"{len(scored):,} photos by {model}",
    )


def _load(photos: PhotoReader, indices: set[int]) -> dict[int, np.ndarray]:
    pixels = {}
    # In the photos' order: going back and forth in a dataset reads its shards again and again.
    for index in sorted(indices):
        for _, data in photos.read(index, index + 1):
            # A server of another version may have decoded what this version refuses.
            with suppress(ImageError):
                if not isinstance(data, ImageError):
                    pixels[index] = preprocess.load_image(data, TILE_SIZE)
    return pixels
