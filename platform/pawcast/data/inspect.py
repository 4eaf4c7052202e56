"""Inspect every photo by Ray tasks: hash, decode and check it. Only a few numbers come back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import ray

from pawcast.core.progress import Counter, Progress, silent
from pawcast.data import sources
from pawcast.data.manifest import QuarantinedPhoto
from pawcast.data.perceptual_hash import perceptual_hashes
from pawcast.data.sources import Photo
from pawcast.errors import ImageError, ImageSizeError, NotFoundError
from pawcast.runtime import ray_session
from pawcast.vision import decode
from pawcast.vision.decode import ImageHeader

# A task whose worker dies is divided, until the photo is alone that kills the worker.
_PHOTOS_PER_TASK = (500, 20, 1)


class ImageRecord(NamedTuple):
    """A usable photo.

    Attributes:
        source: The zip, folder or CSV that holds it.
        photo: Its names in the source, and its label.
        sha256: Hash of its bytes, hexadecimal: its identity.
        size: Number of its bytes.
        header: Format, mode, width and height.
        perceptual_hashes: 16 bytes for the photo, and for its mirror image.
    """

    source: str
    photo: Photo
    sha256: str
    size: int
    header: ImageHeader
    perceptual_hashes: tuple[bytes, bytes]


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
    count = Counter(progress, "checking", sum(len(photos) for _, photos in listings))
    found: dict[tuple[str, Photo], ImageRecord | QuarantinedPhoto] = {}
    remaining = list(listings)
    for size in _PHOTOS_PER_TASK:
        tasks = [
            (source, tuple(photos[i : i + size]), min_side)
            for source, photos in remaining
            for i in range(0, len(photos), size)
        ]
        crashed: list[int] = []
        for index, items in ray_session.run_tasks(_inspect_task, tasks, attempts=2, on_crash=crashed.append):
            source, photos, _ = tasks[index]
            found.update(((source, photo), item) for photo, item in zip(photos, items, strict=True))
            count(len(photos))
        remaining = [tasks[index][:2] for index in crashed]
    for source, (photo,) in remaining:
        found[source, photo] = QuarantinedPhoto(name=photo.name, kind="unreadable", reason="crashed the decoder")
        count(1)
    ordered = [found[source, photo] for source, photos in listings for photo in photos]
    usable = [item for item in ordered if isinstance(item, ImageRecord)]
    return usable, [item for item in ordered if isinstance(item, QuarantinedPhoto)]


@ray.remote(num_cpus=1, max_retries=0)
def _inspect_task(source: str, photos: Sequence[Photo], min_side: int) -> tuple[ImageRecord | QuarantinedPhoto, ...]:
    contents = read_on_node(source, photos)
    # A tuple: Ray serializes a list element by element, which takes seven times as long.
    return tuple(_inspect(source, photo, data, min_side) for photo, data in zip(photos, contents, strict=True))


def read_on_node(source: str, photos: Sequence[Photo]) -> Iterator[bytes | ImageError]:
    """Yield what `sources.read` yields, in a task.

    Raises:
        NotFoundError: If the node that runs the task doesn't have the source.
    """
    try:
        yield from sources.read(source, photos)
    except NotFoundError:
        if "://" in source:
            raise
        raise NotFoundError(
            f"{source} isn't on the node {ray.util.get_node_ip_address()} of the Ray cluster",
            expected="every node has it under the same absolute path",
            fix="put it on storage that all nodes share, or unset RAY_ADDRESS",
        ) from None


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
    return ImageRecord(source, photo, hashlib.sha256(data).hexdigest(), len(data), header, perceptual_hashes(grey))
