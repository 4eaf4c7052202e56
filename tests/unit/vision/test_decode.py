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
from PIL.PngImagePlugin import PngInfo

from pawcast.errors import ImageError
from pawcast.vision import decode
from tests.support.cases import case
from tests.support.files import encode
from tests.support.malformed import tiff

FORMATS = decode.FORMATS


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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "tag", ['tiff:Orientation="6"', "tiff:Orientation = '6'", "><tiff:Orientation>6</tiff:Orientation></a"]
)
def test_orientation_by_xmp_alone_is_applied(kind, tag, picture):
    xmp = f"<x:xmpmeta><rdf:Description {tag}/></x:xmpmeta>"
    if kind == "PNG":
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp)
        data = encode(picture, kind, pnginfo=text)
    else:
        data = encode(picture, kind, xmp=xmp.encode())
    upright = decode.decode(encode(picture, kind))
    assert np.abs(decode.decode(data).astype(int) - np.rot90(upright, -1)).max() <= 4
    assert decode.probe(data).header[2:] == picture.shape[:2]


def test_orientation_by_exif_goes_before_xmp(picture):
    exif = Image.Exif()
    exif[0x0112] = 1
    data = encode(picture, "JPEG", exif=exif, xmp=b'<rdf:Description tiff:Orientation="6"/>')
    assert decode.decode(data).shape == picture.shape


def test_the_photo_with_an_orientation_by_xmp_is_turned():
    data = case("xmp_orientation.jpg").read_bytes()
    height, width = Image.open(io.BytesIO(data)).size
    assert decode.decode(data).shape == (height, width, 3)


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


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize(("kind", "dtype"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("TIFF", "<i4")])
def test_deep_grey_is_scaled_by_its_depth(bits, kind, dtype):
    ramp = np.linspace(0, 2**bits - 1, 64).astype(dtype).reshape(8, 8)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, kind)
    assert (decode.decode(buffer.getvalue())[..., 1] == (ramp >> (bits - 8))).all()


def test_packed_grey_of_12_bits_is_not_black():
    packed = b"".join(((left << 12) + right).to_bytes(3, "big") for left, right in [(0, 4095), (1024, 2048)] * 8)
    tags = {256: (4, 1, 4), 257: (4, 1, 8), 258: (3, 1, 12), 259: (3, 1, 1), 262: (3, 1, 1)}
    tags |= {273: (4, 1, 134), 277: (3, 1, 1), 278: (4, 1, 8), 279: (4, 1, len(packed)), 282: (4, 1, 1)}
    pixels = decode.decode(tiff(tags, packed))
    assert (pixels[..., 0] == [0, 255, 64, 128]).all()


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
