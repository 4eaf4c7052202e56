"""The one decoder: bytes of a photo in, checked RGB pixels out, or an `ImageError` with the reason.

Ingest, training, evaluation and serving all read photos through `decode` and `resize`, so a model is served
just the pixels it was trained on. Plain JPEG, nearly all there is, is checked and decoded by libjpeg-turbo
(simplejpeg), several times faster than by Pillow, which takes care of everything else: other formats, CMYK,
EXIF orientation.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from pawcast.errors import ImageError, ImageSizeError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000
MIN_SIDE = 2
_JPEG, _EXIF = b"\xff\xd8\xff", b"Exif\0"
_BACKGROUND = (255, 255, 255)


# Pillow's names for what libjpeg-turbo calls the colour spaces of a plain JPEG.
_PLAIN = {"YCbCr": "RGB", "Gray": "L"}
# Large enough to recognise a photo by at another size or compression, small enough to cost little more than
# reading the file through.
_THUMBNAIL = 36


class Header(NamedTuple):
    """What a photo says of itself before its pixels are touched: format and mode as Pillow names them."""

    format: str
    mode: str
    width: int
    height: int


class Probe(NamedTuple):
    """A photo that was read to its end.

    Attributes:
        header: Format, mode and size; the size after EXIF orientation.
        grey: uint8 [h, w], the photo small and without colour: 36 pixels or more a side if it has them.
    """

    header: Header
    grey: np.ndarray


def decode(data: bytes) -> np.ndarray:
    """Decode one photo.

    The first frame of an animation counts, EXIF orientation is applied, transparency lies over white, 16-bit
    grey is scaled to 8; 32-bit samples are refused.

    Args:
        data: The file's bytes: JPEG, PNG, WebP, BMP, GIF or TIFF.

    Returns:
        uint8 [height, width, 3], RGB.

    Raises:
        ImageError: For anything else: empty, too large, truncated, malformed, another format.
    """
    with _translated(data):
        if _plain_jpeg(data):
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
        return _by_pillow(data)[1]


def probe(data: bytes) -> Probe:
    """Check that a photo decodes, to its last byte, without paying for all of its pixels.

    Accepts and refuses just what `decode` does: a JPEG's coefficients are all read, though only a small grey
    picture is computed from them.

    Args:
        data: As for `decode`.

    Raises:
        ImageError: As `decode` does.
    """
    with _translated(data):
        if header := _plain_jpeg(data):
            grey = simplejpeg.decode_jpeg(data, colorspace="GRAY", min_height=_THUMBNAIL, min_width=_THUMBNAIL)
            return Probe(header, grey[..., 0])
        header, pixels = _by_pillow(data)
        height, width = pixels.shape[:2]
        return Probe(header._replace(width=width, height=height), cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))


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


@contextmanager
def _translated(data: bytes) -> Iterator[None]:
    """Refuse what is no file to decode; turn whatever a decoder raises into an `ImageError`."""
    if not data:
        raise ImageError("empty file")
    if len(data) > MAX_BYTES:
        raise ImageSizeError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError:
        raise ImageSizeError(f"more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise ImageError(f"not an image in a known format ({', '.join(FORMATS)})") from None
    except Exception as error:
        # Decoders raise far more than OSError on malformed input: ValueError, SyntaxError, struct.error …
        raise ImageError(f"can't be decoded ({_reason(error)})") from None


def _plain_jpeg(data: bytes) -> Header | None:
    """The header of a JPEG that libjpeg-turbo decodes just as Pillow would, or None."""
    if not data.startswith(_JPEG) or _EXIF in data:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colours not in _PLAIN:
        return None
    return _checked(Header("JPEG", _PLAIN[colours], width, height))


def _checked(header: Header) -> Header:
    if header.width * header.height > MAX_PIXELS:
        raise ImageSizeError(f"{header.width}x{header.height} is more than {MAX_PIXELS:,} pixels")
    if min(header.width, header.height) < MIN_SIDE:
        raise ImageSizeError(f"{header.width}x{header.height} is too small")
    return header


def _by_pillow(data: bytes) -> tuple[Header, np.ndarray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            header = _checked(Header(image.format or "", image.mode, *image.size))
            return header, _pixels(image)


def _pixels(image: Image.Image) -> np.ndarray:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        raise ImageError("32 bits a pixel; nothing says which of them is white")
    if image.mode.startswith("I;16"):
        # Pillow clips 16 bits to 255 when it converts; scaling keeps the picture.
        return np.repeat((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        under = Image.new("RGBA", image.size, (*_BACKGROUND, 255))
        image = Image.alpha_composite(under, image)
    return np.asarray(image.convert("RGB"))


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:80]
