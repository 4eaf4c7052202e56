"""From surveyed photos to the rows of every shard: which photo goes where, before anything is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from pawcast.data import shards
from pawcast.data.inspect import ImageRecord
from pawcast.data.manifest import SPLITS
from pawcast.data.split import assign
from pawcast.errors import DataError


class PlannedShard(NamedTuple):
    """One shard to be written: photos of one split, in order."""

    split: str
    photos: list[ImageRecord]


def split_photos(
    found: Sequence[ImageRecord], classes: Sequence[str], *, test_size: int, val_fraction: float, seed: int
) -> dict[str, list[ImageRecord]]:
    """Assign photos to splits; those without a label go to `unlabelled`.

    Labelled splits come in seeded random order, so any run of rows is a fair sample; `unlabelled` comes in the
    order given.

    Raises:
        DataError: For too few photos or none of a class, or one photo under two labels.
    """
    copies = _copies(found)
    labels = {identity: classes[items[0].photo.label] for identity, items in copies.items()}
    if missing := [name for name in classes if name not in labels.values()]:
        raise DataError(f"There is no usable photo of class {missing[0]}", expected=" and ".join(classes))
    if len(labels) <= test_size:
        raise DataError(
            "There are too few photos",
            received=f"{len(labels):,} different ones",
            expected=f"more than --test-size {test_size:,}",
        )
    counts = {identity: len(items) for identity, items in copies.items()}
    split = assign(labels, counts, test_size=test_size, val_fraction=val_fraction, seed=seed)
    members: dict[str, list[ImageRecord]] = {name: [] for name in SPLITS}
    for identity, name in split.items():
        members[name] += copies[identity]
    members["unlabelled"] = [item for item in found if item.photo.label < 0]
    return members


def cut_shards(members: dict[str, list[ImageRecord]]) -> list[PlannedShard]:
    """Cut splits into shards, none above the limits of rows and bytes unless a single photo is."""
    planned: list[PlannedShard] = []
    for split, items in members.items():
        rows = room = 0
        for item in items:
            if not rows or item.size > room:
                planned.append(PlannedShard(split, []))
                rows, room = shards.MAX_ROWS, shards.MAX_BYTES
            planned[-1].photos.append(item)
            rows, room = rows - 1, room - item.size
    return planned


def _copies(found: Sequence[ImageRecord]) -> dict[str, list[ImageRecord]]:
    """The labelled photos of every identity, which must have one label, by their names."""
    copies: dict[str, list[ImageRecord]] = defaultdict(list)
    for item in found:
        if item.photo.label < 0:
            continue
        items = copies[item.sha256]
        items.append(item)
        if items[0].photo.label != item.photo.label:
            raise DataError(
                "One photo has two labels",
                received=f"the same bytes in {items[0].photo.name} and {item.photo.name}",
                fix="remove the wrong one",
            )
    for items in copies.values():
        items.sort(key=lambda item: item.photo.name)
    return copies
