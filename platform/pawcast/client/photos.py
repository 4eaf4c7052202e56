"""What a bulk run reads: photos in a fixed order, from any place in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from pawcast.data import sources
from pawcast.data.sources import Photo
from pawcast.errors import DataError, ImageError


class PhotoSequence(Protocol):
    """A sequence of photos.

    Attributes:
        name: What people call it.
        source_digest: Equal for equal photos, wherever they are.
    """

    name: str
    source_digest: str

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def read(self, start: int, stop: int) -> Iterator[tuple[Photo, bytes | ImageError]]:
        """Yield each of these photos with its bytes, or the reason why they can't be had."""
        ...

    def check(self) -> None:
        """Raise `DataError` if the photos aren't those that they were at first."""
        ...


class SourcePhotos:
    """The photos of a zip, a folder, or a CSV, in natural order.

    Args:
        path: As for `sources.scan`, which says what is refused.
    """

    def __init__(self, path: str) -> None:
        self.name = path
        self._stamp = sources.stamp(path)
        self._photos = sources.scan(path)
        self.source_digest = sources.source_digest(path, self._photos)

    def __len__(self) -> int:
        return len(self._photos)

    def read(self, start: int, stop: int) -> Iterator[tuple[Photo, bytes | ImageError]]:
        photos = self._photos[start:stop]
        yield from zip(photos, sources.read(self.name, photos), strict=True)

    def check(self) -> None:
        """Raise `DataError` if the source holds other photos by now, as far as names and sizes tell."""
        if self._stamp and sources.stamp(self.name) == self._stamp:
            return
        photos = sources.scan(self.name)
        if sources.source_digest(self.name, photos) != self.source_digest:
            raise DataError(
                f"{self.name} changed while it was read",
                received=f"{len(photos):,} photos, some of them others",
                expected=f"the {len(self):,} that were there at first",
                fix="run it again when nobody writes there",
            )
