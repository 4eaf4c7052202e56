"""Small photos of every common kind, and ways to damage them; equal seeds give equal bytes."""

from __future__ import annotations

import importlib.util
import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from tests.support import cases

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
        "jpeg-xmp": with_xmp(jpeg, b'tiff:Orientation="6"'),
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
        "avif": save(rgb, "AVIF"),
        "avif-alpha-exif": save(rgba, "AVIF", exif=exif.tobytes()),
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
    photos["tiff-jpeg-old"] = old_jpeg_tiff(save(rgb, "JPEG", subsampling=2), 24, 18)
    for method in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        photos[f"tiff-{method.removeprefix('tiff_')}"] = save(rgb, "TIFF", compression=method)
    if importlib.util.find_spec("pillow_heif"):
        photos |= _heic_samples(rgb, exif)
    return photos


def _heic_samples(rgb: Image.Image, exif: Image.Exif) -> dict[str, bytes]:
    import pillow_heif

    def encode(**options: object) -> bytes:
        buffer = io.BytesIO()
        pillow_heif.from_pillow(rgb).save(buffer, **options)
        return buffer.getvalue()

    return {"heic": encode(), "heic-exif": encode(exif=exif.tobytes())}


def case_photos() -> dict[str, bytes]:
    """Return the photos among the inputs that went wrong once, where this machine has them."""
    folder = cases.SHARED / "cases"
    return {path.stem: path.read_bytes() for path in sorted(folder.glob("*.jpg"))}


def old_jpeg_tiff(jpeg: bytes, width: int, height: int) -> bytes:
    """Assemble a TIFF of compression 6, which points at a whole JPEG, as scanners once did."""
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 6), 262: (3, 1, 6)}
    tags |= {273: (4, 1, 0), 277: (3, 1, 3), 278: (4, 1, height), 279: (4, 1, len(jpeg))}
    tags |= {513: (4, 1, 0), 514: (4, 1, len(jpeg)), 530: (3, 2, 2 << 16 | 2)}
    start = 14 + 12 * len(tags)
    tags[273], tags[513] = (4, 1, start), (4, 1, start)
    return tiff(tags, jpeg)


def tall_jpeg(width: int, height: int) -> bytes:
    """Assemble a JPEG of any height, a multiple of 16, from the first 16 rows of a random one."""
    noise = np.random.default_rng(0).integers(0, 256, (16, width, 3), np.uint8)
    jpeg = save(Image.fromarray(noise), "JPEG", quality=5, subsampling=2, restart_marker_rows=1)
    size, scan = jpeg.index(b"\xff\xc0") + 5, jpeg.index(b"\xff\xda")
    scan += 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big")
    rows = [jpeg[scan:-2] + bytes((0xFF, 0xD0 + row % 8)) for row in range(height // 16)]
    start = jpeg[:size] + struct.pack(">H", height) + jpeg[size + 2 : scan]
    return start + b"".join(rows)[:-2] + b"\xff\xd9"


def with_xmp(jpeg: bytes, orientation: bytes) -> bytes:
    """Insert an XMP segment with an orientation, such as `tiff:Orientation="6"`, into a JPEG."""
    body = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:Description " + orientation + b"/>"
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


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
        change = rng.choice((*_CHANGES, _change_frame) if data.startswith(b"\xff\xd8") else _CHANGES)
        yield change(data, others, rng)


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


def _insert_segment(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Insert a JPEG segment, a PNG chunk or a RIFF chunk, of a length that may not be its own."""
    body = rng.choice(
        (rng.randbytes(rng.randint(0, 40)), b"Exif\0\0II*\0", b"ICC_PROFILE\0\1\1", b"Adobe\0d\0\0\0\0\2")
    )
    length = len(body) + rng.choice((0, 0, 0, 2, 2, 2, -1, 1, 500))
    jpeg = bytes((0xFF, rng.choice((0x01, 0xC4, 0xCC, 0xD8, 0xDA, 0xDB, 0xDC, 0xDD, 0xE1, 0xE2, 0xEE, 0xFE, 0xFF))))
    segments = (
        jpeg + struct.pack(">H", max(0, length)) + body,
        struct.pack(">I", max(0, length)) + rng.choice((b"tEXt", b"PLTE", b"tRNS", b"acTL", b"sBIT")) + body + bytes(4),
        rng.choice((b"EXIF", b"ALPH", b"ANIM", b"meta", b"free")) + struct.pack("<I", max(0, length)) + body,
    )
    offset = rng.choice((2, 8, 12, 20, 33, _offset(data, rng)))
    return data[:offset] + rng.choice(segments) + data[offset:]


def _change_frame(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """Change a JPEG's process, bits a sample, size, or number or sampling of components."""
    start = next((at for at in range(2, len(data) - 12) if data[at] == 0xFF and 0xC0 <= data[at + 1] <= 0xC3), 0)
    damaged_data = bytearray(data)
    for _ in range(rng.randint(1, 2)):
        choices = {
            1: range(0xC0, 0xD0),
            4: (1, 2, 8, 12, 16),
            6: (0, 1, 9),
            8: (0, 1, 200),
            9: range(6),
            11: range(256),
        }
        place = rng.choice(list(choices))
        damaged_data[start + place] = rng.choice(choices[place])
    return bytes(damaged_data)


_CHANGES = (_truncate, _flip_bits, _flip_bits, _write_number, _write_number, _fill, _move, _splice, _insert_segment)


def _offset(data: bytes, rng: random.Random) -> int:
    """Choose an offset, in the header more often than in the pixels."""
    return rng.randrange(min(len(data), 64)) if rng.random() < 0.5 else rng.randrange(len(data))
