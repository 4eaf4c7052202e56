"""Inspect every photo by Ray tasks: hash, decode and check it. Only a few numbers come back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain
from typing import Literal, NamedTuple

import ray

from pawcast.core.progress import Counter, Progress, silent
from pawcast.data import sources
from pawcast.data.manifest import QuarantinedPhoto
from pawcast.data.perceptual_hash import perceptual_hash
from pawcast.data.sources import Photo
from pawcast.errors import ImageError, ImageSizeError
from pawcast.runtime import ray_session
from pawcast.vision import decode
from pawcast.vision.decode import ImageHeader

_PHOTOS_PER_TASK = 500


class ImageRecord(NamedTuple):
    """A usable photo.

    Attributes:
        source: The zip, folder or CSV that holds it.
        photo: Its names in the source, and its label.
        sha256: Hash of its bytes, hexadecimal: its identity.
        size: Number of its bytes.
        header: Format, mode, width and height.
        perceptual_hash: 16 bytes.
    """

    source: str
    photo: Photo
    sha256: str
    size: int
    header: ImageHeader
    perceptual_hash: bytes


def inspect_photos(
    listings: Sequence[tuple[str, Sequence[Photo]]], min_side: int, progress: Progress = silent
) -> tuple[list[ImageRecord], list[QuarantinedPhoto]]:
    """Read, hash and check every photo of some sources.

    Args:
        listings: Each source with its photos.
        min_side: A photo with a shorter side, in pixels, is unusable.
        progress: Receives the stage `checking`.

    Returns:
        The usable photos and the unusable ones, each in the order of `listings`.
    """
    tasks = [
        (source, tuple(photos[i : i + _PHOTOS_PER_TASK]), min_side)
        for source, photos in listings
        for i in range(0, len(photos), _PHOTOS_PER_TASK)
    ]
    count = Counter(progress, "checking", sum(len(photos) for _, photos in listings))
    results: list[tuple[ImageRecord | QuarantinedPhoto, ...]] = [()] * len(tasks)
    for index, result in ray_session.run_tasks(_inspect_task, tasks):
        results[index] = result
        count(len(result))
    items = list(chain.from_iterable(results))
    usable = [item for item in items if isinstance(item, ImageRecord)]
    return usable, [item for item in items if isinstance(item, QuarantinedPhoto)]


@ray.remote(num_cpus=1)
def _inspect_task(source: str, photos: Sequence[Photo], min_side: int) -> tuple[ImageRecord | QuarantinedPhoto, ...]:
    contents = sources.read(source, photos)
    # A tuple: Ray serializes a list element by element, which takes seven times as long.
    return tuple(_inspect(source, photo, data, min_side) for photo, data in zip(photos, contents, strict=True))


def _inspect(source: str, photo: Photo, data: bytes | ImageError, min_side: int) -> ImageRecord | QuarantinedPhoto:
    try:
        if isinstance(data, ImageError):
            raise data
        header, grey = decode.probe(data)
        if min(header.width, header.height) < min_side:
            raise ImageSizeError(f"{header.width}x{header.height} is too small")
    except ImageError as error:
        kind: Literal["size", "unreadable"] = "size" if isinstance(error, ImageSizeError) else "unreadable"
        return QuarantinedPhoto(name=photo.name, kind=kind, reason=error.what)
    return ImageRecord(source, photo, hashlib.sha256(data).hexdigest(), len(data), header, perceptual_hash(grey))
