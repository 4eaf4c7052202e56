"""The one decoder: a photo's bytes in, RGB pixels out, or an `ImageError` with the reason.

Ingest, training, evaluation and serving all read photos through this module. libjpeg-turbo
(simplejpeg) decodes plain JPEG, which is nearly every photo, several times faster than Pillow.
Pillow decodes the rest: other formats, CMYK, orientation by EXIF or XMP, and JPEGs that
libjpeg-turbo refuses although no pixel is missing.

Photos are untrusted. Headers bound memory and time before any pixel is decoded:

    a file over 32 MiB, a picture over 50 million pixels   refused
    a JPEG over 50 million pixels                          half as wide and high; refused over 110
    a JPEG that libjpeg-turbo can't scale safely           decoded by Pillow, never scaled
    a JPEG of very many scans                              refused: each scan costs a pass over it
    a TIFF of tiles that far exceed the picture            refused
    a TIFF compressed by LZMA, Zstandard, WebP, …          refused: the file decides their memory
    a run-length BMP over 2 MiB or 8 million pixels        refused: Pillow decodes it in Python
    broken EXIF, colour profiles or text                   ignored, the photo is used
    later frames of an animation                           not decoded
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError

from pawcast.errors import ImageError, ImageSizeError
from pawcast.vision.formats import HEAD_BYTES, READABLE, image_format

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000
# JPEGs over MAX_PIXELS are decoded at half their sides. A progressive one of four channels takes 8
# bytes a pixel for its coefficients alone.
MAX_JPEG_PIXELS = 110_000_000
MIN_SIDE = 1
# What makes a photo of EXIF orientation 2 to 8 upright.
_UPRIGHT = ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")
_ROWS_PER_CONVERSION = 256
# SOF0 to SOF15 but DHT, JPG and DAC, which share their range; and those that libjpeg-turbo scales.
_FRAMES, _SCALABLE_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}, frozenset((0xC0, 0xC1, 0xC2))
_SOS, _APP1, _FILL = 0xDA, 0xE1, 0xFF
_WITHOUT_LENGTH = frozenset((*range(0xC0), *range(0xD0, 0xDA)))
_JPEG_FORMATS = ("JPEG", "MPO")
_JPEG_START, _START_OF_SCAN = b"\xff\xd8\xff", b"\xff\xda"
_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])""")
# Pillow's modes for the colour spaces of a plain JPEG, as libjpeg-turbo names them.
_MODE_BY_COLOR_SPACE = {"YCbCr": "RGB", "Gray": "L"}
# Large enough to recognise a photo at another size or compression, small enough to cost little more
# than reading the file.
_PROBE_SIDE = 36
_MAX_SCANS, _MAX_SCANNED_PIXELS = 1_000, 2_000_000_000
_FAX_COMPRESSIONS = {"tiff_ccitt", "group3", "group4"}
_JPEG_COMPRESSIONS = {"jpeg", "tiff_jpeg"}
_TIFF_COMPRESSIONS = (
    {"raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate"} | _FAX_COMPRESSIONS | _JPEG_COMPRESSIONS
)
_TILE_ALLOWANCE = 2**22
_BMP_RUN_LENGTH, _MAX_RUN_LENGTH_MIB, _MAX_RUN_LENGTH_PIXELS = {1, 2}, 2, 8_000_000
# libjpeg-turbo's complaints that cost no pixel: bytes between segments or behind the picture, a
# colour profile, a version, odd sampling. Bytes before a restart marker (0xd0 to 0xd7) do cost
# pixels.
_HARMLESS = re.compile(
    r"unknown JFIF revision|bad ICC marker|subsampling|Invalid SOS parameters|"
    r"extraneous bytes before marker 0x(?!d[0-7])"
)
# The depths of cameras and scanners, which are stored in 16 or 32 bits.
_DEPTHS, _UNKNOWN_RANGE = (8, 10, 12, 14, 16), "32-bit samples, whose range isn't known"
_TRUNCATED = re.compile(r"truncated|premature end|not enough image data", re.IGNORECASE)

# Several threads decode photos at once, so OpenCV's own threads would only compete with them. The
# setting is the process's: training's workers, which warp whole batches, set their own number.
cv2.setNumThreads(1)
# `warnings.catch_warnings` isn't thread-safe, so Pillow's warnings are ignored for the process.
warnings.filterwarnings("ignore", module=r"PIL\.")


class ImageHeader(NamedTuple):
    """A photo's format and mode, as Pillow names them, and its own size in pixels."""

    format: str
    mode: str
    width: int
    height: int


class ProbeResult(NamedTuple):
    """A photo that decodes to its end.

    Attributes:
        header: Format, mode and size; the size after orientation.
        grey: uint8 [h, w], a small grey version: at least 36 pixels a side if the photo has them.
    """

    header: ImageHeader
    grey: np.ndarray


