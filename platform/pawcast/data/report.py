"""The data report: the checks of ingest, their findings, and the limits above which ingest stops.

The report depends on the photos alone: equal photos give an equal report.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Annotated

from pydantic import Field

from pawcast.core.records import Record
from pawcast.data.inspect import ImageRecord
from pawcast.data.manifest import QuarantinedPhoto
from pawcast.data.perceptual_hash import near_pairs
from pawcast.data.sources import FORMATS, Listing, extension
from pawcast.errors import DataError

_SIDES = (64, 128, 256, 512, 1_024, 2_048, 4_096)

Share = Annotated[float, Field(ge=0, le=1)]


class CheckLimits(Record):
    """For each check, the share of photos in [0, 1] above which ingest stops."""

    unreadable: Share = 0.01
    size: Share = 0.01
    left_out: Share = 0.1
    extension: Share = 1.0
    contradictions: Share = 1.0
    split_folders: Share = 1.0
    duplicates: Share = 0.1
    copies_across_splits: Share = 0.1
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


class SplitPair(Record):
    """Two photos in different splits that are copies or look alike.

    `distance` counts the differing bits of their perceptual hashes, of 128. If `mirrored`, one is
    compared with the mirror image of the other.
    """

    first: str
    second: str
    splits: tuple[str, str]
    distance: int
    mirrored: bool = False


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
        copies_across_splits: Copies in different splits; one pair for each split beside the first.
        left_out: Files of other kinds in the sources, by kind.
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
    near_duplicates: list[SplitPair]
    # With defaults: reports of earlier versions lack them.
    copies_across_splits: list[SplitPair] = Field(default_factory=list)
    left_out: dict[str, int] = Field(default_factory=dict)

    def to_json(self) -> bytes:
        """Canonical bytes: equal reports have equal bytes."""
        return self.model_dump_json(indent=1).encode() + b"\n"


def quality_checks(
    records: Sequence[ImageRecord],
    quarantine: Sequence[QuarantinedPhoto],
    listings: Sequence[Listing],
    split_folders: bool,
) -> list[Check]:
    """Return the checks that need no split.

    Args:
        records: The usable photos.
        quarantine: The other photos.
        listings: What is in the sources.
        split_folders: Whether the folders of the source give the splits.
    """
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
    others = [item for listing in listings for item in listing.left_out]
    examples = [example for item in others for example in item.examples][:3]
    kinds_text = ", ".join(f"{count:,} {kind}" for kind, count in count_left_out(listings).items())
    contradictions = [name for listing in listings for name in listing.contradictions]
    folders = [] if split_folders else [folder for listing in listings for folder in listing.split_folders]
    ignored = [r.photo.name for r in records if r.photo.label >= 0 and set(folders) & set(r.photo.member.split("/"))]
    return [
        *checks,
        Check(
            name="left_out",
            meaning="are of other kinds and are left out" + (f": {kinds_text}" if others else ""),
            photos=sum(item.count for item in others),
            of=total + sum(item.count for item in others),
            examples=examples,
        ),
        _check("extension", "have another format than their extension says", misnamed, total),
        _check("contradictions", "have a file name that says another class than their folder", contradictions, total),
        _check("split_folders", "are in folders that --split-folders would use as splits", ignored, total),
    ]


def count_left_out(listings: Iterable[Listing]) -> dict[str, int]:
    """Return how many files of the sources are left out, by kind, the most frequent first."""
    counts: Counter[str] = Counter()
    for listing in listings:
        counts.update({item.kind: item.count for item in listing.left_out})
    return dict(counts.most_common())


def build_report(
    records: Sequence[ImageRecord],
    checks: Sequence[Check],
    splits: Mapping[str, list[ImageRecord]],
    classes: Sequence[str],
    listings: Sequence[Listing],
) -> DataReport:
    """Return the whole report. `checks` are those of `quality_checks`."""
    total = checks[0].of
    duplicates, copies, leaks = _find_copies(splits)
    near = _near_duplicates_across_splits(splits)
    labels = Counter(classes[record.photo.label] for record in records if record.photo.label >= 0)
    largest = max(labels, key=lambda name: labels[name], default="")
    headers = [record.header for record in records]
    return DataReport(
        photos=total,
        checks=[
            *checks,
            _check("duplicates", "are copies of another photo of the same split", copies, total),
            _check_pairs("copies_across_splits", "are copies of a photo of another split", leaks, total),
            _check_pairs("near_duplicates", "look like a photo of another split, perhaps mirrored", near, total),
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
        copies_across_splits=leaks,
        left_out=count_left_out(listings),
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
                f"{check.photos:,} of {check.of:,} {'files' if check.name == 'left_out' else 'photos'} {check.meaning}",
                received=check.listing,
                expected=f"at most {limit:.1%}",
                fix=f"repair the source, or pass --limit {check.name}={min(1, check.share + 0.001):.3f}",
            )


def _find_copies(
    splits: Mapping[str, list[ImageRecord]],
) -> tuple[list[list[str]], list[str], list[SplitPair]]:
    """Return the groups of copies, those that share a split with another, and those that don't."""
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for split, records in splits.items():
        for record in records:
            groups[record.sha256][split].append(record.photo.name)
    duplicates, same_split, pairs = [], [], []
    for group in groups.values():
        names = sorted(chain.from_iterable(group.values()))
        if len(names) == 1:
            continue
        duplicates.append(names)
        firsts = {}
        for split, of_split in group.items():
            firsts[split], *others = sorted(of_split)
            same_split += others
        (home, first), *elsewhere = firsts.items()
        pairs += [SplitPair(first=first, second=name, splits=(home, split), distance=0) for split, name in elsewhere]
    return sorted(duplicates), sorted(same_split), sorted(pairs, key=lambda pair: (pair.first, pair.second))


