"""The contact sheet of predictions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pawcast.errors import ImageError
from pawcast.evaluation.reports import predictions
from pawcast.evaluation.reports.predictions import draw_prediction_sheet, format_prediction
from tests.support.files import encode


class Photos:
    """Photos of one grey each; the last one can't be read."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.reads: list[int] = []

    def read(self, start: int, stop: int) -> Iterator[tuple[None, bytes | ImageError]]:
        for index in range(start, stop):
            self.reads.append(index)
            last = index == self.count - 1
            yield None, ImageError("gone") if last else encode(np.full((8, 8, 3), index, np.uint8))


def test_a_prediction_names_the_likelier_class():
    assert format_prediction(0.973, ["cat", "dog"]) == "dog 97.3%"
    assert format_prediction(0.5, ["cat", "dog"]) == "cat 50.0%"


def test_a_sheet_shows_the_most_and_the_least_confident_photos(monkeypatch):
    sheets = []
    monkeypatch.setattr(predictions, "draw_contact_sheet", lambda *args: sheets.append(args) or b"png")
    photos = Photos(60)
    scores = [None if i == 7 else i / 59 for i in range(60)]
    ids = [f"p{i:02}" for i in range(60)]
    assert draw_prediction_sheet(photos.read, ids, scores, ["sheep", "ox"], "farm@3", "; 1 left out") == b"png"
    ((sections, title),) = sheets
    shown = {heading: [tile.note for tile in tiles] for heading, tiles in sections}
    assert [*shown] == ["Most confident: ox", "Most confident: sheep", "Least confident"]
    # The photo of the highest score can't be read, and the one without a score isn't shown.
    assert shown["Most confident: ox"] == [f"p{i}" for i in range(58, 43, -1)]
    assert shown["Most confident: sheep"] == [f"p{i:02}" for i in range(17) if i != 7]
    assert sorted(shown["Least confident"]) == [f"p{i}" for i in range(22, 38)]
    assert title == "59 photos by farm@3; 1 left out"
    assert photos.reads == sorted(set(photos.reads))
