"""Iterate over photos with their bytes: a split of a published dataset, or a labelled source.

    for photo in SplitReader.open(store, "pets", "val"):
        photo.id, photo.label, photo.data

Needs Arrow, but not Ray.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

import pyarrow as pa

from pawcast.data import manifest as manifests
from pawcast.data import shards, sources
from pawcast.data.manifest import Split
from pawcast.data.shards import PhotoRow
from pawcast.data.sources import Photo
from pawcast.errors import DataError, ImageError
from pawcast.store import Store


class SplitReader:
    """The photos of a split, in the order of its shards. At most one shard is in memory.

    Every method that reads raises `NotFoundError` if a shard is missing and `IntegrityError` if a
    shard was changed. The reader is a `pawcast.client.photos.PhotoSequence`.

    Args:
        store: The store that holds the dataset.
        split: The split, from a manifest.
        name: A name for messages.

    Attributes:
        name: A name for messages.
        source_digest: Depends on the photos and their order alone.
    """

    def __init__(self, store: Store, split: Split, name: str = "split") -> None:
        self.name = name
        self.source_digest = hashlib.sha256(" ".join(shard.sha256 for shard in split.shards).encode()).hexdigest()
        self._store = store
        self._shards = split.shards
        self._starts = [0, *accumulate(shard.rows for shard in split.shards)]
        self._cached: tuple[int, pa.Table] | None = None

    @classmethod
    def open(cls, store: Store, dataset: str, split: str) -> SplitReader:
        """Open a split by name.

        Args:
            store: The store that holds the dataset.
            dataset: `NAME` (its latest version) or `NAME@DIGEST`.
            split: `train`, `val`, `test` or `unlabelled`.

        Raises:
            NotFoundError: If there is no such dataset.
            DataError: If the split is empty.
        """
        manifest = manifests.load(store, dataset)
        if split not in manifest.splits or not manifest.splits[split].photos:
            raise DataError(
                f"{manifest.dataset}@{manifest.digest[:12]} has no photos in its split {split}",
                received=", ".join(f"{part.photos:,} {name}" for name, part in manifest.splits.items()),
                fix="ingest the photos with --unlabelled, or name them with --images"
                if split == "unlabelled"
                else "choose a split that has photos",
            )
        return cls(store, manifest.splits[split], f"{manifest.dataset}@{manifest.digest[:12]}, split {split}")

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[PhotoRow]:
        return self.rows(0, len(self))

    def rows(self, start: int, stop: int) -> Iterator[PhotoRow]:
        """Yield the photos `start` to `stop - 1`."""
        while start < stop:
            index = bisect_right(self._starts, start) - 1
            first, following = self._starts[index : index + 2]
            end = min(stop, following)
            yield from shards.rows(self._table(index).slice(start - first, end - start))
            start = end

    def find(self, id_: str) -> PhotoRow | None:
        """Return the photo with this id, or None. Reads the shards until the photo turns up."""
        for index in range(len(self._shards)):
            table = self._table(index)
            if (row := table["id"].index(id_).as_py()) >= 0:
                return next(shards.rows(table.slice(row, 1)))
        return None

    def read(self, start: int, stop: int) -> Iterator[tuple[Photo, bytes | ImageError]]:
        """Yield the photos `start` to `stop - 1` as a bulk prediction reads them."""
        for row in self.rows(start, stop):
            yield Photo(row.id, row.name, row.name, -1), row.data

    def check(self) -> None:
        """Do nothing: a published dataset never changes."""

    def _table(self, index: int) -> pa.Table:
        if self._cached is None or self._cached[0] != index:
            self._cached = None  # Before the read, so that two shards are never in memory.
            self._cached = (index, shards.read(self._store, self._shards[index]))
        return self._cached[1]


class LabelledPhoto(NamedTuple):
    """A photo of a labelled source.

    Attributes:
        id: The photo's id.
        label: Index into the classes.
        data: The photo file, or why it can't be read.
    """

    id: str
    label: int
    data: bytes | ImageError


def read_source(path: str, classes: list[str]) -> Iterator[LabelledPhoto]:
    """Yield the photos of a labelled source. Raises what `sources.scan` raises."""
    photos = sources.scan(path, classes).photos
    for photo, data in zip(photos, sources.read(path, photos), strict=True):
        yield LabelledPhoto(photo.id, photo.label, data)
