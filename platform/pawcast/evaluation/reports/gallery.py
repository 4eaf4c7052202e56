"""Contact sheets: photos in a grid with a caption each, as a PNG."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

_MARGIN, _GAP, _BORDER = 26, 10, 2
_INK, _GREY = "#1c1c1c", "#6b6b6b"
_COLORS = {"plain": _INK, "good": "#1a6b3c", "bad": "#b3261e"}
_MARKS = {"plain": "", "good": "✓ ", "bad": "✗ "}


class Tile(NamedTuple):
    """A photo in a sheet.

    Attributes:
        pixels: uint8 [height, width, 3], RGB.
        caption: The main text below it.
        note: Small print below that, such as its id.
        tone: Whether the caption is good or bad news; shown by color and by a mark.
    """

    pixels: np.ndarray
    caption: str
    note: str = ""
    tone: Literal["plain", "good", "bad"] = "plain"


def draw_contact_sheet(
    sections: Sequence[tuple[str, Sequence[Tile]]], title: str, columns: int = 8, size: int = 150
) -> bytes:
    """Draw photos in titled sections.

    Args:
        sections: Headings and their photos; a section without photos says so.
        title: At the top.
        columns: Photos in a row.
        size: Height and width in pixels that photos are fitted into. Text that doesn't fit is
            shortened in the middle.

    Returns:
        A PNG.
    """
    width = columns * (size + 2 * _BORDER + _GAP)
    rows = [_draw_line(title, 24, 44, width, bold=True)]
    for heading, tiles in sections:
        rows.append(_draw_line(heading, 17, 32, width))
        # Without notes, their line would only leave a hole.
        has_notes = any(tile.note for tile in tiles)
        cells = [_draw_tile(tile, size, has_notes) for tile in tiles]
        cells += [np.full_like(cells[0], 255) for _ in range(-len(cells) % columns)]
        rows += [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
        rows.append(_draw_line("" if tiles else "none", 14, _GAP if tiles else 36, width, _GREY))
    sheet = ImageOps.expand(Image.fromarray(np.vstack(rows)), (_MARGIN, _MARGIN, _MARGIN - _GAP, _MARGIN), "white")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw_tile(tile: Tile, size: int, has_notes: bool) -> np.ndarray:
    color = _COLORS[tile.tone]
    photo = ImageOps.pad(Image.fromarray(tile.pixels), (size, size), Image.Resampling.LANCZOS, "#f1f1f1")
    framed = ImageOps.expand(photo, _BORDER, "white" if tile.tone == "plain" else color)
    parts = [np.asarray(framed), _draw_line(_MARKS[tile.tone] + tile.caption, 14, 22, framed.width, color, bold=True)]
    if has_notes:
        parts.append(_draw_line(tile.note, 11, 17, framed.width, _GREY))
    return np.pad(np.vstack(parts), ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255)


def _draw_line(text: str, size: int, height: int, width: int, color: str = _INK, bold: bool = False) -> np.ndarray:
    """Draw one line of text, uint8 [height, width, 3], shortened to the width."""
    line = Image.new("RGB", (width, height), "white")
    font = _font(size, bold)
    ImageDraw.Draw(line).text(
        (_BORDER, height // 2), _shorten(text, font, width - 2 * _BORDER), color, font, anchor="lm"
    )
    return np.asarray(line)


@functools.cache
def _font(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along: the same letters on every machine."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return the text on one line, its middle cut out until it fits."""
    # File names may hold line breaks and worse, which Pillow refuses to measure or draws as boxes.
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    shortened, half = text, min(len(text) // 2, width)
    while font.getlength(shortened) > width:
        shortened = f"{text[:half]}…{text[len(text) - half :]}"
        half -= 1
    return shortened
