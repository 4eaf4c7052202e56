"""Sources of photos: a folder, an archive, Parquet, S3, or a table of labels. Read only.

A photo's label comes from a table of labels, its folder (`Cat/7.jpg`) or its name (`cat.7.jpg`).

A source is untrusted. `scan` refuses a source that no honest tool makes: paths that lead out of it,
ambiguous names, overlapping members, zip bombs. Everything else costs one photo: `read` yields the
reason instead of its bytes. README.md beside this file lists each threat and what happens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pawcast.data.sources import labels, table
from pawcast.data.sources.container import Entry
from pawcast.data.sources.contents import list_photos
from pawcast.data.sources.labels import EXTENSIONS, FORMATS, display_name, extension, natural_key, refusal
from pawcast.data.sources.opening import open_source
from pawcast.errors import DataError, ImageError, UsageError

__all__ = [
    "EXTENSIONS",
    "FORMATS",
    "LeftOut",
    "Listing",
    "Photo",
    "extension",
    "natural_key",
    "read",
    "scan",
    "source_digest",
]


_RENAME = "rename or remove them, or correct --classes"


class Photo(NamedTuple):
    """One photo of a source.

    Attributes:
        id: Its path below the source's root without the extension: `cat.7`, `12`, `Cat/7`. With
            the extension if two photos would have the same id otherwise.
        name: Its path below the source's root: `cat.7.jpg`.
        member: The path that the source itself uses: `train/cat.7.jpg`.
        label: Index into the classes, or -1.
        group: Photos of one group belong into one split. Empty: a group of its own.
        split: `train`, `val` or `test`, as the source's own folders say. Empty: they don't say.
    """

    id: str
    name: str
    member: str
    label: int
    group: str = ""
    split: str = ""


@dataclass(frozen=True)
class LeftOut:
    """Files of one kind that are in a source but aren't photos that can be read.

    Attributes:
        kind: An identifier, such as `heic`, `link`, `text` or `archive`.
        count: How many.
        examples: Up to three of their paths below the source's root.
    """

    kind: str
    count: int
    examples: tuple[str, ...]


class Listing(NamedTuple):
    """What a source holds.

    Attributes:
        photos: In natural order (`2` before `10`), whatever the source's own order.
        left_out: Everything else but litter such as `.DS_Store`, the most frequent kind first.
        contradictions: Names of the photos whose file name says another class than their folder,
            which decides.
        split_folders: The source's folders that are named after a split, such as `train` and
            `validation`.
    """

    photos: list[Photo]
    left_out: list[LeftOut]
    contradictions: list[str]
    split_folders: list[str]


def scan(
    path: str, classes: Sequence[str] = (), *, label_column: str = "", group: str = "", split_folders: bool = False
) -> Listing:
    """List the photos of a source.

    Args:
        path: A folder, a zip, tar or tar.gz, one of these within a zip
            (`dogs-vs-cats.zip/train.zip`), a Parquet file or a folder of them, a CSV, a CSV within
            any of them (`pets.zip/labels.csv`), or `s3://bucket/prefix`.
        classes: Names to look for in names of files and folders or in the table, ignoring case.
            Empty: no labels.
        label_column: The table's column of labels. Empty: `label`, `class` and the like, or the
            only column beside that of files.
        group: The table's column of groups, or a regular expression that finds the group in a
            photo's name: its first group, else what it matches. Empty: no groups.
        split_folders: Whether folders such as `train` and `validation` give `Photo.split`.

    Returns:
        The photos, and what else is there.

    Raises:
        NotFoundError: If nothing is there, or a photo that a table lists is missing.
        UsageError: If `group` is no regular expression or matches no name.
        StoreError: If S3 can't be reached or refuses access.
        DataError: If the path is none of these, holds no photo or a photo without a label, or
            isn't safe to read.
    """
    container = open_source(path)
    entries, others = list_photos(path, container, classes, label_column, group)
    entries.sort(key=lambda entry: natural_key(entry.member))
    entries, label_of, contradictions = _labels(path, entries, classes)
    root = labels.shared_folder([entry.name for entry in entries], classes)
    names = [entry.name[len(root) :] for entry in entries]
    splits, folders = _splits(path, names, split_folders)
    columns = (labels.photo_ids(names), names, entries, label_of, _groups(entries, names, group), splits)
    photos = [
        Photo(labels.escape_name(id_), labels.escape_name(name), entry.member, *rest)
        for id_, name, entry, *rest in zip(*columns, strict=True)
    ]
    left_out = [_left_out(kind, found) for kind, found in others.items() if found]
    left_out.sort(key=lambda item: (-item.count, item.kind))
    return Listing(photos, left_out, [photos[i].name for i in contradictions], folders)


def read(path: str, photos: Sequence[Photo]) -> Iterator[bytes | ImageError]:
    """Yield each photo's bytes, or the reason why they can't be read; one in memory at a time.

    A photo larger than `vision.decode.MAX_BYTES` is never read or inflated beyond that size.
    """
    yield from open_source(path).read_all([photo.member for photo in photos])


def source_digest(path: str, photos: Sequence[Photo]) -> str:
    """Return a sha256 over the photos' names and sizes, and a zip's checksums. Reads no photo.

    Copies of a source have the same digest. It changes when a photo is added, removed, renamed or
    gets another size.
    """
    container = open_source(path)
    digest = hashlib.sha256()
    for photo in photos:
        digest.update(repr((photo.name, container.metadata(photo.member))).encode(errors="backslashreplace"))
    return digest.hexdigest()


def _left_out(kind: str, entries: Sequence[Entry]) -> LeftOut:
    names = sorted((labels.escape_name(entry.name) for entry in entries), key=natural_key)
    return LeftOut(kind, len(names), tuple(names[:3]))


def _labels(path: str, entries: list[Entry], classes: Sequence[str]) -> tuple[list[Entry], list[int], list[int]]:
    """Return the photos with their labels, and the indices of those whose names contradict."""
    if not classes:
        return entries, [-1] * len(entries), []
    contradictions: list[int] = []
    if any(entry.label for entry in entries):
        label_of = [labels.label_from_text(entry.label, classes) if entry.label else -1 for entry in entries]
        for entry, label in zip(entries, label_of, strict=True):
            if entry.label and label < 0:
                raise table.unknown_label(f"{display_name(path)}, {display_name(entry.name)}:", entry.label, classes)
    else:
        # A link may name the class of a file that lies elsewhere in the source without one.
        targets = {entry.target for entry in entries}
        label_of, contradictions = labels.labels_from_paths([entry.name for entry in entries], classes)
        if len(targets) > 1:
            pairs = zip(entries, label_of, strict=True)
            entries = [entry for entry, label in pairs if label >= 0 or entry.member not in targets]
            label_of, contradictions = labels.labels_from_paths([entry.name for entry in entries], classes)
    unlabelled = [entry.member for entry, label in zip(entries, label_of, strict=True) if label < 0]
    if unlabelled:
        folder = Path(path).parent
        tables = sorted(map(str, folder.glob("*.csv"))) if folder.is_dir() else []
        fix = f"name {display_name(tables[0])} instead, if that holds their labels" if tables else _RENAME
        raise DataError(
            f"{len(unlabelled):,} of {len(entries):,} photos in {display_name(path)} have no label",
            received=", ".join(map(display_name, unlabelled[:3])) + (", …" if len(unlabelled) > 3 else ""),
            expected=f"{classes[0]}.7.jpg, or {classes[0]}/7.jpg, or a CSV of file,label",
            fix=fix,
        )
    return entries, label_of, contradictions


def _splits(path: str, names: Sequence[str], wanted: bool) -> tuple[list[str], list[str]]:
    """Return each photo's split if it is wanted, and the folders that are named after splits."""
    folders = [labels.split_folder(name) for name in names]
    distinct = sorted({folder for folder in folders if folder}, key=natural_key)
    if len({labels.split_of(folder) for folder in distinct}) < 2:
        if wanted:
            expected, fix = "folders such as train and validation", "leave out --split-folders"
            raise refusal(path, "has no folders for its splits", ", ".join(distinct) or "none", expected, fix=fix)
        distinct = []
    return [labels.split_of(folder) if wanted else "" for folder in folders], distinct


def _groups(entries: Sequence[Entry], names: Sequence[str], group: str) -> list[str]:
    """Return each photo's group: what a column says, else what a pattern finds in its name."""
    if not group or any(entry.group for entry in entries):
        return [entry.group for entry in entries]
    try:
        found = [re.search(group, name) for name in names]
    except re.error as error:
        expected = "a column of the CSV, or a regular expression such as '^(.*?)_'"
        raise UsageError("--group is no column and no regular expression", received=error, expected=expected) from None
    if not any(found):
        expected = f"a pattern that is in names such as {display_name(names[0])}, or a column of the source's CSV"
        raise UsageError("--group matches no photo's name", received=display_name(group), expected=expected)
    return [match.group(1 if match.re.groups else 0) or "" if match else "" for match in found]
