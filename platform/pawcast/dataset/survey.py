"""The first look at every photo, by Ray tasks: is it whole, what is it, have we seen it? A few numbers come back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import ray

from pawcast import cluster, images, sources
from pawcast.dataset.fingerprint import fingerprint
from pawcast.dataset.manifest import Quarantined
from pawcast.errors import ImageError, ImageSizeError
from pawcast.images import Header
from pawcast.sources import Photo

_PHOTOS_PER_TASK = 500


class Found(NamedTuple):
    """A photo that can be used.

    Attributes:
        source: The zip or folder that it is in.
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


class _Seen(NamedTuple):
    """What a task says of a usable photo; the driver knows the rest."""

    sha256: str
    size: int
    header: Header
    fingerprint: bytes


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
        (source, photos[i : i + _PHOTOS_PER_TASK], min_side)
        for source, photos in wanted
        for i in range(0, len(photos), _PHOTOS_PER_TASK)
    ]
    results: list[list[_Seen | Quarantined]] = [[]] * len(chunks)
    for index, result in cluster.run_tasks(_survey_task, chunks):
        results[index] = result
        progress(len(result))
    found: list[Found] = []
    quarantine: list[Quarantined] = []
    for (source, photos, _), result in zip(chunks, results, strict=True):
        for photo, item in zip(photos, result, strict=True):
            if isinstance(item, Quarantined):
                quarantine.append(item)
            else:
                found.append(Found(source, photo, *item))
    return found, quarantine


@ray.remote(num_cpus=1)
def _survey_task(source: str, photos: Sequence[Photo], min_side: int) -> list[_Seen | Quarantined]:
    return [_look(photo, data, min_side) for photo, data in zip(photos, sources.read(source, photos), strict=True)]


def _look(photo: Photo, data: bytes | ImageError, min_side: int) -> _Seen | Quarantined:
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
    return _Seen(hashlib.sha256(data).hexdigest(), len(data), header, fingerprint(grey))
