"""A format is told by the first bytes of a file, and nothing else is taken for an image."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pawcast.vision.formats import HEAD_BYTES, image_format


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("JPEG", "jpeg"),
        ("PNG", "png"),
        ("WEBP", "webp"),
        ("BMP", "bmp"),
        ("GIF", "gif"),
        ("TIFF", "tiff"),
        ("AVIF", "avif"),
        ("JPEG2000", "jpeg2000"),
        ("ICO", "ico"),
    ],
)
def test_what_pillow_writes_is_recognised(kind, name):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(buffer, kind)
    assert image_format(buffer.getvalue()[:HEAD_BYTES]) == name


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heic"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "heic"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1miafavif", "avif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heicavif", "heic"),  # The last word isn't in the box.
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", None),
        (b"MM\0*\0\0\0\x08", "tiff"),
        (b"BM is how this text begins, and it goes on.", None),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        (b"PK\3\4", None),
        (b"<html>", None),
        (b"", None),
    ],
)
def test_brands_and_signatures_that_resemble_each_other_are_told_apart(head, name):
    assert image_format(head) == name
