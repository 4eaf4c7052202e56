"""Small photos of every common kind, and ways to damage them; equal seeds give equal bytes."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

_LIMITS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode an image in a format of Pillow's."""
    buffer = io.BytesIO()
    # A copy: Pillow's JPEG writer leaves settings on the image, which its TIFF writer can't handle.
    image.copy().save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """Assemble a chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, color_type: int, packed: bytes, interlaced: bool = False) -> bytes:
    """Assemble a PNG, of a depth and colour type that Pillow may not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlaced)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", packed), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bmp(width: int, height: int, bits: int, compression: int, body: bytes, palette: bytes = b"") -> bytes:
    """Assemble a BMP."""
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


def tiff(entries: dict[int, tuple[int, int, int]], data: bytes = b"") -> bytes:
    """Assemble a TIFF of tags to (type, count, value).

    `data` follows the directory, at offset 14 + 12 * number of tags.
    """
    fields = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + struct.pack("<I", 0) + data


def zeros(size: int) -> bytes:
    """Return zeros compressed by zlib to a thousandth of their size.

    One flushed block is repeated, which takes no time.
    """
    packer = zlib.compressobj(9)
    start = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * (size // 2**20) + b"\x03\0" + bytes(4)


def with_exif(jpeg: bytes, body: bytes, times: int = 1) -> bytes:
    """Insert an EXIF segment of any content into a JPEG, once or more."""
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 8) + b"Exif\0\0" + body
    return jpeg[:2] + segment * times + jpeg[2:]