def decode(data: bytes) -> np.ndarray:
    """Decode one photo.

    Of an animation the first frame is used. Orientation by EXIF or XMP is applied, transparency is
    put over white, deep grey is scaled to 8 bits: its depth is the smallest of 8, 10, 12, 14 and 16
    bits that holds its largest value. Deeper samples are refused. Takes at most about 20 bytes of
    memory a pixel, and 1 GB for the largest photo.

    Args:
        data: The file's bytes: JPEG, PNG, WebP, BMP, GIF, TIFF or AVIF; HEIC with pillow-heif.

    Returns:
        uint8 [height, width, 3], RGB. A JPEG of over 50 million pixels has half its sides.

    Raises:
        ImageError: For anything else: empty, too large, truncated, malformed, another format.
    """
    with _image_errors(data):
        if header := _read_plain_jpeg_header(data):
            half = header.width * header.height > MAX_PIXELS
            size = {"min_height": header.height // 2, "min_width": header.width // 2} if half else {}
            pixels = _decode_with_turbojpeg(data, colorspace="RGB", **size)
            if pixels is not None:
                return pixels
        return _decode_with_pillow(data)[1]


def decode_image(image: Image.Image) -> np.ndarray:
    """Return the pixels of a Pillow image as `decode` returns those of its file.

    Returns:
        uint8 [height, width, 3], RGB.

    Raises:
        ImageError: If the image is too large, has 32 bits a sample, or its file can't be decoded.
    """
    with _image_errors(b"image"):
        return _load_pixels(image)[1]


def probe(data: bytes) -> ProbeResult:
    """Check that a photo decodes to its last byte, for less than `decode` costs.

    Accepts and refuses what `decode` does: all coefficients of a JPEG are read, but only a small
    grey picture is computed from them.

    Args:
        data: As for `decode`.

    Raises:
        ImageError: As `decode` does.
    """
    with _image_errors(data):
        if header := _read_plain_jpeg_header(data):
            size = {"min_height": _PROBE_SIDE, "min_width": _PROBE_SIDE}
            grey = _decode_with_turbojpeg(data, colorspace="GRAY", **size)
            if grey is not None:
                return ProbeResult(header, grey[..., 0])
        header, pixels = _decode_with_pillow(data)
        return ProbeResult(header, cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))


@contextmanager
def _image_errors(data: bytes) -> Iterator[None]:
    """Refuse files of a wrong size; turn whatever a decoder raises into an `ImageError`."""
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
        raise ImageError(_unidentified(data)) from None
    except Exception as error:
        # Decoders raise far more than OSError on malformed input: ValueError, SyntaxError, …
        reason = (str(error).splitlines() or [type(error).__name__])[0][:80]
        # The number of missing bytes differs from photo to photo, and reports count equal reasons.
        reason = "truncated" if _TRUNCATED.search(reason) else reason
        raise ImageError(f"can't be decoded ({reason})") from None


def _unidentified(data: bytes) -> str:
    """Say why no decoder takes a file."""
    kind = image_format(data[:HEAD_BYTES])
    if kind == "heic":
        return "a HEIC photo, which needs the package pillow-heif (pip install 'pawcast[heic]')"
    if kind in READABLE:
        return f"a {kind.upper()} file with a header that is damaged or not supported"
    return f"not an image in a known format ({', '.join(FORMATS)})"


def _read_plain_jpeg_header(data: bytes) -> ImageHeader | None:
    """Return the header of a JPEG that libjpeg-turbo decodes as Pillow does, otherwise None."""
    if not data.startswith(_JPEG_START) or _read_jpeg_segments(data) != (True, False):
        return None
    try:
        height, width, color_space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if color_space not in _MODE_BY_COLOR_SPACE:
        return None
    _check_size(width, height, MAX_JPEG_PIXELS)
    _check_scans(data.count(_START_OF_SCAN), width * height)
    return ImageHeader("JPEG", _MODE_BY_COLOR_SPACE[color_space], width, height)


def _read_jpeg_segments(data: bytes) -> tuple[bool, bool]:
    """Read a JPEG's segments up to its first scan, as libjpeg does.

    Markers: ITU-T T.81, table B.1, https://www.w3.org/Graphics/JPEG/itu-t81.pdf.

    Returns:
        Whether libjpeg-turbo can scale it: its process is baseline, extended or progressive, with 8
        bits and Huffman codes. A lossless JPEG writes past the buffer of a scaled decode. And
        whether EXIF or XMP may turn it. What isn't a plain row of segments is (False, True).
    """
    position, scalable, turned = 2, False, False
    while data.startswith(b"\xff", position) and position + 4 < len(data):
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _SOS:
            return scalable, turned
        if marker == _FILL:
            position += 1
            continue
        if marker in _WITHOUT_LENGTH or length < 2:
            break
        if marker in _FRAMES:
            scalable = marker in _SCALABLE_FRAMES and data[position + 4] == 8
        if marker == _APP1:
            segment = data[position + 4 : position + 2 + length]
            turned |= segment.startswith(b"Exif\0") or b":Orientation" in segment
        position += 2 + length
    return False, True


def _decode_with_turbojpeg(data: bytes, **options: str | int) -> np.ndarray | None:
    """Decode a JPEG; None if libjpeg-turbo refuses it although no pixel is missing."""
    try:
        return simplejpeg.decode_jpeg(data, **options)
    except ValueError as error:
        if _HARMLESS.search(str(error)):
            return None
        raise


