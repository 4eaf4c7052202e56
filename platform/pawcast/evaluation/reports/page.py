"""One self-contained HTML page of facts, pictures and tables; it loads nothing from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader
from PIL import Image


class Section(NamedTuple):
    """A part of the page.

    Attributes:
        heading: Its title, also the table's caption for screen readers.
        text: A paragraph.
        image: A PNG.
        alt: The picture's alternative text.
        table: Rows of cells; the first cell of a row is its name.
    """

    heading: str
    text: str = ""
    image: bytes | None = None
    alt: str = ""
    table: Sequence[Sequence[str]] = ()


def render_page(title: str, facts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """Return the page's HTML, with all text escaped and all pictures inside."""
    environment = Environment(loader=PackageLoader("pawcast.evaluation.reports", "."), autoescape=True)
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    environment.filters["size"] = _size
    return environment.get_template("page.html.jinja").render(title=title, facts=facts, sections=sections)


def _size(png: bytes) -> tuple[int, int]:
    """Return a PNG's width and height in pixels."""
    return Image.open(io.BytesIO(png)).size
