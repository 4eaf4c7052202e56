"""Inspect every photo by Ray tasks: hash, decode and check it. Only a few numbers come back."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import ray

from pawcast.core.progress import Counter, Progress, silent
from pawcast.data import sources
from pawcast.data.manifest import QuarantinedPhoto
from pawcast.data.perceptual_hash import perceptual_hashes, to_cells
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


# What a task returns for a usable photo: sha256, size, perceptual hash, and the header's fields.
# A plain tuple, for the reason that `ray_session.as_tuples` gives.
_TaskRecord = tuple[str, int, bytes, str, str, int, int]


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
    chunks = [
        (source, photos[i : i + _PHOTOS_PER_TASK])
        for source, photos in listings
        for i in range(0, len(photos), _PHOTOS_PER_TASK)
    ]
    count = Counter(progress, "checking", sum(len(photos) for _, photos in listings))
    arguments = ((source, ray_session.as_tuples(photos), min_side) for source, photos in chunks)
    results: list[list[ImageRecord | QuarantinedPhoto]] = [[] for _ in chunks]
    for index, task_records in ray_session.run_tasks(_inspect_task, arguments):
        # Converted here, while other tasks still run.
        source, photos = chunks[index]
        results[index] = [_to_record(source, *pair) for pair in zip(photos, task_records, strict=True)]
        count(len(photos))
    records: list[ImageRecord] = []
    quarantine: list[QuarantinedPhoto] = []
    for item in chain.from_iterable(results):
        if isinstance(item, QuarantinedPhoto):
            quarantine.append(item)
        else:
            records.append(item)
    return records, quarantine


def _to_record(source: str, photo: Photo, item: _TaskRecord | QuarantinedPhoto) -> ImageRecord | QuarantinedPhoto:
    if isinstance(item, QuarantinedPhoto):
        return item
    sha256, size, perceptual_hash, kind, mode, width, height = item
    return ImageRecord(source, photo, sha256, size, ImageHeader(kind, mode, width, height), perceptual_hash)


@ray.remote(num_cpus=1)
def _inspect_task(
    source: str, photo_tuples: Sequence[tuple[str, str, str, int, str, str]], min_side: int
) -> tuple[_TaskRecord | QuarantinedPhoto, ...]:
    photos = [Photo(*fields) for fields in photo_tuples]
    contents = sources.read(source, photos)
    items = [_inspect(photo, data, min_side) for photo, data in zip(photos, contents, strict=True)]
    hashes = iter(perceptual_hashes([item.cells for item in items if isinstance(item, _Inspected)]))
    return tuple(
        (item.sha256, item.size, next(hashes), *item.header) if isinstance(item, _Inspected) else item for item in items
    )


class _Inspected(NamedTuple):
    """The result of inspecting a usable photo. `cells` are the input of its perceptual hash."""

    sha256: str
    size: int
    header: ImageHeader
    cells: np.ndarray


def _inspect(photo: Photo, data: bytes | ImageError, min_side: int) -> _Inspected | QuarantinedPhoto:
    try:
        if isinstance(data, ImageError):
            raise data
        header, gray = decode.probe(data)
        if min(header.width, header.height) < min_side:
            raise ImageSizeError(f"{header.width}x{header.height} is too small")
    except ImageSizeError as error:
        return QuarantinedPhoto(name=photo.name, kind="size", reason=error.what)
    except ImageError as error:
        return QuarantinedPhoto(name=photo.name, kind="unreadable", reason=error.what)
    return _Inspected(hashlib.sha256(data).hexdigest(), len(data), header, to_cells(gray))