def _decode_with_pillow(data: bytes) -> tuple[ImageHeader, np.ndarray]:
    with _open_with_pillow(data) as image:
        scalable = image.format in _JPEG_FORMATS and _read_jpeg_segments(data)[0]
        _check_size(*image.size, MAX_JPEG_PIXELS if scalable else MAX_PIXELS)
        _check_cost(image, data)
        return _load_pixels(image, scalable)


def _open_with_pillow(data: bytes) -> Image.Image:
    if image_format(data[:HEAD_BYTES]) == "heic" and "heic" in READABLE:
        from pillow_heif import HeifImageFile  # an extra

        return HeifImageFile(io.BytesIO(data))
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _load_pixels(image: Image.Image, scalable: bool = False) -> tuple[ImageHeader, np.ndarray]:
    kind, mode, size = image.format or "", image.mode, None
    if mode == "F":
        raise ImageError(_UNKNOWN_RANGE)
    if scalable and image.width * image.height > MAX_PIXELS:
        size = image.size
        image.draft(None, (image.width // 2, image.height // 2))
    image.load()
    _check_size(*image.size)  # reading the pixels may have changed it
    width, height = size or image.size
    orientation = _read_orientation(image)
    if orientation in range(2, 9):
        image = image.transpose(Image.Transpose[_UPRIGHT[int(orientation) - 2]])
    if orientation in range(5, 9):
        width, height = height, width
    return ImageHeader(kind, mode, width, height), _to_pixels(image)


def _check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    if width * height > max_pixels:
        raise ImageSizeError(f"{width}x{height} is more than {max_pixels:,} pixels")
    if min(width, height) < MIN_SIDE:
        raise ImageSizeError(f"{width}x{height} is too small")


def _check_scans(scans: int, pixels: int) -> None:
    if scans > _MAX_SCANS or scans * pixels > _MAX_SCANNED_PIXELS:
        raise ImageError(f"a JPEG of {scans:,} scans, too many for its size")


def _check_cost(image: Image.Image, data: bytes) -> None:
    """Refuse files that would cost far more than their size and header suggest."""
    pixels, compression = image.width * image.height, image.info.get("compression")
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    if image.format == "TIFF":
        _check_tiff(image, tags, compression)
    is_large = len(data) > _MAX_RUN_LENGTH_MIB << 20 or pixels > _MAX_RUN_LENGTH_PIXELS
    if image.format == "BMP" and compression in _BMP_RUN_LENGTH and is_large:
        raise ImageError(f"a run-length BMP of over {_MAX_RUN_LENGTH_MIB} MiB or {_MAX_RUN_LENGTH_PIXELS:,} pixels")
    if image.format in _JPEG_FORMATS or compression in _JPEG_COMPRESSIONS:
        tiff_parts = tags.get(ExifTags.Base.StripOffsets) or tags.get(ExifTags.Base.TileOffsets) or ()
        _check_scans(data.count(_START_OF_SCAN) - len(tiff_parts), pixels)


def _check_tiff(image: Image.Image, tags: Mapping[int, Any], compression: object) -> None:
    if compression not in _TIFF_COMPRESSIONS:
        raise ImageError(f"a TIFF compressed by {compression}, which isn't supported")
    tile_width = tags.get(ExifTags.Base.TileWidth) or image.width
    tile_height = tags.get(ExifTags.Base.TileLength) or image.height
    pixels, tile_pixels = image.width * image.height, tile_width * tile_height
    tiles = math.ceil(image.width / tile_width) * math.ceil(image.height / tile_height)
    if tile_pixels > pixels + _TILE_ALLOWANCE or tiles * tile_pixels > 4 * pixels + _TILE_ALLOWANCE:
        raise ImageError(f"a {image.width}x{image.height} TIFF in tiles of {tile_width}x{tile_height}, far too large")


def _read_orientation(image: Image.Image) -> Any:
    """Return the orientation by EXIF, else by XMP, as the file gives it; it may be no valid one."""
    # Broken EXIF doesn't make the pixels unusable.
    with suppress(Exception):
        if orientation := image.getexif().get(ExifTags.Base.Orientation):
            return orientation
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    found = _XMP_ORIENTATION.search(xmp if isinstance(xmp, bytes) else str(xmp).encode())
    return found and int(found[1])


def _to_pixels(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        # Pillow would clip the samples at 255 instead of scaling them.
        samples = np.asarray(image)
        depth = next((bits for bits in _DEPTHS if samples.max() < 1 << bits), None)
        if depth is None or samples.min() < 0:
            raise ImageError(_UNKNOWN_RANGE)
        return cv2.cvtColor((samples >> (depth - 8)).astype(np.uint8), cv2.COLOR_GRAY2RGB)
    # A band of rows at a time: a whole picture converted several times over would take several
    # times its memory.
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, _ROWS_PER_CONVERSION):
        bottom = min(top + _ROWS_PER_CONVERSION, image.height)
        pixels[top:bottom] = _to_rgb(image.crop((0, top, image.width, bottom)))
    return pixels


def _to_rgb(image: Image.Image) -> np.ndarray:
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))
