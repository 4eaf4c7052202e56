"""The data report: the checks of ingest, their findings, and the limits above which ingest stops.

The report depends on the photos alone: equal photos give an equal report.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

from pydantic import Field

from pawcast.core.records import Record
from pawcast.data.inspect import ImageRecord
from pawcast.data.manifest import QuarantinedPhoto
from pawcast.data.perceptual_hash import near_pairs
from pawcast.data.sources import FORMATS, extension
from pawcast.errors import DataError

_SIDES = (64, 128, 256, 512, 1_024, 2_048, 4_096)

Share = Annotated[float, Field(ge=0, le=1)]


class CheckLimits(Record):
    """For each check, the share of photos in [0, 1] above which ingest stops."""

    unreadable: Share = 0.01
    size: Share = 0.01
    extension: Share = 1.0
    duplicates: Share = 0.1
    near_duplicates: Share = 0.1
    majority: Share = 0.95


DEFAULT_LIMITS = CheckLimits()


class Check(Record):
    """The finding of one check.

    Attributes:
        name: The check, as `CheckLimits` names it.
        meaning: The finding as words that follow a count: `2 of 300 photos …`.
        photos: Number of photos concerned.
        of: Number of photos checked.
        examples: Up to three of the photos concerned.
    """

    name: str
    meaning: str
    photos: int
    of: int
    examples: list[str]

    @property
    def share(self) -> float:
        """Photos concerned of those checked, in [0, 1]."""
        return self.photos / self.of if self.of else 0.0

    @property
    def listing(self) -> str:
        """The examples, for people; an ellipsis stands for the others."""
        return ", ".join(self.examples) + (", …" if self.photos > len(self.examples) else "")


class NearPair(Record):
    """Two photos that look alike in different splits. `distance` counts differing bits, of 128."""

    first: str
    second: str
    splits: tuple[str, str]
    distance: int


class Spread(Record):
    """Smallest, median and largest value, in pixels."""

    least: int
    median: int
    most: int


class DataReport(Record):
    """All findings of ingest.

    Attributes:
        photos: Photos in the sources.
        checks: The finding of each check.
        classes: Labelled photos by class.
        formats: Usable photos by file format.
        modes: Usable photos by Pillow mode, such as `RGB`.
        width, height: Of the usable photos.
        longest_side: Usable photos by their longest side in pixels: `up_to_64` to `over_4096`.
        duplicates: Names of byte-for-byte copies, in groups.
        near_duplicates: Photos of different splits that look alike.
    """

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


def quality_checks(records: Sequence[ImageRecord], quarantine: Sequence[QuarantinedPhoto]) -> list[Check]:
    """Return the checks that need no split: unreadable photos, sizes, and wrong extensions."""
    total = len(records) + len(quarantine)
    kinds = {"unreadable": "can't be decoded and are left out", "size": "are too large or too small and are left out"}
    checks = [
        _check(kind, meaning, [f"{photo.name} ({photo.reason})" for photo in quarantine if photo.kind == kind], total)
        for kind, meaning in kinds.items()
    ]
    misnamed = [
        f"{record.photo.name} ({record.header.format})"
        for record in records
        if FORMATS.get(extension(record.photo.member), record.header.format) != record.header.format
    ]
    return [*checks, _check("extension", "have another format than their extension says", misnamed, total)]


def build_report(
    records: Sequence[ImageRecord],
    checks: Sequence[Check],
    splits: Mapping[str, list[ImageRecord]],
    classes: Sequence[str],
) -> DataReport:
    """Return the whole report. `checks` are those of `quality_checks`."""
    by_hash: dict[str, list[str]] = defaultdict(list)
    for record in records:
        by_hash[record.sha256].append(record.photo.name)
    duplicates = sorted(sorted(names) for names in by_hash.values() if len(names) > 1)
    copies = [name for names in duplicates for name in names[1:]]
    near = _near_duplicates_across_splits(splits)
    near_examples = [f"{pair.first} ({pair.splits[0]}) and {pair.second} ({pair.splits[1]})" for pair in near]
    labels = Counter(classes[record.photo.label] for record in records if record.photo.label >= 0)
    largest = max(labels, key=lambda name: labels[name], default="")
    headers = [record.header for record in records]
    return DataReport(
        photos=checks[0].of,
        checks=[
            *checks,
            _check("duplicates", "are copies of another photo; copies stay in one split", copies, checks[0].of),
            _check("near_duplicates", "look like a photo of another split", near_examples, checks[0].of),
            _check("majority", f"are in the largest class, {largest}", [largest] * labels[largest], labels.total()),
        ],
        classes={name: labels[name] for name in classes},
        formats=dict(sorted(Counter(header.format for header in headers).items())),
        modes=dict(sorted(Counter(header.mode for header in headers).items())),
        width=_spread([header.width for header in headers]),
        height=_spread([header.height for header in headers]),
        longest_side=_histogram(max(header.width, header.height) for header in headers),
        duplicates=duplicates,
        near_duplicates=near,
    )


def enforce_limits(checks: Iterable[Check], limits: CheckLimits) -> None:
    """Stop at the first check whose share of photos exceeds its limit.

    Raises:
        DataError: With the number of photos, the limit and examples.
    """
    for check in checks:
        limit = getattr(limits, check.name)
        if check.share > limit:
            raise DataError(
                f"{check.photos:,} of {check.of:,} photos {check.meaning}",
                received=check.listing,
                expected=f"at most {limit:.1%}",
                fix=f"repair the source, or pass --limit {check.name}={min(1, check.share + 0.001):.3f}",
            )


def _near_duplicates_across_splits(splits: Mapping[str, list[ImageRecord]]) -> list[NearPair]:
    # One photo for each hash: byte-for-byte copies are counted by `duplicates`.
    distinct: dict[str, tuple[str, ImageRecord]] = {}
    for split, records in splits.items():
        for record in records:
            distinct.setdefault(record.sha256, (split, record))
    photos = list(distinct.values())
    pairs = []
    for i, j, distance in near_pairs([record.perceptual_hash for _, record in photos]):
        (split, one), (other_split, other) = photos[i], photos[j]
        if split != other_split:
            names = {"first": one.photo.name, "second": other.photo.name}
            pairs.append(NearPair(**names, splits=(split, other_split), distance=distance))
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def _check(name: str, meaning: str, concerned: Sequence[str], of: int) -> Check:
    return Check(name=name, meaning=meaning, photos=len(concerned), of=of, examples=list(dict.fromkeys(concerned))[:3])


def _spread(values: Sequence[int]) -> Spread:
    return Spread(least=min(values), median=statistics.median_high(values), most=max(values))


def _histogram(sides: Iterable[int]) -> dict[str, int]:
    counts = Counter(bisect_left(_SIDES, side) for side in sides)
    names = [*(f"up_to_{limit}" for limit in _SIDES), f"over_{_SIDES[-1]}"]
    return {name: counts[i] for i, name in enumerate(names) if counts[i]}
