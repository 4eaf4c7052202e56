"""The photos that a bulk run reads: in a fixed order, from any index on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from pawcast.data import sources
from pawcast.data.sources import Photo
from pawcast.errors import DataError, ImageError


class PhotoSequence(Protocol):
    """A sequence of photos, such as a `SourcePhotos` or a dataset's `SplitReader`.

    Attributes:
        name: The source's name, for messages.
        source_digest: The photos' identity: equal for equal photos, wherever they are stored.
    """

    name: str
    source_digest: str

    def __len__(self) -> int:
        """Return the number of photos."""
        ...

    def read(self, start: int, stop: int) -> Iterator[tuple[Photo, bytes | ImageError]]:
        """Yield the photos from `start` to `stop - 1`, each with its bytes or its error."""
        ...

    def check(self) -> None:
        """Raise `DataError` if the photos have changed since the sequence was made."""
        ...


class SourcePhotos:
    """The photos of a source, in natural order.

    Args:
        path: As for `pawcast.data.sources.scan`, whose errors are raised.

    Attributes:
        left_out: What else the source holds, by kind.
    """

    def __init__(self, path: str) -> None:
        self.name = path
        listing = sources.scan(path)
        self._photos, self.left_out = listing.photos, listing.left_out
        self.source_digest = sources.source_digest(path, self._photos)

    def __len__(self) -> int:
        return len(self._photos)

    def read(self, start: int, stop: int) -> Iterator[tuple[Photo, bytes | ImageError]]:
        photos = self._photos[start:stop]
        yield from zip(photos, sources.read(self.name, photos), strict=True)

    def check(self) -> None:
        """Raise `DataError` if the source has changed, as far as names and sizes tell."""
        photos = sources.scan(self.name).photos
        if sources.source_digest(self.name, photos) != self.source_digest:
            raise DataError(
                f"{self.name} changed while it was read",
                received=f"{len(photos):,} photos, some of them new or changed",
                expected=f"the {len(self):,} that were there at first",
                fix="run it again when the source no longer changes",
            )
