"""From surveyed photos to the rows of every shard: which photo goes where, before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from pawcast.dataset import shards
from pawcast.dataset.manifest import SPLITS
from pawcast.dataset.split import assign, rank
from pawcast.dataset.survey import Found
from pawcast.errors import DataError


class PlannedShard(NamedTuple):
    """One shard to be written: photos of one split, in order."""

    split: str
    photos: list[Found]


def split_photos(
    found: Sequence[Found], classes: Sequence[str], *, holdout: int, val_fraction: float, seed: int
) -> dict[str, list[Found]]:
    """Assign photos to splits; those without a label go to `test`.

    Labelled splits come in seeded random order, so any run of rows is a fair sample; `test` comes in the
    order given.

    Raises:
        DataError: For too few photos or none of a class, or one photo under two labels.
    """
    labelled = [item for item in found if item.photo.label >= 0]
    labels = {identity: classes[label] for identity, label in _labels(labelled).items()}
    if missing := [name for name in classes if name not in labels.values()]:
        raise DataError(f"There is no usable photo of class {missing[0]}", expected=" and ".join(classes))
    if len(labels) <= holdout:
        raise DataError(
            "There are too few photos",
            received=f"{len(labels):,} different ones",
            expected=f"more than --holdout {holdout:,}",
        )
    copies = Counter(item.sha256 for item in labelled)
    split = assign(labels, copies, holdout=holdout, val_fraction=val_fraction, seed=seed)
    ranks = {identity: rank(seed, identity) for identity in labels}
    members: dict[str, list[Found]] = {name: [] for name in SPLITS}
    for item in sorted(labelled, key=lambda item: (ranks[item.sha256], item.photo.name)):
        members[split[item.sha256]].append(item)
    members["test"] = [item for item in found if item.photo.label < 0]
    return members


def cut(members: dict[str, list[Found]]) -> list[PlannedShard]:
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


def _labels(labelled: Sequence[Found]) -> dict[str, int]:
    """The label of every identity, which must be one."""
    first: dict[str, Found] = {}
    for item in labelled:
        known = first.setdefault(item.sha256, item)
        if known.photo.label != item.photo.label:
            raise DataError(
                "One photo has two labels",
                received=f"the same bytes in {known.photo.name} and {item.photo.name}",
                fix="remove the wrong one",
            )
    return {identity: item.photo.label for identity, item in first.items()}
