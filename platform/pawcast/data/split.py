"""Assign photos to splits: a pure function of the photos' bytes, their labels and a seed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pawcast.data.manifest import SPLITS
from pawcast.errors import DataError

if TYPE_CHECKING:
    from pawcast.data.inspect import ImageRecord


def split_photos(
    records: Sequence[ImageRecord], classes: Sequence[str], *, test_size: int, val_fraction: float, seed: int
) -> dict[str, list[ImageRecord]]:
    """Assign photos to splits. Photos without a label go to `unlabelled`.

    Labelled splits are in seeded random order, so that any consecutive rows are a random sample.
    `unlabelled` keeps the order of `records`.

    Args:
        records: All usable photos.
        classes: Names of the classes, by label.
        test_size: Labelled photos in `test`.
        val_fraction: Share of the other labelled photos in `val`, in [0, 1).
        seed: Another seed gives another split.

    Returns:
        The photos of each split.

    Raises:
        DataError: If there are too few photos, none of some class, or one photo has two labels.
    """
    copies: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in records:
        if record.photo.label >= 0:
            copies[record.sha256].append(record)
    labels = {}
    for identity, group in copies.items():
        group.sort(key=lambda record: record.photo.name)
        labels[identity] = classes[group[0].photo.label]
        if len({record.photo.label for record in group}) > 1:
            received = f"the same bytes in {' and '.join(record.photo.name for record in group)}"
            raise DataError("One photo has two labels", received=received, fix="remove the one with the wrong label")
    if missing := [name for name in classes if name not in labels.values()]:
        raise DataError(f"There is no usable photo of class {missing[0]}", fix="add photos, or correct --classes")
    counts = {identity: len(group) for identity, group in copies.items()}
    assigned = assign(labels, counts, test_size=test_size, val_fraction=val_fraction, seed=seed)
    splits: dict[str, list[ImageRecord]] = {name: [] for name in SPLITS}
    for identity, name in assigned.items():
        splits[name] += copies[identity]
    splits["unlabelled"] = [record for record in records if record.photo.label < 0]
    return splits


def assign(
    labels: Mapping[str, str], copies: Mapping[str, int], *, test_size: int, val_fraction: float, seed: int
) -> dict[str, str]:
    """Split identities into `test`, `val` and `train`, stratified by class and exact in size.

    Within their class, identities are ranked by a hash of (seed, identity). All copies of a photo
    go to one split.

    Args:
        labels: Class by identity (the sha256 of a photo's bytes).
        copies: Number of photos by identity.
        test_size: Photos in `test`.
        val_fraction: Share of the other photos in `val`, in [0, 1).
        seed: Another seed gives another split.

    Returns:
        `test`, `val` or `train` by identity, in the order of photos within a split.

    Raises:
        DataError: If a class gets no photo in `train` or `val`, or if its copies prevent the
            exact sizes.
    """
    ranked = sorted(labels, key=lambda identity: rank(seed, identity))
    by_class: dict[str, list[str]] = defaultdict(list)
    for identity in ranked:
        by_class[labels[identity]].append(identity)
    sizes = {label: sum(copies[identity] for identity in group) for label, group in by_class.items()}
    val_size = round((sum(sizes.values()) - test_size) * val_fraction)
    test_sizes = _proportional_shares(test_size, sizes)
    val_sizes = _proportional_shares(val_size, {label: size - test_sizes[label] for label, size in sizes.items()})
    split = {}
    for label, group in sorted(by_class.items()):
        if sizes[label] - test_sizes[label] - val_sizes[label] < 1 or (val_fraction and val_sizes[label] < 1):
            raise DataError(
                "A class has too few photos for this split",
                received=f"{sizes[label]:,} {label} photos, --test-size {test_size:,} --val-fraction {val_fraction:g}",
                fix="add photos, or lower --test-size or --val-fraction",
            )
        free = {"test": test_sizes[label], "val": val_sizes[label], "train": sizes[label]}
        for identity in group:
            name = next(name for name, photos in free.items() if copies[identity] <= photos)
            free[name] -= copies[identity]
            split[identity] = name
        if unfilled := free["test"] + free["val"]:
            raise DataError(
                "Copies of a photo stay in one split, and those of a class don't fit the split sizes",
                received=f"{unfilled:,} more {label} photos needed, and no group of copies fits",
                fix="remove copies, or change --test-size or --val-fraction",
            )
    return {identity: split[identity] for identity in ranked}


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
