"""The one decoder: bytes of a photo in, checked RGB pixels out, or an `ImageError` with the reason.

Ingest, training, evaluation and serving all read photos through `decode` and `resize`, so a model is served
just the pixels it was trained on. Pillow looks at the header first and is the gate; JPEG, nearly all there is,
is then decoded by libjpeg-turbo (simplejpeg), several times faster; everything else by Pillow.
"""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from pawcast.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000
MIN_SIDE = 2
_ORIENTATION = 0x0112
_BACKGROUND = (255, 255, 255)


class Header(NamedTuple):
    """What a photo says of itself before its pixels are touched."""

    format: str
    mode: str
    width: int
    height: int


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
    if not data:
        raise ImageError("empty file")
    if len(data) > MAX_BYTES:
        raise ImageError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check(Header(image.format or "", image.mode, *image.size))
                if image.format == "JPEG" and image.mode in ("RGB", "L") and _upright(image):
                    return simplejpeg.decode_jpeg(data, colorspace="RGB")
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


def _upright(image: Image.Image) -> bool:
    return image.getexif().get(_ORIENTATION, 1) == 1


def _by_pillow(image: Image.Image) -> np.ndarray:
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
