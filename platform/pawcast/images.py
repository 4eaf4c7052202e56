"""The one decoder: bytes of a photo in, checked RGB pixels out, or an `ImageError` with the reason.

Ingest, training, evaluation and serving all read photos through `decode` and `resize`, so a model is served
just the pixels it was trained on. Pillow looks at the header first and is the gate; JPEG, nearly all there is,
is then decoded by libjpeg-turbo (simplejpeg), several times faster; everything else by Pillow.

Photos are untrusted. What the header says bounds memory and time before any pixel is touched:

    a file over 32 MiB, a picture over 50 million pixels     refused
    a JPEG of very many scans, each a walk over the picture  refused
    a TIFF of tiles that far exceed the picture              refused
    a TIFF packed by LZMA, Zstandard, WebP and the like      refused: their decoders take what memory the file asks for
    a run-length coded BMP over 2 MiB                        refused: Pillow decodes it in Python
    broken EXIF, colour profiles or text                     ignored, the photo is used
    later frames of an animation                             not decoded
"""

from __future__ import annotations

import io
import math
import re
import warnings
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from pawcast.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000
MIN_SIDE = 2
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BACKGROUND = (255, 255, 255)
_BAND = 256
_START_OF_SCAN = b"\xff\xda"
_MAX_SCANS, _MAX_SCANNED = 1_000, 2**30
_TIFF_PACKED = frozenset(
    ("raw", "group3", "group4", "tiff_ccitt", "tiff_lzw", "jpeg", "tiff_adobe_deflate", "tiff_deflate", "packbits")
)
_TILE_WIDTH, _TILE_HEIGHT, _STRIPS, _TILES = 322, 323, 273, 324
_SPARE_TILES = 2**22
_RUN_LENGTHS, _MAX_RUN_LENGTHS = {1, 2}, 2 * 2**20
# No pixel is lost by these: bytes between segments or behind the picture, a colour profile, a version, odd sampling.
# Bytes before a restart marker (0xd0 to 0xd7) are lost pixels.
_HARMLESS = re.compile(r"unknown JFIF revision|bad ICC marker|subsampling|extraneous bytes before marker 0x(?!d[0-7])")
_CUT = re.compile(r"truncated|premature end|not enough image data", re.IGNORECASE)

# Pillow warns of what is handled here. `catch_warnings` would do that for each photo, but isn't safe among threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Header(NamedTuple):
    """What a photo says of itself before its pixels are touched."""

    format: str
    mode: str
    width: int
    height: int


def decode(data: bytes) -> np.ndarray:
    """Decode one photo.

    The first frame of an animation counts, EXIF orientation is applied, transparency lies over white, 16-bit
    grey is scaled to 8; 32-bit samples are refused. Takes at most some 20 bytes of memory a pixel.

    Args:
        data: The file's bytes: JPEG, PNG, WebP, BMP, GIF or TIFF.

    Returns:
        uint8 [height, width, 3], RGB.

    Raises:
        ImageError: For anything else: empty, too large, truncated, malformed, another format.
    """
    if not data:
        raise ImageError("empty file")
    if len(data) > MAX_BYTES:
        raise ImageError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check(Header(image.format or "", image.mode, *image.size))
            _check_effort(image, data)
            if image.format == "JPEG" and image.mode in ("RGB", "L") and _orientation(image) not in _UPRIGHT:
                pixels = _by_turbo(data)
                if pixels is not None:
                    return pixels
            return _by_pillow(image)
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise ImageError(f"not an image in a known format ({', '.join(FORMATS)})") from None
    except Exception as error:
        # Decoders raise far more than OSError on malformed input: ValueError, SyntaxError, struct.error …
        raise ImageError(f"can't be decoded ({_reason(error)})") from None


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Scale to a square without keeping the aspect ratio, as the article does.

    Args:
        pixels: uint8 [height, width, 3].
        size: The new height and width in pixels.

    Returns:
        uint8 [size, size, 3]: area averaging when the photo shrinks, bilinear when it grows.
    """
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return pixels
    method = cv2.INTER_AREA if height * width > size * size else cv2.INTER_LINEAR
    return cv2.resize(pixels, (size, size), interpolation=method)


def load(data: bytes, size: int) -> np.ndarray:
    """Decode and resize one photo: uint8 [size, size, 3]. Raises `ImageError`."""
    return resize(decode(data), size)


def _check(header: Header) -> None:
    if header.width * header.height > MAX_PIXELS:
        raise ImageError(f"{header.width}x{header.height} is more than {MAX_PIXELS:,} pixels")
    if min(header.width, header.height) < MIN_SIDE:
        raise ImageError(f"{header.width}x{header.height} is too small")


def _check_effort(image: Image.Image, data: bytes) -> None:
    """Refuse what would cost far more than its size and header tell."""
    pixels = image.width * image.height
    packed = image.info.get("compression")
    parts = 0
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        if packed not in _TIFF_PACKED:
            raise ImageError(f"a TIFF packed by {packed}, which isn't read")
        across, down = tags.get(_TILE_WIDTH), tags.get(_TILE_HEIGHT)
        if across and down:
            tiles = math.ceil(image.width / across) * math.ceil(image.height / down)
            area = across * down
            if area > pixels + _SPARE_TILES or tiles * area > 4 * pixels + _SPARE_TILES:
                raise ImageError(f"a TIFF in tiles of {across}x{down}, far more than its {image.width}x{image.height}")
        parts = len(tags.get(_STRIPS) or tags.get(_TILES) or ())
    if image.format == "BMP" and packed in _RUN_LENGTHS and len(data) > _MAX_RUN_LENGTHS:
        raise ImageError(f"a run-length coded BMP larger than {_MAX_RUN_LENGTHS >> 20} MiB")
    if image.format in ("JPEG", "MPO") or packed == "jpeg":
        scans = data.count(_START_OF_SCAN) - parts
        if scans > _MAX_SCANS or scans * pixels > _MAX_SCANNED:
            raise ImageError(f"a JPEG of {scans:,} scans")


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:
        # Broken EXIF says nothing about the pixels.
        return None


def _by_turbo(data: bytes) -> np.ndarray | None:
    """Decode a JPEG; None if only Pillow takes it."""
    try:
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError as error:
        if _HARMLESS.search(str(error)):
            return None
        raise


def _by_pillow(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F"):
        raise ImageError("32 bits a pixel; nothing says which of them is white")
    image.load()
    _check(Header(image.format or "", image.mode, *image.size))
    turn = _UPRIGHT.get(_orientation(image))  # type: ignore[call-overload]
    if turn is not None:
        image = image.transpose(turn)
    # Band by band: a whole picture converted several times over would take several times its memory.
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _BAND):
        bottom = min(top + _BAND, image.height)
        pixels[top:bottom] = _rgb(image.crop((0, top, image.width, bottom)))
    return pixels


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        # Pillow clips 16 bits to 255 when it converts; scaling keeps the picture.
        return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)[..., None]
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        under = Image.new("RGBA", image.size, (*_BACKGROUND, 255))
        image = Image.alpha_composite(under, image)
    return np.asarray(image.convert("RGB"))


def _reason(error: Exception) -> str:
    text = (str(error).splitlines() or [type(error).__name__])[0][:80]
    # How many bytes are missing differs from photo to photo; equal reasons are counted.
    return "truncated" if _CUT.search(text) else text
