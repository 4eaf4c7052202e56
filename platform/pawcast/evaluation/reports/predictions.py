"""A contact sheet of predictions: the most confident of each class, and the least confident."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import numpy as np

from pawcast.errors import ImageError
from pawcast.evaluation.reports.gallery import Tile, draw_contact_sheet
from pawcast.vision import preprocess

TILE_SIZE = 150
"""Height and width, in pixels, that photos are decoded to for a sheet."""
_PER_SECTION = 16  # two rows of the sheet


ReadPhotos = Callable[[int, int], Iterable[tuple[object, bytes | ImageError]]]
"""Yields the photos from a position to before another, each with its bytes or why it has none."""


def format_prediction(score: float, classes: Sequence[str]) -> str:
    """Return the predicted class and its probability, such as `dog 97.3%`."""
    return f"{classes[int(score > 0.5)]} {max(score, 1 - score):.1%}"


def draw_prediction_sheet(
    read_photos: ReadPhotos,
    ids: Sequence[str],
    scores: Sequence[float | None],
    classes: Sequence[str],
    model: str,
    remark: str = "",
) -> bytes:
    """Draw photos with their predicted label.

    Args:
        read_photos: Reads the photos that were predicted.
        ids: The photos' ids, in the same order.
        scores: Their probabilities of class 1; None for a photo without a prediction.
        classes: The two classes' names.
        model: The model's name, for the title.
        remark: The end of the title.

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
    pixels = _load(read_photos, {index for _, items in sections for *_, index in items})

    tiles = [
        (heading, [Tile(pixels[i], format_prediction(score, classes), id_) for score, id_, i in items if i in pixels])
        for heading, items in sections
    ]
    return draw_contact_sheet(tiles, f"{len(scored):,} photos by {model}{remark}")


def _load(read_photos: ReadPhotos, indices: set[int]) -> dict[int, np.ndarray]:
    pixels = {}
    # In the photos' order: going back and forth in a dataset reads its shards again and again.
    for index in sorted(indices):
        for _, data in read_photos(index, index + 1):
            # A server of another version may have decoded what this version refuses.
            with suppress(ImageError):
                if not isinstance(data, ImageError):
                    pixels[index] = preprocess.load_image(data, TILE_SIZE)
    return pixels
