"""Read one split of a published dataset in order, a shard in memory at a time. Needs Arrow, not Ray."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

import pyarrow as pa

from pawcast.data import manifest as manifests
from pawcast.data import shards, sources
from pawcast.data.manifest import Split
from pawcast.data.sources import Photo
from pawcast.errors import DataError, ImageError
from pawcast.store import Store


class SplitReader:
    """The photos of a split, in the order of its shards.

    Args:
        store: Where the dataset is.
        dataset: `NAME` (its latest) or `NAME@DIGEST`.
        split: Such as `unlabelled`.

    Raises:
        NotFoundError: If there is no such dataset.
        DataError: If the split is empty.

    Attributes:
        name: The dataset by its digest, and the split.
        source_digest: Of the split: its shards are named by their content.
    """

    def __init__(self, store: Store, dataset: str, split: str) -> None:
        manifest = manifests.load(store, dataset)
        self._store = store
        self._shards = manifest.splits[split].shards if split in manifest.splits else []
        self._starts = [0, *accumulate(shard.rows for shard in self._shards)]
        self._open: tuple[int, pa.Table] | None = None
        self.name = f"{manifest.dataset}@{manifest.digest[:12]}, split {split}"
        self.source_digest = f"{manifest.digest}/{split}"
        if not len(self):
            raise DataError(
                f"{manifest.dataset}@{manifest.digest[:12]} has no photos in its split {split}",
                received=", ".join(f"{part.photos:,} {name}" for name, part in manifest.splits.items()),
                fix="ingest it with --unlabelled, or give the photos themselves",
            )

    def __len__(self) -> int:
        return self._starts[-1]

    def read(self, start: int, stop: int) -> Iterator[tuple[Photo, bytes | ImageError]]:
        """Yield the photos from `start` to before `stop`, with their bytes.

        Raises:
            NotFoundError, IntegrityError: If a shard is missing or was changed.
        """
        at = start
        while at < stop:
            index = bisect_right(self._starts, at) - 1
            first = self._starts[index]
            rows = self._table(index).slice(at - first, min(stop, self._starts[index + 1]) - at)
            images = rows["image"].combine_chunks()
            columns = (rows["id"], images.field("path"), images.field("bytes"))
            for id_, name, data in zip(*columns, strict=True):
                yield Photo(id_.as_py(), name.as_py(), name.as_py(), -1), data.as_py()
            at += rows.num_rows

    def check(self) -> None:
        """Published datasets don't change."""

    def _table(self, index: int) -> pa.Table:
        if self._open is None or self._open[0] != index:
            # The last one goes before the next one comes.
            self._open = None
            self._open = (index, shards.read(self._store, self._shards[index]))
        return self._open[1]


class LabelledPhoto(NamedTuple):
    """A photo and its truth."""

    id: str
    label: int
    data: bytes | ImageError


def read_split(store: Store, split: Split) -> Iterator[LabelledPhoto]:
    """Yield a split's photos, one verified shard in memory at a time."""
    for shard in split.shards:
        for row in shards.rows(shards.read(store, shard)):
            yield LabelledPhoto(row.id, row.label, row.data)


def read_source(path: str, classes: list[str]) -> Iterator[LabelledPhoto]:
    """Yield a labelled zip's or folder's photos."""
    photos = sources.scan(path, classes)
    for photo, data in zip(photos, sources.read(path, photos), strict=True):
        yield LabelledPhoto(photo.id, photo.label, data)
