"""The data report: what was checked, what was found, and which findings are too many to go on.

It is written with the dataset, and depends on the photos alone: the same photos give the same report.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from pawcast.core.records import Record
from pawcast.data.inspect import ImageRecord
from pawcast.data.manifest import Quarantined
from pawcast.data.perceptual_hash import near_pairs
from pawcast.data.sources import FORMATS, extension
from pawcast.errors import DataError

_SIDES = (64, 128, 256, 512, 1_024, 2_048, 4_096)

Share = Annotated[float, Field(ge=0, le=1)]


class CheckLimits(Record):
    """The share of photos, from 0 to 1, above which a finding stops the run."""

    unreadable: Share = 0.01
    size: Share = 0.01
    extension: Share = 1.0
    duplicates: Share = 0.1
    near_duplicates: Share = 0.1
    majority: Share = 0.95


class Check(Record):
    """One finding: how many photos it concerns, of how many, and the first of them."""

    name: str
    meaning: str
    photos: int
    of: int
    examples: list[str]

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.photos / self.of if self.of else 0.0


class NearPair(Record):
    """Two photos that look alike and sit in different splits; `distance` is in bits of 128."""

    first: str
    second: str
    splits: tuple[str, str]
    distance: int


class Spread(Record):
    """Smallest, median and largest, in pixels."""

    least: int
    median: int
    most: int


class DataReport(Record):
    """What ingest found out about the photos."""

    photos: int
    checks: list[Check]
    classes: dict[str, int]
    formats: dict[str, int]
    modes: dict[str, int]
    width: Spread
    height: Spread
    longest_side: dict[str, int]
    duplicates: list[list[str]]
    near_duplicates: list[NearPair]

    def to_json(self) -> bytes:
        """Canonical bytes: equal reports have equal bytes."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    @property
    def digest(self) -> str:
        """sha256 of `to_json()`, hexadecimal."""
        return hashlib.sha256(self.to_json()).hexdigest()


def quality_checks(found: Sequence[ImageRecord], quarantine: Sequence[Quarantined]) -> list[Check]:
    """The checks that need no split: unreadable photos and odd sizes, wrong extensions."""
    photos = len(found) + len(quarantine)

    def quarantined(kind: str, meaning: str) -> Check:
        members = [f"{item.name} ({item.reason})" for item in quarantine if item.kind == kind]
        return _check(kind, meaning, members, photos)

    misnamed = [
        f"{item.photo.name} ({item.header.format})"
        for item in found
        if FORMATS.get(extension(item.photo.member), item.header.format) != item.header.format
    ]
    return [
        quarantined("unreadable", "can't be decoded; left out"),
        quarantined("size", "too large or small; left out"),
        _check("extension", "not the format of its name", misnamed, photos),
    ]


def build_report(
    found: Sequence[ImageRecord],
    checks: Sequence[Check],
    members: Mapping[str, list[ImageRecord]],
    classes: Sequence[str],
) -> DataReport:
    """Put the whole report together, once the splits are known; `checks` are those of `quality`."""
    photos = checks[0].of
    groups: dict[str, list[str]] = defaultdict(list)
    for item in found:
        groups[item.sha256].append(item.photo.name)
    duplicates = sorted(sorted(names) for names in groups.values() if len(names) > 1)
    copies = [name for names in duplicates for name in names[1:]]
    near = _near_across_splits(members)
    labels = Counter(classes[item.photo.label] for item in found if item.photo.label >= 0)
    most = max(labels, key=lambda name: labels[name], default="")
    majority = _check("majority", f"in the largest class, {most}", [most] * labels[most], labels.total())
    return DataReport(
        photos=photos,
        checks=[
            *checks,
            _check("duplicates", "copies, kept in one split", copies, photos),
            _check(
                "near_duplicates", "looks like one of another split",
                [f"{pair.first} ({pair.splits[0]}) and {pair.second} ({pair.splits[1]})" for pair in near], photos,
            ),
            majority,
        ],
        classes={name: labels[name] for name in classes},
        formats=_counts(item.header.format for item in found),
        modes=_counts(item.header.mode for item in found),
        width=_spread([item.header.width for item in found]),
        height=_spread([item.header.height for item in found]),
        longest_side=_histogram([max(item.header.width, item.header.height) for item in found]),
        duplicates=duplicates,
        near_duplicates=near,
    )  # fmt: skip


def enforce_limits(checks: Iterable[Check], limits: CheckLimits) -> None:
    """Stop at the first check that found more than its limit allows.

    Raises:
        DataError: With the number, the limit and examples.
    """
    for check in checks:
        limit = getattr(limits, check.name)
        if check.share > limit:
            raise DataError(
                f"{check.photos:,} of {check.of:,} photos: {check.meaning}",
                received=", ".join(check.examples) + (", …" if check.photos > len(check.examples) else ""),
                expected=f"at most {limit:.1%}",
                fix=f"repair the source, or --limit {check.name}={min(1, check.share + 0.001):.3f}",
            )


def _near_across_splits(members: Mapping[str, list[ImageRecord]]) -> list[NearPair]:
    # Copies to the byte are told apart from those by their own check.
    distinct: dict[str, tuple[str, ImageRecord]] = {}
    for split, items in members.items():
        for item in items:
            distinct.setdefault(item.sha256, (split, item))
    photos = list(distinct.values())
    pairs = []
    for i, j, distance in near_pairs([item.perceptual_hash for _, item in photos]):
        (split, one), (other_split, other) = photos[i], photos[j]
        if split != other_split:
            pairs.append(
                NearPair(first=one.photo.name, second=other.photo.name, splits=(split, other_split), distance=distance)
            )
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def _check(name: str, meaning: str, members: Sequence[str], of: int) -> Check:
    return Check(name=name, meaning=meaning, photos=len(members), of=of, examples=list(dict.fromkeys(members))[:3])


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def _spread(values: Sequence[int]) -> Spread:
    ordered = sorted(values)
    return Spread(least=ordered[0], median=ordered[len(ordered) // 2], most=ordered[-1])


def _histogram(sides: Iterable[int]) -> dict[str, int]:
    counts = Counter(bisect_left(_SIDES, side) for side in sides)
    names = [*(f"up to {limit}" for limit in _SIDES), f"over {_SIDES[-1]}"]
    return {name: counts[i] for i, name in enumerate(names) if counts[i]}
