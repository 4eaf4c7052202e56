"""Tell an image's format by the first bytes of its file."""

from __future__ import annotations

import importlib.util

HEAD_BYTES = 64
"""How many first bytes `image_format` needs."""

_SIGNATURES = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"8BPS", "psd"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "jpeg_xl"),
    (b"\xff\x0a", "jpeg_xl"),
    (b"\0\0\1\0", "ico"),
    (b"qoif", "qoi"),
)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs"}
# Brands that say only that the file holds pictures; the compatible brands behind them say which.
_IMAGE_BRANDS = {b"mif1", b"msf1", b"miaf", b"MiHB", b"MiHE"}

READABLE = frozenset(("jpeg", "png", "webp", "bmp", "gif", "tiff", "avif")) | (
    {"heic"} if importlib.util.find_spec("pillow_heif") else frozenset()
)
"""The formats that `vision.decode` reads here. HEIC needs the package pillow-heif."""


def image_format(head: bytes) -> str | None:
    """Return the format of an image file, or None for anything else.

    Args:
        head: The file's first `HEAD_BYTES` bytes, or all of a shorter file.

    Returns:
        `jpeg`, `png`, `webp`, `bmp`, `gif`, `tiff`, `avif`, `heic`, or a format that isn't read:
        `psd`, `jpeg2000`, `jpeg_xl`, `ico`, `qoi`.
    """
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    # "BM" alone begins many a text: the size of the header behind it tells.
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in {12, 16, 40, 52, 56, 64, 108, 124}:
        return "bmp"
    return _iso_media_format(head) if head[4:8] == b"ftyp" else None


def _iso_media_format(head: bytes) -> str | None:
    """Tell AVIF and HEIC, which share their container with MP4 and others, by their brands."""
    end = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, min(end, len(head)), 4))]
    if brands[0] in _AVIF_BRANDS or (brands[0] in _IMAGE_BRANDS and _AVIF_BRANDS.intersection(brands)):
        return "avif"
    if brands[0] in _HEIC_BRANDS | _IMAGE_BRANDS:
        return "heic"
    return None
