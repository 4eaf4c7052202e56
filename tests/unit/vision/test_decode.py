"""Decoding and probing photos of every format."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pawcast.errors import ImageError
from pawcast.vision import decode
from tests.support.files import encode

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_decodes_to_the_same_picture(kind, picture):
    pixels = decode.decode(encode(picture, kind))
    assert (pixels.shape, pixels.dtype) == (picture.shape, np.uint8)
    assert np.abs(pixels.astype(int) - picture).mean() < 6


def test_turbojpeg_agrees_with_pillow(picture):
    data = encode(picture, "JPEG", quality=90)
    by_pillow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode.decode(data) - by_pillow).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, picture):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture, "JPEG", exif=exif, quality=95)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    pixels = decode.decode(data)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= 4


def test_grey_cmyk_palette_and_transparent_photos_decode_to_rgb(picture):
    grey = decode.decode(encode(picture, "JPEG", "L"))
    assert grey.shape == picture.shape
    assert (grey[..., 0] == grey[..., 2]).all()
    assert decode.decode(encode(picture, "JPEG", "CMYK")).shape == picture.shape
    assert decode.decode(encode(picture, "PNG", "P")).shape == picture.shape
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    buffer = io.BytesIO()
    clear.save(buffer, "PNG")
    assert (decode.decode(buffer.getvalue()) == 255).all()


def test_16_bit_samples_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    assert (decode.decode(buffer.getvalue())[..., 1] == (ramp >> 8)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_truncated_file_is_refused(kind, picture):
    data = encode(picture, kind)
    with pytest.raises(ImageError):
        decode.decode(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"GIF89a", bytes(1000)])
def test_data_that_is_no_image_is_refused(data):
    with pytest.raises(ImageError):
        decode.decode(data)


def test_a_header_of_too_many_pixels_is_refused_before_decoding():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100)))
    with pytest.raises(ImageError, match="pixels"):
        decode.decode(bomb)


@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(FORMATS), seed=st.integers(0, 2**32 - 1))
def test_damaged_photos_raise_nothing_but_image_errors(kind, seed):
    random = np.random.default_rng(seed)
    data = bytearray(encode(random.integers(0, 256, (12, 14, 3), dtype=np.uint8), kind))
    for _ in range(random.integers(1, 8)):
        data[random.integers(len(data))] = random.integers(256)
    try:
        pixels = decode.decode(bytes(data[: random.integers(1, len(data) + 1)]))
    except ImageError:
        pass
    else:
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3


@pytest.mark.parametrize("kind", FORMATS)
def test_probe_returns_the_header_and_a_small_grey_picture(kind, picture):
    header, grey = decode.probe(encode(picture, kind))
    assert (header.format, header.width, header.height) == (kind, picture.shape[1], picture.shape[0])
    assert grey.dtype == np.uint8
    assert min(grey.shape) >= min(36, *picture.shape[:2])
    assert abs(grey.mean() - picture.mean()) < 12


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
def test_probe_accepts_and_refuses_what_decode_does(options, picture):
    whole = encode(picture, "JPEG", **options)
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), rng.integers(0, 4)):
            data[at] = int(rng.integers(256))
        data = data[: len(data) if rng.random() < 0.5 else int(rng.integers(len(data)))]
        outcomes = []
        for function in (decode.decode, decode.probe):
            try:
                function(bytes(data))
                outcomes.append("")
            except ImageError as error:
                outcomes.append(error.what)
        assert bool(outcomes[0]) == bool(outcomes[1]), outcomes
        refused += bool(outcomes[0])
    assert 50 < refused < 300


def test_probe_applies_exif_orientation(picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    header, grey = decode.probe(encode(picture, "JPEG", exif=exif))
    assert (header.height, header.width) == (picture.shape[1], picture.shape[0])
    assert grey.shape == (picture.shape[1], picture.shape[0])
