"""The one decoder: bytes of a photo in, checked RGB pixels out, or an `ImageError` with the reason.

Ingest, training, evaluation and serving all read photos through `decode` and `resize`, so a model is served
just the pixels it was trained on. Plain JPEG, nearly all there is, is checked and decoded by libjpeg-turbo
(simplejpeg), several times faster than by Pillow, which takes care of everything else: other formats, CMYK,
EXIF orientation, and what libjpeg-turbo stumbles over without need.

Photos are untrusted. What the header says bounds memory and time before any pixel is touched:

    a file over 32 MiB, a picture over 50 million pixels     refused
    a JPEG of very many scans, each a walk over the picture  refused
    a TIFF of tiles that far exceed the picture              refused
    a TIFF packed by LZMA, Zstandard, WebP and the like      refused: their decoders take what memory the file asks for
    a run-length coded BMP over 2 MiB or 8 million pixels    refused: Pillow decodes it in Python
    broken EXIF, colour profiles or text                     ignored, the photo is used
    later frames of an animation                             not decoded
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from pawcast.errors import ImageError, ImageSizeError

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
_JPEG, _EXIF = b"\xff\xd8\xff", b"Exif\0"
# Pillow's names for what libjpeg-turbo calls the colour spaces of a plain JPEG.
_PLAIN = {"YCbCr": "RGB", "Gray": "L"}
# Large enough to recognise a photo by at another size or compression, small enough to cost little more than
# reading the file through.
_THUMBNAIL = 36
_START_OF_SCAN = b"\xff\xda"
_MAX_SCANS, _MAX_SCANNED = 1_000, 2**30
_TIFF_PACKED = frozenset(
    ("raw", "group3", "group4", "tiff_ccitt", "tiff_lzw", "jpeg", "tiff_adobe_deflate", "tiff_deflate", "packbits")
)
_TILE_WIDTH, _TILE_HEIGHT, _STRIPS, _TILES = 322, 323, 273, 324
_SPARE_TILES = 2**22
_RUN_LENGTHS, _MAX_RUN_LENGTHS, _MAX_RUN_PIXELS = {1, 2}, 2 * 2**20, 8_000_000
# No pixel is lost by these: bytes between segments or behind the picture, a colour profile, a version, odd sampling.
# Bytes before a restart marker (0xd0 to 0xd7) are lost pixels.
_HARMLESS = re.compile(r"unknown JFIF revision|bad ICC marker|subsampling|extraneous bytes before marker 0x(?!d[0-7])")
_CUT = re.compile(r"truncated|premature end|not enough image data", re.IGNORECASE)

# Photos are read by several threads at once, and OpenCV's own, as many as CPUs for each photo, are only in the way.
# Training's workers, which warp whole batches, set their number again.
cv2.setNumThreads(1)
# Pillow warns of what is handled here. `catch_warnings` would do that for each photo, but isn't safe among threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageHeader(NamedTuple):
    """What a photo says of itself before its pixels are touched: format and mode as Pillow names them."""

    format: str
    mode: str
    width: int
    height: int


class ProbeResult(NamedTuple):
    """A photo that was read to its end.

    Attributes:
        header: Format, mode and size; the size after EXIF orientation.
        grey: uint8 [h, w], the photo small and without colour: 36 pixels or more a side if it has them.
    """

    header: ImageHeader
    grey: np.ndarray


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
    with _translated(data):
        if _plain_jpeg(data):
            pixels = _by_turbo(data, colorspace="RGB")
            if pixels is not None:
                return pixels
        return _by_pillow(data)[1]


def decode_image(image: Image.Image) -> np.ndarray:
    """Return the pixels of a Pillow image as `decode` returns those of its file.

    Returns:
        uint8 [height, width, 3], RGB.

    Raises:
        ImageError: If the image is too large, has 32 bits a sample, or its file can't be decoded.
    """
    with _translated(b"image"):
        return _pixels(image)


def probe(data: bytes) -> ProbeResult:
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
            grey = _by_turbo(data, colorspace="GRAY", min_height=_THUMBNAIL, min_width=_THUMBNAIL)
            if grey is not None:
                return ProbeResult(header, grey[..., 0])
        header, pixels = _by_pillow(data)
        height, width = pixels.shape[:2]
        return ProbeResult(header._replace(width=width, height=height), cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))


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


def _plain_jpeg(data: bytes) -> ImageHeader | None:
    """The header of a JPEG that libjpeg-turbo decodes just as Pillow would, or None."""
    if not data.startswith(_JPEG) or _EXIF in data:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colours not in _PLAIN:
        return None
    header = _checked(ImageHeader("JPEG", _PLAIN[colours], width, height))
    _check_scans(data.count(_START_OF_SCAN), width * height)
    return header


def _checked(header: ImageHeader) -> ImageHeader:
    if header.width * header.height > MAX_PIXELS:
        raise ImageSizeError(f"{header.width}x{header.height} is more than {MAX_PIXELS:,} pixels")
    if min(header.width, header.height) < MIN_SIDE:
        raise ImageSizeError(f"{header.width}x{header.height} is too small")
    return header


def _check_scans(scans: int, pixels: int) -> None:
    if scans > _MAX_SCANS or scans * pixels > _MAX_SCANNED:
        raise ImageError(f"a JPEG of {scans:,} scans")


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
    if image.format == "BMP" and packed in _RUN_LENGTHS and (len(data) > _MAX_RUN_LENGTHS or pixels > _MAX_RUN_PIXELS):
        raise ImageError(
            f"a run-length coded BMP larger than {_MAX_RUN_LENGTHS >> 20} MiB or {_MAX_RUN_PIXELS:,} pixels"
        )
    if image.format in ("JPEG", "MPO") or packed == "jpeg":
        _check_scans(data.count(_START_OF_SCAN) - parts, pixels)


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:
        # Broken EXIF says nothing about the pixels.
        return None


def _by_turbo(data: bytes, **options: str | int) -> np.ndarray | None:
    """Decode a JPEG; None if only Pillow takes it."""
    try:
        return simplejpeg.decode_jpeg(data, **options)
    except ValueError as error:
        if _HARMLESS.search(str(error)):
            return None
        raise


def _by_pillow(data: bytes) -> tuple[ImageHeader, np.ndarray]:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        header = _checked(ImageHeader(image.format or "", image.mode, *image.size))
        _check_effort(image, data)
        return header, _pixels(image)


def _pixels(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F"):
        raise ImageError("32 bits a pixel; nothing says which of them is white")
    image.load()
    _checked(ImageHeader(image.format or "", image.mode, *image.size))
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