def samples() -> dict[str, bytes]:
    """Return one small photo of each kind, by name."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:18, 0:24]
    plane = (x * 9 + y * 3).astype(np.uint8)
    rgb = Image.fromarray(np.stack([plane, 255 - plane, rng.integers(0, 256, plane.shape, np.uint8)], -1))
    grey, rgba = rgb.convert("L"), rgb.convert("RGBA")
    rgba.putalpha(grey)
    palette = rgb.quantize(16)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    deep = np.linspace(0, 65535, 18 * 24, dtype=np.uint16).reshape(18, 24)
    jpeg, cmyk = save(rgb, "JPEG"), save(rgb.convert("CMYK"), "JPEG")
    animated = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)], "duration": 40}
    rows16 = b"".join(b"\0" + rng.bytes(24 * 6) for _ in range(18))
    photos = {
        "jpeg": jpeg,
        "jpeg-progressive": save(rgb, "JPEG", progressive=True),
        "jpeg-grey": save(grey, "JPEG"),
        "jpeg-cmyk": cmyk,
        "jpeg-ycck": cmyk.replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2"),
        "jpeg-exif": save(rgb, "JPEG", exif=exif),
        "jpeg-icc": save(rgb, "JPEG", icc_profile=rng.bytes(300)),
        "jpeg-444-restarts": save(rgb, "JPEG", subsampling=0, restart_marker_rows=1),
        "jpeg-mpo": save(rgb, "MPO", save_all=True, append_images=[rgb.rotate(90)]),
        "jpeg-exif-broken": with_exif(jpeg, b"II*\0\x08\0\0\0" + rng.bytes(60)),
        "png": save(rgb, "PNG"),
        "png-alpha": save(rgba, "PNG"),
        "png-grey-alpha": save(rgba.convert("LA"), "PNG"),
        "png-palette": save(palette, "PNG"),
        "png-palette-clear": save(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "png-clear-color": save(rgb, "PNG", transparency=(0, 255, 9)),
        "png-bit": save(rgb.convert("1"), "PNG"),
        "png-16-grey": save(Image.fromarray(deep), "PNG"),
        "png-16-color": png(24, 18, 16, 2, zlib.compress(rows16)),
        "png-interlaced": png(24, 18, 8, 0, zlib.compress(bytes(2000)), interlaced=True),
        "png-animated": save(rgb, "PNG", **animated),
        "png-exif-icc": save(rgb, "PNG", exif=exif, icc_profile=rng.bytes(99)),
        "webp": save(rgb, "WEBP"),
        "webp-lossless": save(rgba, "WEBP", lossless=True),
        "webp-animated": save(rgb, "WEBP", **animated),
        "webp-exif": save(rgb, "WEBP", exif=exif, icc_profile=rng.bytes(99)),
        "bmp": save(rgb, "BMP"),
        "bmp-palette": save(palette, "BMP"),
        "bmp-bit": save(rgb.convert("1"), "BMP"),
        "bmp-alpha": save(rgba, "BMP"),
        "bmp-rle8": bmp(24, 18, 8, 1, bytes([24, 3, 0, 0]) * 18 + b"\0\1", bytes(range(64)) * 16),
        "bmp-rle4": bmp(24, 18, 4, 2, bytes([24, 3, 0, 0]) * 18 + b"\0\1", bytes(64)),
        "bmp-upside-down": bmp(24, -18, 24, 0, rng.bytes(24 * 18 * 3)),
        "gif": save(palette, "GIF"),
        "gif-clear": save(palette, "GIF", transparency=3),
        "gif-animated": save(rgb, "GIF", **animated),
        "gif-grey": save(grey, "GIF"),
        "tiff": save(rgb, "TIFF"),
        "tiff-frames": save(rgb, "TIFF", **animated),
        "tiff-16": save(Image.fromarray(deep), "TIFF"),
        "tiff-cmyk": save(rgb.convert("CMYK"), "TIFF"),
        "tiff-alpha": save(rgba, "TIFF"),
        "tiff-palette": save(palette, "TIFF"),
        "tiff-exif": save(rgb, "TIFF", exif=exif),
        "tiff-group4": save(rgb.convert("1"), "TIFF", compression="group4"),
    }
    for method in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        photos[f"tiff-{method.removeprefix('tiff_')}"] = save(rgb, "TIFF", compression=method)
    return photos


def bombs() -> dict[str, bytes]:
    """Return one small file of each format whose header says 60,000 x 60,000 pixels."""
    side = struct.pack("<HH", 60_000, 60_000)
    tags = {256: (4, 1, 60_000), 257: (4, 1, 60_000), 258: (3, 1, 8), 259: (3, 1, 1)}
    tags |= {262: (3, 1, 1), 273: (4, 1, 99), 277: (3, 1, 1), 279: (4, 1, 9)}
    canvas = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + b"\xff\xff\0" * 2
    frame = b"\xff\xc0\0\x11\x08" + struct.pack(">HH", 60_000, 60_000) + b"\3\1\x11\0\2\x11\0\3\x11\0"
    return {
        "png": png(60_000, 60_000, 8, 6, zeros(2**24)),
        "bmp": bmp(60_000, 60_000, 24, 0, bytes(100)),
        "gif": b"GIF89a" + side + bytes(3) + b",\0\0\0\0" + side + b"\0\x08\2\0\0\0;",
        "tiff": tiff(tags, bytes(99)),
        "webp": b"RIFF" + struct.pack("<I", 50) + canvas + bytes(30),
        "jpeg": b"\xff\xd8" + frame + b"\xff\xda\0\x0c\3\1\0\2\0\3\0\0\x3f\0" + bytes(50),
    }


def damaged(data: bytes, others: list[bytes], rng: random.Random) -> Iterator[bytes]:
    """Yield damaged copies without end."""
    while True:
        yield rng.choice((_truncate, _flip_bits, _flip_bits, _write_number, _write_number, _fill, _move, _splice))(
            data, others, rng
        )


def _truncate(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _flip_bits(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    damaged_data = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        damaged_data[_offset(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(damaged_data)


def _write_number(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Write a number at a limit, where sizes, offsets and counts tend to go wrong."""
    damaged_data = bytearray(data)
    for _ in range(rng.randint(1, 2)):
        number = struct.pack(rng.choice("<>") + "I", rng.choice(_LIMITS))
        offset, width = _offset(data, rng), rng.choice((1, 2, 4))
        damaged_data[offset : offset + width] = number[:width] if rng.random() < 0.5 else number[-width:]
    return bytes(damaged_data)


def _fill(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    offset, size = _offset(data, rng), rng.randint(1, 40)
    return data[:offset] + bytes([rng.choice((0, 0xFF, rng.randrange(256)))]) * size + data[offset + size :]


def _move(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Leave a piece out, or repeat it."""
    start = _offset(data, rng)
    end = min(len(data), start + rng.randint(1, 80))
    return data[:start] + data[end:] if rng.random() < 0.5 else data[:end] + data[start:]


def _splice(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Join one photo's beginning and another's end."""
    other = rng.choice(others)
    return data[: rng.randint(1, min(200, len(data)))] + other[rng.randrange(len(other)) :]


def _offset(data: bytes, rng: random.Random) -> int:
    """Choose an offset, in the header more often than in the pixels."""
    return rng.randrange(min(len(data), 64)) if rng.random() < 0.5 else rng.randrange(len(data))
