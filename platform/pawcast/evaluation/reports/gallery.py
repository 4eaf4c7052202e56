"""Contact sheets: photos in a grid with what the model says of them, as a PNG."""

from __future__ import annotations

import bisect
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

_MARGIN, _GAP = 28, 14
_TITLE, _HEADING, _CAPTION, _NOTE = 24, 17, 14, 11
_INK, _GREY, _PAPER = "#1c1c1c", "#6b6b6b", "#ffffff"
_TONES = {"plain": _INK, "good": "#1a6b3c", "bad": "#b3261e"}
_MARKS = {"plain": "", "good": "✓ ", "bad": "✗ "}


class Tile(NamedTuple):
    """A photo in a sheet.

    Attributes:
        pixels: uint8 [height, width, 3], RGB.
        caption: What is said of it.
        note: Small print, such as its id.
        tone: Whether the caption is good or bad news; shown by colour and by a mark.
    """

    pixels: np.ndarray
    caption: str
    note: str = ""
    tone: Literal["plain", "good", "bad"] = "plain"


def draw_contact_sheet(
    sections: Sequence[tuple[str, Sequence[Tile]]], title: str, columns: int = 8, tile: int = 150
) -> bytes:
    """Draw photos in titled sections.

    Args:
        sections: Headings and their photos; a section without photos says so.
        title: At the top.
        columns: Photos in a row.
        tile: Height and width that photos are fitted into, in pixels. Texts that don't fit are elided.

    Returns:
        A PNG.
    """
    heights = [_height(tiles, columns, tile) for _, tiles in sections]
    width = 2 * _MARGIN + columns * tile + (columns - 1) * _GAP
    height = 2 * _MARGIN + _TITLE + sum(_HEADING + 2 * _GAP + height for height in heights)
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text(
        (_MARGIN, _MARGIN - 6),
        _fit(title, _font(_TITLE, bold=True), width - 2 * _MARGIN),
        _INK,
        _font(_TITLE, bold=True),
    )
    y = _MARGIN + _TITLE
    for (heading, tiles), section in zip(sections, heights, strict=True):
        y += 2 * _GAP
        pen.text((_MARGIN, y - _GAP // 2), _fit(heading, _font(_HEADING), width - 2 * _MARGIN), _INK, _font(_HEADING))
        y += _HEADING
        if not tiles:
            pen.text((_MARGIN, y + _GAP // 2), "none", _GREY, _font(_CAPTION))
        for i, item in enumerate(tiles):
            x = _MARGIN + (i % columns) * (tile + _GAP)
            row = (i // columns) * _row_height(tiles, tile)
            _draw_tile(sheet, pen, item, (x, y + _GAP // 2 + row), tile)
        y += section
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _height(tiles: Sequence[Tile], columns: int, tile: int) -> int:
    """What a section takes below its heading, in pixels."""
    return -(-len(tiles) // columns) * _row_height(tiles, tile) if tiles else _CAPTION + 2 * _GAP


def _row_height(tiles: Sequence[Tile], tile: int) -> int:
    # Without notes, their line would only leave a hole.
    return tile + _CAPTION + 14 + (_NOTE if any(item.note for item in tiles) else 0) + _GAP


def _draw_tile(sheet: Image.Image, pen: ImageDraw.ImageDraw, item: Tile, at: tuple[int, int], tile: int) -> None:
    x, y = at
    photo = ImageOps.contain(Image.fromarray(item.pixels), (tile, tile), Image.Resampling.LANCZOS)
    left, top = x + (tile - photo.width) // 2, y + (tile - photo.height) // 2
    pen.rectangle((x, y, x + tile - 1, y + tile - 1), fill="#f1f1f1")
    sheet.paste(photo, (left, top))
    colour = _TONES[item.tone]
    if item.tone != "plain":
        pen.rectangle((x - 2, y - 2, x + tile + 1, y + tile + 1), outline=colour, width=2)
    caption, note = _font(_CAPTION, bold=True), _font(_NOTE)
    pen.text((x, y + tile + 5), _fit(_MARKS[item.tone] + item.caption, caption, tile), colour, caption)
    pen.text((x, y + tile + _CAPTION + 10), _fit(item.note, note, tile), _GREY, note)


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: the same letters on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def _fit(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return a text on one line, with as much of its middle left out as it takes to fit."""
    # File names may hold line breaks and worse, which Pillow refuses to measure or draws as boxes.
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if font.getlength(text) <= width:
        return text
    kept = bisect.bisect_left(range(len(text)), True, key=lambda n: font.getlength(_elide(text, n)) > width) - 1
    return _elide(text, max(kept, 2))


def _elide(text: str, kept: int) -> str:
    return text[: kept - kept // 2] + "…" + text[len(text) - kept // 2 :]
