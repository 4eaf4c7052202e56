"""The first look at every photo, by Ray tasks: is it whole, what is it, have we seen it? A few numbers come back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import ray

from pawcast.data import sources
from pawcast.data.manifest import Quarantined
from pawcast.data.perceptual_hash import perceptual_hashes, to_cells
from pawcast.data.sources import Photo
from pawcast.errors import ImageError, ImageSizeError
from pawcast.runtime import ray_session
from pawcast.vision import decode
from pawcast.vision.decode import ImageHeader

_PHOTOS_PER_TASK = 500


class ImageRecord(NamedTuple):
    """A photo that can be used.

    Attributes:
        source: The zip, folder or CSV that it is in.
        photo: Its place there and its label.
        sha256: Of its bytes, hexadecimal: its identity.
        size: Their number.
        header: Format, mode, width and height.
        perceptual_hash: Its perceptual hash, 16 bytes.
    """

    source: str
    photo: Photo
    sha256: str
    size: int
    header: ImageHeader
    perceptual_hash: bytes


# What a task says of a usable photo, the driver knowing the rest: sha256, size, fingerprint, and the header's fields.
# In plain tuples, as `cluster.packed` explains.
_Seen = tuple[str, int, bytes, str, str, int, int]


def inspect_photos(
    wanted: Sequence[tuple[str, Sequence[Photo]]], min_side: int, progress: Callable[[int], None]
) -> tuple[list[ImageRecord], list[Quarantined]]:
    """Read, hash and check every photo of some sources.

    Args:
        wanted: Sources and their photos.
        min_side: A photo with a shorter side, in pixels, can't be used.
        progress: Called with the photos that have just been done.

    Returns:
        The usable photos and the others, each in the order given.
    """
    chunks = [
        (source, photos[i : i + _PHOTOS_PER_TASK])
        for source, photos in wanted
        for i in range(0, len(photos), _PHOTOS_PER_TASK)
    ]
    arguments = ((source, ray_session.as_tuples(photos), min_side) for source, photos in chunks)
    results: list[list[ImageRecord | Quarantined]] = [[] for _ in chunks]
    for index, result in ray_session.run_tasks(_survey_task, arguments):
        # Now, while other tasks are at work.
        source, photos = chunks[index]
        results[index] = [_found(source, photo, item) for photo, item in zip(photos, result, strict=True)]
        progress(len(result))
    found: list[ImageRecord] = []
    quarantine: list[Quarantined] = []
    for item in chain.from_iterable(results):
        if isinstance(item, Quarantined):
            quarantine.append(item)
        else:
            found.append(item)
    return found, quarantine


def _found(source: str, photo: Photo, seen: _Seen | Quarantined) -> ImageRecord | Quarantined:
    if isinstance(seen, Quarantined):
        return seen
    sha256, size, print_, kind, mode, width, height = seen
    return ImageRecord(source, photo, sha256, size, ImageHeader(kind, mode, width, height), print_)


@ray.remote(num_cpus=1)
def _survey_task(
    source: str, wanted: Sequence[tuple[str, str, str, int]], min_side: int
) -> tuple[_Seen | Quarantined, ...]:
    photos = [Photo(*fields) for fields in wanted]
    looks = [_look(photo, data, min_side) for photo, data in zip(photos, sources.read(source, photos), strict=True)]
    usable = [look for look in looks if not isinstance(look, Quarantined)]
    prints = iter(perceptual_hashes([look.cells for look in usable]))
    return tuple(
        look if isinstance(look, Quarantined) else (look.sha256, look.size, next(prints), *look.header)
        for look in looks
    )


class _Look(NamedTuple):
    sha256: str
    size: int
    header: ImageHeader
    cells: np.ndarray


def _look(photo: Photo, data: bytes | ImageError, min_side: int) -> _Look | Quarantined:
    try:
        if isinstance(data, ImageError):
            raise data
        header, grey = decode.probe(data)
        if min(header.width, header.height) < min_side:
            raise ImageSizeError(f"{header.width}x{header.height} is too small")
    except ImageSizeError as error:
        return Quarantined(name=photo.name, kind="size", reason=error.what)
    except ImageError as error:
        return Quarantined(name=photo.name, kind="unreadable", reason=error.what)
    return _Look(hashlib.sha256(data).hexdigest(), len(data), header, to_cells(grey))
