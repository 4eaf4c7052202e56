"""Assign photos to splits: a pure function of the photos' bytes, labels and groups, and a seed."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pawcast.data.manifest import SPLITS
from pawcast.errors import DataError

if TYPE_CHECKING:
    from pawcast.data.inspect import ImageRecord

_MAX_NAMED = 100


def split_photos(
    records: Sequence[ImageRecord],
    classes: Sequence[str],
    *,
    test_size: int,
    val_fraction: float,
    seed: int,
    split_folders: bool = False,
) -> dict[str, list[ImageRecord]]:
    """Assign photos to splits. Photos without a label go to `unlabelled` in their order.

    The other splits are in seeded random order: any consecutive rows are a random sample. Copies of
    a photo, and photos of one `Photo.group`, go to one split.

    Args:
        records: All usable photos.
        classes: Names of the classes, by label.
        test_size: Labelled photos in `test`.
        val_fraction: Share of the other labelled photos in `val`, in [0, 1).
        seed: Another seed gives another split.
        split_folders: Use `Photo.split` instead. Where it is never `val`, `val_fraction` of `train`
            becomes `val`.

    Raises:
        DataError: If there are too few photos, none of some class, or photos under two labels.
    """
    labelled = [record for record in records if record.photo.label >= 0]
    _refuse_two_labels(labelled, classes)
    _refuse_missing_class(labelled, classes, "")
    splits: dict[str, list[ImageRecord]] = {name: [] for name in SPLITS}
    pool = labelled
    if split_folders:
        splits |= _by_folders(labelled)
        pool = []
        if not splits["val"]:
            pool, splits["train"], test_size = splits["train"], [], 0
    units = _find_units(pool)
    contents: dict[str, Counter[str]] = defaultdict(Counter)
    for record in pool:
        contents[units[record.sha256]][classes[record.photo.label]] += 1
    exact = not any(record.photo.group for record in pool)
    assigned = assign(contents, test_size=test_size, val_fraction=val_fraction, seed=seed, exact=exact)
    for record in pool:
        splits[assigned[units[record.sha256]]].append(record)
    for name, photos in splits.items():
        if name == "train" or (name == "val" and photos):
            _refuse_missing_class(photos, classes, f" in {name}")
        photos.sort(key=lambda record: (rank(seed, record.sha256), record.photo.name))
    splits["unlabelled"] = [record for record in records if record.photo.label < 0]
    return splits


def assign(
    units: Mapping[str, Mapping[str, int]], *, test_size: int, val_fraction: float, seed: int, exact: bool = True
) -> dict[str, str]:
    """Assign units, whose photos stay together, to `test`, `val` and `train`, stratified by class.

    In the order of a hash of (seed, identity), a unit goes to the first of these splits that has
    room for its photos of each class.

    Args:
        units: Photos by class, by the unit's identity.
        test_size: Photos in `test`.
        val_fraction: Share of the other photos in `val`, in [0, 1).
        seed: Another seed gives another split.
        exact: Refuse units that don't fit the sizes. Otherwise `test` and `val` may lack the photos
            for which no other unit fits, and `train` has them.

    Returns:
        `test`, `val` or `train` by identity, in that order.

    Raises:
        DataError: If a class gets no photo in `train` or `val`, or if units don't fit.
    """
    sizes: Counter[str] = Counter()
    for photos in units.values():
        sizes.update(photos)
    val_size = round((sizes.total() - test_size) * val_fraction)
    test_sizes = _proportional_shares(test_size, sizes)
    val_sizes = _proportional_shares(val_size, {label: size - test_sizes[label] for label, size in sizes.items()})
    room = {"test": dict(test_sizes), "val": dict(val_sizes), "train": dict(sizes)}
    split = {}
    for identity in sorted(units, key=lambda identity: rank(seed, identity)):
        unit = units[identity].items()
        name = next(name for name, free in room.items() if all(free[label] >= count for label, count in unit))
        for label, count in unit:
            room[name][label] -= count
        split[identity] = name
    for label, size in sorted(sizes.items()):
        if size - test_sizes[label] - val_sizes[label] < 1 or (val_fraction and val_sizes[label] < 1):
            raise DataError(
                "A class has too few photos for this split",
                received=f"{size:,} {label} photos, --test-size {test_size:,} --val-fraction {val_fraction:g}",
                fix="add photos, or lower --test-size or --val-fraction",
            )
        unfilled = room["test"][label] + room["val"][label]
        if unfilled and (exact or 0 < val_sizes[label] == room["val"][label]):
            raise DataError(
                "Copies and groups of photos stay in one split, and those of a class don't fit the split sizes",
                received=f"{unfilled:,} more {label} photos needed, and no group fits",
                fix="remove copies, or change --test-size, --val-fraction or --group",
            )
    return split


def rank(seed: int, identity: str) -> bytes:
    """Return the sort key of photos within a split: uniform, and fixed by the seed."""
    return hashlib.sha256(f"{seed}:{identity}".encode()).digest()


def _proportional_shares(total: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Divide `total` in proportion to `sizes`, exactly, by the largest remainder method."""
    whole = max(sum(sizes.values()), 1)
    exact = {label: total * size / whole for label, size in sizes.items()}
    shares = {label: int(share) for label, share in exact.items()}
    by_remainder = sorted(exact, key=lambda label: (shares[label] - exact[label], label))
    for label in by_remainder[: total - sum(shares.values())]:
        shares[label] += 1
    return shares


def _find_units(records: Sequence[ImageRecord]) -> dict[str, str]:
    """Map each sha256 to its unit: the least sha256 that copies and groups connect it with."""
    parents: dict[str, str] = {}

    def root(key: str) -> str:
        while (parent := parents.setdefault(key, key)) != key:
            parents[key] = parents[parent]
            key = parent
        return key

    for record in records:
        if record.photo.group:
            # Digits come before letters, so that no name of a group is less than a sha256.
            ends = sorted((root(record.sha256), root(f"group {record.photo.group}")))
            parents[ends[1]] = ends[0]
    return {record.sha256: root(record.sha256) for record in records}


def _by_folders(records: Sequence[ImageRecord]) -> dict[str, list[ImageRecord]]:
    splits: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        splits[record.photo.split].append(record)
    if outside := splits.pop("", []):
        raise DataError(
            f"{len(outside):,} of {len(records):,} photos are in no folder of a split",
            received=", ".join(record.photo.name for record in outside[:3]) + (", …" if len(outside) > 3 else ""),
            expected="all below train/, validation/ or test/",
            fix="move them, or leave out --split-folders",
        )
    return splits


def _refuse_missing_class(records: Sequence[ImageRecord], classes: Sequence[str], where: str) -> None:
    if missing := set(range(len(classes))) - {record.photo.label for record in records}:
        name = classes[min(missing)]
        raise DataError(f"There is no usable photo of class {name}{where}", fix="add photos, or correct --classes")


def _refuse_two_labels(records: Sequence[ImageRecord], classes: Sequence[str]) -> None:
    copies: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        copies[record.sha256].append(record)
    wrong = [group for group in copies.values() if len({record.photo.label for record in group}) > 1]
    if wrong:
        named = [" = ".join(f"{r.photo.name} ({classes[r.photo.label]})" for r in group) for group in wrong]
        raise DataError(
            f"{len(wrong):,} photos have two labels: the same bytes are under both",
            received="; ".join(named[:_MAX_NAMED]) + ("; …" if len(wrong) > _MAX_NAMED else ""),
            fix="remove those with the wrong label",
        )
