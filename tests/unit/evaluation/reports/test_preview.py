"""The preview of a recipe's augmentation."""

from __future__ import annotations

import numpy as np

from pawcast.evaluation.reports.preview import draw_preview
from pawcast.recipes.builtin import article
from pawcast.recipes.schema import Augmentation
from tests.support.files import open_image


def first_row(sheet: bytes) -> list[np.ndarray]:
    """Return the first eight photos: the original, then one change each."""
    pixels = np.asarray(open_image(sheet))
    return [pixels[104:254, 28 + 164 * i :][:, :150] for i in range(8)]


def test_a_preview_shows_the_photo_and_each_change_alone():
    photo = np.random.default_rng(0).integers(0, 256, (150, 150, 3), np.uint8)
    augmentation = article().augment
    tiles = first_row(draw_preview(photo, augmentation, "cat.7"))
    on = [field for field, value in augmentation if value != getattr(Augmentation(), field)]
    assert (tiles[0] == photo).all()
    assert (tiles[1 + on.index("horizontal_flip")] == photo[:, ::-1]).mean() > 0.99
    assert all((tile != photo).mean() > 0.5 for tile in tiles[1 : 1 + len(on)])


def test_changes_that_are_off_are_not_shown():
    photo = np.random.default_rng(0).integers(0, 256, (150, 150, 3), np.uint8)
    first, *others = first_row(draw_preview(photo, Augmentation(), "cat.7"))
    assert (first == photo).all()
    assert all((tile == 255).all() for tile in others)
