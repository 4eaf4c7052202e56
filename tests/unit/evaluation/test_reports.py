from __future__ import annotations

import io
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pawcast.data import manifest as manifests
from pawcast.data import shards
from pawcast.errors import ImageError, NotFoundError
from pawcast.evaluation.reports import curves
from pawcast.evaluation.reports.confusion import draw_confusion
from pawcast.evaluation.reports.curves import draw_curves
from pawcast.evaluation.reports.gallery import Tile, draw_contact_sheet
from pawcast.evaluation.reports.page import Section, render_page
from pawcast.evaluation.reports.preview import draw_preview
from pawcast.recipes.builtin import article
from pawcast.recipes.schema import Augmentation
from pawcast.store import open_store
from tests.support.files import encode, import_job


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


@pytest.mark.parametrize("columns", [1, 8])
@pytest.mark.parametrize("text", ["a\nb\x00\t\u202ec", "n" * 4_000, "", "✗ é 猫"])
def test_a_sheet_takes_any_text_and_keeps_its_width(text, columns, picture):
    sheets = [
        opened(draw_contact_sheet([(words, [Tile(picture, words, words, "good")])], words, columns=columns))
        for words in (text, "short")
    ]
    assert sheets[0].width == sheets[1].width
    # Nothing is drawn in the margin: what doesn't fit is left out.
    assert (np.asarray(sheets[0])[:, -20:] == 255).all()


def test_sections_without_photos_or_notes_leave_no_hole(picture):
    def height(*sections):
        return opened(draw_contact_sheet(sections, "Title")).height

    noted, plain = [Tile(picture, "cat", "id")], [Tile(picture, "cat")]
    assert height(("One", [])) < height(("One", plain)) < height(("One", noted))


def test_curves_and_confusion_are_pictures():
    history = {"acc": [0.5, 0.7], "val_acc": [0.6, 0.8], "loss": [0.7, 0.5], "val_loss": [0.6, 0.4]}
    assert opened(draw_curves(history, "run")).size == (1400, 560)
    assert opened(draw_confusion([[5, 1], [2, 8]], ["cat", "dog"])).size[0] == 560
    long = ["Golden Retriever", "Siamese"]
    assert opened(draw_confusion(np.array([[5, 1], [0, 0]]), long)).size == (560, 490)


def test_the_validation_curve_goes_through_the_validated_epochs(monkeypatch):
    figures = []

    def figure(*args, **options):
        figures.append(Figure(*args, **options))
        return figures[-1]

    monkeypatch.setattr(curves, "Figure", figure)
    gap = None
    history = {
        "acc": [0.5, 0.7, 0.8, 0.8, 0.9], "val_acc": [gap, 0.8, gap, 0.7, 0.8],
        "loss": [0.7, 0.5, 0.4, 0.4, 0.3], "val_loss": [gap, 0.4, gap, 0.5, 0.3],
    }  # fmt: skip
    assert opened(draw_curves(history, "run")).size == (1400, 560)
    accuracy, loss = ([line.get_xydata().tolist() for line in axes.lines] for axes in figures[0].axes)
    assert [len(line) for line in accuracy] == [5, 3, 1]
    assert accuracy[1:] == [[[2, 0.8], [4, 0.7], [5, 0.8]], [[2, 0.8]]]
    assert loss[1] == [[2, 0.4], [4, 0.5], [5, 0.3]]
    assert all(line.get_marker() == "." for axes in figures[0].axes for line in axes.lines[:2])


def test_a_preview_shows_the_photo_and_its_warps():
    photo = np.random.default_rng(0).integers(0, 256, (150, 150, 3), np.uint8)
    sheet = np.asarray(opened(draw_preview(photo, article().augment, "cat.7")))
    tiles = [sheet[104:254, 28 + 164 * i :][:, :150] for i in range(8)]
    assert (tiles[0] == photo).all()
    assert (tiles[7] == photo[:, ::-1]).mean() > 0.99
    assert all((tile != photo).mean() > 0.5 for tile in tiles[1:])
    off = np.asarray(opened(draw_preview(photo, Augmentation(), "cat.7")))
    assert all((off[104:254, 28 + 164 * i :][:, :150] == photo).all() for i in range(8))


def test_the_preview_job_reads_training_photos_and_files(tmp_path, picture):
    job = import_job("preview")
    store, own = open_store(str(tmp_path / "store")), tmp_path / "own.png"
    own.write_bytes(encode(picture))
    row = shards.PhotoRow("cat.7", "cat.7.png", 0, "", 80, 60, encode(picture[:, ::-1]))
    shard = shards.write(store, "d", "train", [row], ["cat", "dog"])
    split = manifests.Split(photos=1, per_class={"cat": 1}, shards=[shard])
    manifests.publish(store, manifests.Manifest(
        dataset="d", classes=["cat", "dog"], seed=0, source_sha256="", splits={"train": split}, quarantine=[],
        report_sha256="0",
    ))  # fmt: skip
    assert job.find(store.uri, "d", None) == job.find(store.uri, "d", "cat.7") == ("cat.7", row.data)
    assert job.find(store.uri, "d", str(own)) == (str(own), own.read_bytes())
    for missing in ("cat.8", str(tmp_path), "x" * 5_000):
        with pytest.raises(NotFoundError):
            job.find(store.uri, "d", missing)
    own.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"own\.png can't be used"):
        job.main("d", photo=str(own), out=tmp_path / "out.png", store_uri=store.uri)
    assert not (tmp_path / "out.png").exists()


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.attributes: list[dict[str, str | None]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append(dict(attrs))
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
    assert [(img["width"], img["height"]) for img in page.images] == [("560", "490")]
    assert "http" not in html
    assert page.tags.count("caption") == page.tags.count("table") == 1
    assert not any({"href", "srcset"} & set(attributes) for attributes in page.attributes)


def test_wide_pictures_can_be_scrolled():
    history = {"acc": [0.5], "val_acc": [0.6], "loss": [0.7], "val_loss": [0.6]}
    wide, small = draw_curves(history, "run"), draw_confusion([[1, 0], [0, 1]], ["a", "b"])
    page = Page()
    page.feed(render_page("x", {}, [Section("One", image=wide, alt="a"), Section("Two", image=small, alt="b")]))
    assert [a["aria-label"] for a in page.attributes if a.get("class") == "wide"] == ["One"]
