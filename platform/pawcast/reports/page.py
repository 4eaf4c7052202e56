"""One self-contained HTML page: facts, pictures, tables. Nothing is loaded from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined


class Section(NamedTuple):
    """A part of the page: text, a PNG with its description, rows whose first cell is their name."""

    heading: str
    text: str = ""
    image: bytes | None = None
    alt: str = ""
    table: Sequence[Sequence[str]] = ()


def render_page(title: str, facts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """Return the page's HTML, with all text escaped and all pictures inside."""
    environment = Environment(
        loader=PackageLoader("pawcast.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment.get_template("page.html.jinja").render(title=title, facts=facts, sections=sections)
