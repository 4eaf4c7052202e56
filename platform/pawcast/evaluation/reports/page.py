"""One self-contained HTML page: facts, pictures, tables. Nothing is loaded from anywhere."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined


class Section(NamedTuple):
    """A part of the page.

    Attributes:
        heading: Its title, and its table's caption for screen readers.
        text: A paragraph.
        image: A PNG.
        alt: What the picture shows, for those who can't see it.
        table: Rows of cells; the first cell of each names it.
    """

    heading: str
    text: str = ""
    image: bytes | None = None
    alt: str = ""
    table: Sequence[Sequence[str]] = ()


def render_page(title: str, facts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """Return the page's HTML, with all text escaped and all pictures inside."""
    environment = Environment(
        loader=PackageLoader("pawcast.evaluation.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    environment.filters["size"] = _size
    return environment.get_template("page.html.jinja").render(title=title, facts=facts, sections=sections)


def _size(png: bytes) -> tuple[int, int]:
    """Return a PNG's width and height in pixels, which its first chunk begins with."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height
