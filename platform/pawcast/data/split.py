"""Which photo goes where: a pure function of the photos' bytes, their labels and a seed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from pawcast.errors import DataError


def assign(
    labels: Mapping[str, str], copies: Mapping[str, int], *, test_size: int, val_fraction: float, seed: int
) -> dict[str, str]:
    """Split identities into `test`, `val` and `train`, stratified by class and exact in size.

    Identities are ranked within their class by a hash of (seed, identity), so the split depends on neither
    file order, names, machine nor worker count. All copies of one photo stay together.

    Args:
        labels: Class by identity (the sha256 of a photo's bytes).
        copies: How many photos have that identity.
        test_size: Photos to hold out.
        val_fraction: Validation's share of the rest, in (0, 1).
        seed: Another seed gives another split.

    Returns:
        `test`, `val` or `train` by identity, in the order of photos within a split.

    Raises:
        DataError: If a class is left without a training or validation photo.
    """
    in_order = sorted(labels, key=lambda identity: rank(seed, identity))
    by_class: dict[str, list[str]] = defaultdict(list)
    for identity in in_order:
        by_class[labels[identity]].append(identity)
    sizes = {label: sum(copies[i] for i in members) for label, members in by_class.items()}
    total = sum(sizes.values())
    validation = round((total - test_size) * val_fraction)
    held = _shares(test_size, sizes)
    checked = _shares(validation, {label: size - held[label] for label, size in sizes.items()})
    split = {}
    for label, members in sorted(by_class.items()):
        if sizes[label] - held[label] - checked[label] < 1 or (val_fraction and checked[label] < 1):
            raise DataError(
                "A class has too few photos for this split",
                received=f"{sizes[label]:,} {label} photos, {test_size:,} to hold out, {val_fraction:g} to validate",
                fix="add photos, or lower --test-size or --val-fraction",
            )
        room = {"test": held[label], "val": checked[label], "train": sizes[label]}
        for identity in members:
            for name, free in room.items():
                if copies[identity] <= free:
                    room[name] -= copies[identity]
                    split[identity] = name
                    break
        if room["test"] or room["val"]:
            raise DataError(
                "The copies of a class's photos don't fit this split, since copies stay together",
                received=f"{room['test'] + room['val']:,} places for {label} photos left, and only larger groups",
                fix="remove copies, or change --test-size or --val-fraction",
            )
    return {identity: split[identity] for identity in in_order}


def rank(seed: int, identity: str) -> bytes:
    """The order of photos within a split: uniform, and fixed by the seed."""
    return hashlib.sha256(f"{seed}:{identity}".encode()).digest()


def _shares(total: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Divide `total` in proportion to `sizes`, exactly, by largest remainder."""
    whole = max(sum(sizes.values()), 1)
    exact = {label: total * size / whole for label, size in sizes.items()}
    shares = {label: int(share) for label, share in exact.items()}
    by_remainder: Sequence[str] = sorted(exact, key=lambda label: (shares[label] - exact[label], label))
    for label in by_remainder[: total - sum(shares.values())]:
        shares[label] += 1
    return shares
