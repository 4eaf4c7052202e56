"""Contact sheets."""

from __future__ import annotations

import numpy as np
import pytest

from pawcast.evaluation.reports.gallery import Tile, draw_contact_sheet
from tests.support.files import open_image


@pytest.mark.parametrize("count", [0, 1, 8, 9, 40])
def test_a_sheet_shows_every_photo_in_full(count):
    tiles = [
        Tile(np.full((30, 40, 3), (10 * i % 250, 7, 200), np.uint8), "dog 97.3%", f"id {i}", "bad")
        for i in range(count)
    ]
    sheet = np.asarray(open_image(draw_contact_sheet([("Some", tiles)], "Title", columns=8, size=60)))
    for i in range(count):
        assert (sheet == (10 * i % 250, 7, 200)).all(2).sum() >= 60 * 40
    rows = max(1, -(-count // 8))
    assert sheet.shape[0] < 150 + rows * 120


@pytest.mark.parametrize("columns", [1, 8])
@pytest.mark.parametrize("text", ["a\nb\x00\t\u202ec", "n" * 4_000, "", "✗ é 猫"])
def test_a_sheet_takes_any_text_and_keeps_its_width(text, columns, picture):
    sheets = [
        open_image(draw_contact_sheet([(words, [Tile(picture, words, words, "good")])], words, columns=columns))
        for words in (text, "short")
    ]
    assert sheets[0].width == sheets[1].width
    # Nothing is drawn in the margin: text that doesn't fit is shortened.
    assert (np.asarray(sheets[0])[:, -20:] == 255).all()


def test_sections_without_photos_or_notes_leave_no_hole(picture):
    def height(*sections):
        return open_image(draw_contact_sheet(sections, "Title")).height

    noted, plain = [Tile(picture, "cat", "id")], [Tile(picture, "cat")]
    assert height(("One", [])) < height(("One", plain)) < height(("One", noted))


def test_good_and_bad_tiles_are_framed_in_their_color(picture):
    sheets = [
        np.asarray(open_image(draw_contact_sheet([("One", [Tile(picture, "cat", tone=tone)])], "Title")))
        for tone in ("plain", "good", "bad")
    ]
    frames = [{tuple(sheet[104, 26]), tuple(sheet[104, 26 + 153])} for sheet in sheets]
    assert frames == [{(255, 255, 255)}, {(0x1A, 0x6B, 0x3C)}, {(0xB3, 0x26, 0x1E)}]
