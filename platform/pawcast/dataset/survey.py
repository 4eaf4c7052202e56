"""The first look at every photo, by Ray tasks: is it whole, what is it, have we seen it? A few numbers come back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import ray

from pawcast import cluster, images, sources
from pawcast.dataset.fingerprint import cells, fingerprints
from pawcast.dataset.manifest import Quarantined
from pawcast.errors import ImageError, ImageSizeError
from pawcast.images import Header
from pawcast.sources import Photo

_PHOTOS_PER_TASK = 500


class Found(NamedTuple):
    """A photo that can be used.

    Attributes:
        source: The zip, folder or CSV that it is in.
        photo: Its place there and its label.
        sha256: Of its bytes, hexadecimal: its identity.
        size: Their number.
        header: Format, mode, width and height.
        fingerprint: Its perceptual hash, 16 bytes.
    """

    source: str
    photo: Photo
    sha256: str
    size: int
    header: Header
    fingerprint: bytes


# What a task says of a usable photo, the driver knowing the rest: sha256, size, fingerprint, and the header's fields.
# In plain tuples, as `cluster.packed` explains.
_Seen = tuple[str, int, bytes, str, str, int, int]


def survey(
    wanted: Sequence[tuple[str, Sequence[Photo]]], min_side: int, progress: Callable[[int], None]
) -> tuple[list[Found], list[Quarantined]]:
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
    arguments = ((source, cluster.packed(photos), min_side) for source, photos in chunks)
    results: list[list[Found | Quarantined]] = [[] for _ in chunks]
    for index, result in cluster.run_tasks(_survey_task, arguments):
        # Now, while other tasks are at work.
        source, photos = chunks[index]
        results[index] = [_found(source, photo, item) for photo, item in zip(photos, result, strict=True)]
        progress(len(result))
    found: list[Found] = []
    quarantine: list[Quarantined] = []
    for item in chain.from_iterable(results):
        if isinstance(item, Quarantined):
            quarantine.append(item)
        else:
            found.append(item)
    return found, quarantine


def _found(source: str, photo: Photo, seen: _Seen | Quarantined) -> Found | Quarantined:
    if isinstance(seen, Quarantined):
        return seen
    sha256, size, print_, kind, mode, width, height = seen
    return Found(source, photo, sha256, size, Header(kind, mode, width, height), print_)


@ray.remote(num_cpus=1)
def _survey_task(
    source: str, wanted: Sequence[tuple[str, str, str, int]], min_side: int
) -> tuple[_Seen | Quarantined, ...]:
    photos = [Photo(*fields) for fields in wanted]
    looks = [_look(photo, data, min_side) for photo, data in zip(photos, sources.read(source, photos), strict=True)]
    usable = [look for look in looks if not isinstance(look, Quarantined)]
    prints = iter(fingerprints([look.cells for look in usable]))
    return tuple(
        look if isinstance(look, Quarantined) else (look.sha256, look.size, next(prints), *look.header)
        for look in looks
    )


class _Look(NamedTuple):
    sha256: str
    size: int
    header: Header
    cells: np.ndarray


def _look(photo: Photo, data: bytes | ImageError, min_side: int) -> _Look | Quarantined:
    try:
        if isinstance(data, ImageError):
            raise data
        header, grey = images.probe(data)
        if min(header.width, header.height) < min_side:
            raise ImageSizeError(f"{header.width}x{header.height} is too small")
    except ImageSizeError as error:
        return Quarantined(name=photo.name, kind="size", reason=error.what)
    except ImageError as error:
        return Quarantined(name=photo.name, kind="unreadable", reason=error.what)
    return _Look(hashlib.sha256(data).hexdigest(), len(data), header, cells(grey))
