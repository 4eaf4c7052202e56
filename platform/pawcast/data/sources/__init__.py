"""Sources of photos: a zip, a folder, or a CSV of `file,label`. Read only; nothing is unpacked.

A photo's label comes from the CSV. Without a CSV it comes from the file's name (`cat.7.jpg`) or
else from its folder (`Cat/7.jpg`).

A source is untrusted. `scan` refuses a source that no honest tool makes: paths that lead out of it,
ambiguous names, overlapping members, zip bombs. Everything else costs one photo: `read` yields the
reason instead of its bytes. README.md beside this file lists each threat and what happens.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pawcast.data.sources import labels, table, zip_archive
from pawcast.data.sources.folder import Folder
from pawcast.data.sources.labels import EXTENSIONS, FORMATS, display_name, extension, natural_key, refusal
from pawcast.data.sources.zip_archive import ZipArchive
from pawcast.errors import DataError, ImageError, NotFoundError

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


_EXPECTED = "a zip or a folder of photos, or a CSV of file,label"


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
        path: A zip, a zip within a zip (`dogs-vs-cats.zip/train.zip`), a folder, or a CSV.
        classes: Names to look for in names of files and folders or in the CSV, ignoring case.
            Empty: no labels.
        label_column: The CSV's column of labels. Empty: `label`, `class` and the like.
        group: The CSV's column of groups, or a regular expression that finds the group in a
            photo's name. Empty: no groups.
        split_folders: Whether folders such as `train` and `validation` give `Photo.split`.

    Returns:
        The photos, and what else is there.

    Raises:
        NotFoundError: If nothing is there.
        DataError: If the path is none of these, holds no photo or a photo without a label, or
            isn't safe to read.
    """
    container = _open(path)
    if _is_csv(path):
        label_of = table.labels(path, classes)
        paths = {member: labels.normalize_path(member) for member in label_of}
    else:
        members = container.members()
        listed = [(member, name) for member in members if labels.is_photo(name := labels.normalize_path(member))]
        if not listed:
            _refuse_empty(path, members)
        if isinstance(container, ZipArchive):
            container.check_photos(listed)
        paths = dict(listed)
        label_of = {member: labels.label_from_path(name, classes) if classes else -1 for member, name in paths.items()}
    root = labels.shared_folder(paths.values(), classes)
    ordered = sorted(paths, key=natural_key)
    names = [paths[member][len(root) :] for member in ordered]
    photos = [
        Photo(labels.escape_name(id_), labels.escape_name(name), member, label_of[member])
        for id_, name, member in zip(labels.photo_ids(names), names, ordered, strict=True)
    ]
    unlabelled = [photo.member for photo in photos if photo.label < 0]
    if classes and unlabelled:
        raise DataError(
            f"{len(unlabelled):,} of {len(photos):,} photos in {display_name(path)} have no label",
            received=_some(unlabelled, 3),
            expected=f"{classes[0]}.7.jpg, or {classes[0]}/7.jpg, or a CSV of file,label",
            fix="rename or remove them, or correct --classes",
        )
    return Listing(photos, [], [], [])


def read(path: str, photos: Sequence[Photo]) -> Iterator[bytes | ImageError]:
    """Yield each photo's bytes, or the reason why they can't be read; one in memory at a time.

    A photo larger than `vision.decode.MAX_BYTES` is never read or inflated beyond that size.
    """
    container = _open(path)
    for photo in photos:
        try:
            yield container.read(photo.member)
        except ImageError as error:
            yield error


def source_digest(path: str, photos: Sequence[Photo]) -> str:
    """Return a sha256 over the photos' names and sizes, and a zip's checksums. Reads no photo.

    Copies of a source have the same digest. It changes when a photo is added, removed, renamed or
    gets another size.
    """
    container = _open(path)
    digest = hashlib.sha256()
    for photo in photos:
        digest.update(repr((photo.name, container.metadata(photo.member))).encode(errors="backslashreplace"))
    return digest.hexdigest()


def _open(path: str) -> Folder | ZipArchive:
    """Open a source; for a CSV, the folder that it is in."""
    source = Path(path)
    try:
        if source.is_dir():
            return Folder(source)
        if _is_csv(path):
            return Folder(source.parent)
        # What is on the disk; the rest of the path is the name of a member.
        outer = next((outer for outer in (source, *source.parents) if outer.exists()), source)
        if outer.is_file() and zipfile.is_zipfile(outer):
            return zip_archive.open_zip(outer, source.relative_to(outer).as_posix())
        exists, received = source.exists(), display_name(path)
    except (OSError, ValueError) as error:  # A name that is too long, or a null character in it.
        exists, received = False, f"{display_name(path)} ({labels.error_reason(error)})"
    if not exists:
        raise NotFoundError("There is no such file or folder", received=received, expected=_EXPECTED)
    if not os.access(source, os.R_OK):
        raise refusal(path, "can't be read", "Permission denied", fix="make it readable")
    raise refusal(path, "is neither a folder nor a whole zip", expected=_EXPECTED, fix="download or copy it again")


def _is_csv(path: str) -> bool:
    return Path(path).suffix.lower() == ".csv" and Path(path).is_file()


def _refuse_empty(path: str, members: Sequence[str]) -> None:
    zips = sorted((m for m in members if m.lower().endswith(".zip")), key=natural_key)
    if zips:
        fix = f"name one of them, such as {display_name(path.rstrip('/'))}/{display_name(zips[0])}"
        raise refusal(path, "holds no photos, only zips", _some(zips, 5), fix=fix)
    expected = f"files ending in {', '.join(EXTENSIONS)}"
    raise refusal(path, "holds no photos", expected=expected, fix="name the zip or folder that holds them")


def _some(names: Sequence[str], count: int) -> str:
    return ", ".join(map(display_name, names[:count])) + (", …" if len(names) > count else "")
