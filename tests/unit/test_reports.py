from __future__ import annotations

import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from pawcast.reports.curves import draw_curves
from pawcast.reports.gallery import Tile, draw_contact_sheet
from pawcast.reports.metrics import draw_confusion
from pawcast.reports.page import Section, render_page


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("count", [0, 1, 8, 9, 40])
def test_a_sheet_shows_every_photo_in_full(count, picture):
    tiles = [
        Tile(np.full((30, 40, 3), (10 * i % 250, 7, 200), np.uint8), "dog 97.3%", f"id {i}", "bad")
        for i in range(count)
    ]
    sheet = np.asarray(opened(draw_contact_sheet([("Some", tiles)], "Title", columns=8, tile=60)))
    for i in range(count):
        assert (sheet == (10 * i % 250, 7, 200)).all(2).sum() >= 60 * 40
    rows = max(1, -(-count // 8))
    assert sheet.shape[0] < 150 + rows * 120


def test_curves_and_confusion_are_pictures():
    history = {"acc": [0.5, 0.7], "val_acc": [0.6, 0.8], "loss": [0.7, 0.5], "val_loss": [0.6, 0.4]}
    assert opened(draw_curves(history, "run")).size == (1400, 560)
    assert opened(draw_confusion([[5, 1], [2, 8]], ["cat", "dog"])).size[0] == 560


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))


def test_a_page_is_self_contained_and_escapes_what_it_is_told(picture):
    image = draw_confusion([[1, 0], [0, 1]], ["a", "b"])
    html = render_page(
        "<b>x</b>", {"Run": "<script>"}, [Section("One", image=image, alt="A picture", table=[("k", "<v>")])]
    )
    page = Page()
    page.feed(html)
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert [img["alt"] for img in page.images] == ["A picture"]
    assert all((img["src"] or "").startswith("data:image/png;base64,") for img in page.images)
    assert "http" not in html
