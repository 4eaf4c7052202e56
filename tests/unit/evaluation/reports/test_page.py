"""The report's HTML page."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np

from pawcast.evaluation.reports.curves import draw_curves
from pawcast.evaluation.reports.page import Section, render_page
from tests.support.files import encode


class Page(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.attributes: list[dict[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))
        if tag == "img":
            self.images.append(dict(attrs))


def test_a_page_is_self_contained_and_escapes_all_text():
    image = encode(np.zeros((49, 56, 3), np.uint8))
    html = render_page(
        "<b>x</b>", {"Run": "<script>"}, [Section("One", image=image, alt="A picture", table=[("k", "<v>")])]
    )
    page = Page(html)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert [img["alt"] for img in page.images] == ["A picture"]
    assert all((img["src"] or "").startswith("data:image/png;base64,") for img in page.images)
    assert [(img["width"], img["height"]) for img in page.images] == [("56", "49")]
    assert "http" not in html
    assert page.tags.count("caption") == page.tags.count("table") == 1
    assert not any({"href", "srcset"} & set(attributes) for attributes in page.attributes)


def test_wide_pictures_can_be_scrolled():
    history = {"acc": [0.5], "val_acc": [0.6], "loss": [0.7], "val_loss": [0.6]}
    wide, small = draw_curves(history, "run"), encode(np.zeros((49, 56, 3), np.uint8))
    page = Page(render_page("x", {}, [Section("One", image=wide, alt="a"), Section("Two", image=small, alt="b")]))
    assert [a["aria-label"] for a in page.attributes if a.get("class") == "wide"] == ["One"]