def _near_duplicates_across_splits(splits: Mapping[str, list[ImageRecord]]) -> list[SplitPair]:
    # One photo for each hash: byte-for-byte copies are counted as such.
    distinct: dict[str, tuple[str, ImageRecord]] = {}
    for split, records in splits.items():
        for record in records:
            distinct.setdefault(record.sha256, (split, record))
    photos = list(distinct.values())
    pairs = []
    for i, j, distance, mirrored in near_pairs([record.perceptual_hashes for _, record in photos]):
        (split, one), (other_split, other) = photos[i], photos[j]
        if split != other_split:
            names = {"first": one.photo.name, "second": other.photo.name}
            pairs.append(SplitPair(**names, splits=(split, other_split), distance=distance, mirrored=mirrored))
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def _check(name: str, meaning: str, concerned: Sequence[str], of: int) -> Check:
    return Check(name=name, meaning=meaning, photos=len(concerned), of=of, examples=list(dict.fromkeys(concerned))[:3])


def _check_pairs(name: str, meaning: str, pairs: Sequence[SplitPair], of: int) -> Check:
    examples = [f"{pair.first} ({pair.splits[0]}) and {pair.second} ({pair.splits[1]})" for pair in pairs]
    counts = Counter("/".join(pair.splits) for pair in pairs)
    by_splits = ", ".join(f"{count:,} {splits}" for splits, count in sorted(counts.items()))
    return _check(name, meaning + (f": {by_splits}" if pairs else ""), examples, of)


def _spread(values: Sequence[int]) -> Spread:
    return Spread(least=min(values), median=statistics.median_high(values), most=max(values))


def _histogram(sides: Iterable[int]) -> dict[str, int]:
    counts = Counter(bisect_left(_SIDES, side) for side in sides)
    names = [*(f"up_to_{limit}" for limit in _SIDES), f"over_{_SIDES[-1]}"]
    return {name: counts[i] for i, name in enumerate(names) if counts[i]}
