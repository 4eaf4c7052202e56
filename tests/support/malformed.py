"""Photos of every common kind, and ways to damage them. Equal seeds give equal bytes."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

_SIGNIFICANT = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    # A copy: Pillow's JPEG writer leaves its settings on the image, and TIFF's then stumbles over them.
    image.copy().save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, packed: bytes, interlaced: bool = False) -> bytes:
    """A PNG by hand, of a depth and colour type that Pillow may not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", packed), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def bmp(width: int, height: int, bits: int, compression: int, body: bytes, palette: bytes = b"") -> bytes:
    """A BMP by hand."""
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


def tiff(entries: dict[int, tuple[int, int, int]], behind: bytes = b"") -> bytes:
    """A TIFF by hand: tag to (type, count, value). `behind` follows the directory: at 14 bytes, and 12 for each tag."""
    fields = b"".join(struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + fields + struct.pack("<I", 0) + behind


def zeros(size: int) -> bytes:
    """Zeros in zlib's format, a thousandth of their size: one flushed block again and again, which takes no time."""
    packer = zlib.compressobj(9)
    start = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * (size // 2**20) + b"\x03\0" + bytes(4)


def with_exif(jpeg: bytes, body: bytes, times: int = 1) -> bytes:
    """A JPEG with an EXIF segment of any content, once or more."""
    segment = b"\xff\xe1" + struct.pack(">H", len(body) + 8) + b"Exif\0\0" + body
    return jpeg[:2] + segment * times + jpeg[2:]


def samples() -> dict[str, bytes]:
    """One small photo of each kind, by a name that says which."""
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
    jpeg, cmyk = saved(rgb, "JPEG"), saved(rgb.convert("CMYK"), "JPEG")
    animated = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)], "duration": 40}
    rows16 = b"".join(b"\0" + rng.bytes(24 * 6) for _ in range(18))
    found = {
        "jpeg": jpeg,
        "jpeg-progressive": saved(rgb, "JPEG", progressive=True),
        "jpeg-grey": saved(grey, "JPEG"),
        "jpeg-cmyk": cmyk,
        "jpeg-ycck": cmyk.replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2"),
        "jpeg-exif": saved(rgb, "JPEG", exif=exif),
        "jpeg-icc": saved(rgb, "JPEG", icc_profile=rng.bytes(300)),
        "jpeg-444-restarts": saved(rgb, "JPEG", subsampling=0, restart_marker_rows=1),
        "jpeg-mpo": saved(rgb, "MPO", save_all=True, append_images=[rgb.rotate(90)]),
        "jpeg-exif-broken": with_exif(jpeg, b"II*\0\x08\0\0\0" + rng.bytes(60)),
        "png": saved(rgb, "PNG"),
        "png-alpha": saved(rgba, "PNG"),
        "png-grey-alpha": saved(rgba.convert("LA"), "PNG"),
        "png-palette": saved(palette, "PNG"),
        "png-palette-clear": saved(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "png-clear-colour": saved(rgb, "PNG", transparency=(0, 255, 9)),
        "png-bit": saved(rgb.convert("1"), "PNG"),
        "png-16-grey": saved(Image.fromarray(deep), "PNG"),
        "png-16-colour": png(24, 18, 16, 2, zlib.compress(rows16)),
        "png-interlaced": png(24, 18, 8, 0, zlib.compress(bytes(2000)), interlaced=True),
        "png-animated": saved(rgb, "PNG", **animated),
        "png-exif-icc": saved(rgb, "PNG", exif=exif, icc_profile=rng.bytes(99)),
        "webp": saved(rgb, "WEBP"),
        "webp-lossless": saved(rgba, "WEBP", lossless=True),
        "webp-animated": saved(rgb, "WEBP", **animated),
        "webp-exif": saved(rgb, "WEBP", exif=exif, icc_profile=rng.bytes(99)),
        "bmp": saved(rgb, "BMP"),
        "bmp-palette": saved(palette, "BMP"),
        "bmp-bit": saved(rgb.convert("1"), "BMP"),
        "bmp-alpha": saved(rgba, "BMP"),
        "bmp-rle8": bmp(24, 18, 8, 1, bytes([24, 3, 0, 0]) * 18 + b"\0\1", bytes(range(64)) * 16),
        "bmp-rle4": bmp(24, 18, 4, 2, bytes([24, 3, 0, 0]) * 18 + b"\0\1", bytes(64)),
        "bmp-upside-down": bmp(24, -18, 24, 0, rng.bytes(24 * 18 * 3)),
        "gif": saved(palette, "GIF"),
        "gif-clear": saved(palette, "GIF", transparency=3),
        "gif-animated": saved(rgb, "GIF", **animated),
        "gif-grey": saved(grey, "GIF"),
        "tiff": saved(rgb, "TIFF"),
        "tiff-frames": saved(rgb, "TIFF", **animated),
        "tiff-16": saved(Image.fromarray(deep), "TIFF"),
        "tiff-cmyk": saved(rgb.convert("CMYK"), "TIFF"),
        "tiff-alpha": saved(rgba, "TIFF"),
        "tiff-palette": saved(palette, "TIFF"),
        "tiff-exif": saved(rgb, "TIFF", exif=exif),
        "tiff-group4": saved(rgb.convert("1"), "TIFF", compression="group4"),
    }
    for method in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        found[f"tiff-{method.removeprefix('tiff_')}"] = saved(rgb, "TIFF", compression=method)
    return found


def bombs() -> dict[str, bytes]:
    """One small file of each format that claims to be a picture of 60,000 by 60,000."""
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
        yield rng.choice((_cut, _flip, _flip, _number, _number, _run, _move, _splice))(data, others, rng)


def _cut(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _flip(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        found[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(found)


def _number(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Write a number that sizes, offsets and counts tend to go wrong with."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 2)):
        number = struct.pack(rng.choice("<>") + "I", rng.choice(_SIGNIFICANT))
        place, width = _place(data, rng), rng.choice((1, 2, 4))
        found[place : place + width] = number[:width] if rng.random() < 0.5 else number[-width:]
    return bytes(found)


def _run(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    place, size = _place(data, rng), rng.randint(1, 40)
    return data[:place] + bytes([rng.choice((0, 0xFF, rng.randrange(256)))]) * size + data[place + size :]


def _move(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Leave a piece out, or have it twice."""
    start = _place(data, rng)
    end = min(len(data), start + rng.randint(1, 80))
    return data[:start] + data[end:] if rng.random() < 0.5 else data[:end] + data[start:]


def _splice(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """One photo's beginning, another's end."""
    other = rng.choice(others)
    return data[: rng.randint(1, min(200, len(data)))] + other[rng.randrange(len(other)) :]


def _place(data: bytes, rng: random.Random) -> int:
    """Headers more often than pixels."""
    return rng.randrange(min(len(data), 64)) if rng.random() < 0.5 else rng.randrange(len(data))
