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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pawcast.data.sources import folder, table, zip_archive
from pawcast.data.sources.labels import (
    EXTENSIONS,
    FORMATS,
    display_name,
    error_reason,
    escape_name,
    extension,
    is_photo,
    label_from_path,
    natural_key,
    normalize_path,
    photo_ids,
    shared_folder,
)
from pawcast.errors import DataError, ImageError, NotFoundError

__all__ = ["EXTENSIONS", "FORMATS", "Photo", "extension", "natural_key", "read", "scan", "source_digest", "stamp"]

_Kind = Literal["folder", "zip", "csv"]


class Photo(NamedTuple):
    """One photo of a source.

    Attributes:
        id: Its path below the source's root without the extension: `cat.7`, `12`, `Cat/7`. With
            the extension if two photos would have the same id otherwise.
        name: Its path below the source's root: `cat.7.jpg`.
        member: The path that the source itself uses: `train/cat.7.jpg`.
        label: Index into the classes, or -1.
    """

    id: str
    name: str
    member: str
    label: int


def scan(path: str, classes: Sequence[str] = ()) -> list[Photo]:
    """List the photos of a source in natural order (`2` before `10`), whatever its own order.

    Args:
        path: A zip, a zip within a zip (`dogs-vs-cats.zip/train.zip`), a folder, or a CSV.
        classes: Names to look for in names of files and folders or in the CSV, ignoring case.
            Empty: no labels.

    Returns:
        The photos. Hidden files, and files without the extension of an image, are left out.

    Raises:
        NotFoundError: If nothing is there.
        DataError: If the path is none of these, holds no photo or a photo without a label, or
            isn't safe to read.
    """
    kind = _kind(path)
    if kind == "csv":
        labels = table.labels(path, classes)
        paths = {member: normalize_path(member) for member in labels}
    else:
        members = zip_archive.members(path) if kind == "zip" else folder.members(path)
        listed = [(member, name) for member in members if is_photo(name := normalize_path(member))]
        if not listed:
            _refuse_empty(path, members)
        if kind == "zip":
            zip_archive.check_photos(path, listed)
        paths = dict(listed)
        labels = {member: label_from_path(name, classes) if classes else -1 for member, name in paths.items()}
    root = shared_folder(paths.values(), classes)
    ordered = sorted(paths, key=natural_key)
    names = [paths[member][len(root) :] for member in ordered]
    photos = [
        Photo(escape_name(id_), escape_name(name), member, labels[member])
        for id_, name, member in zip(photo_ids(names), names, ordered, strict=True)
    ]
    if classes:
        _refuse_unlabelled(path, photos, classes)
    return photos


def read(path: str, photos: Sequence[Photo]) -> Iterator[bytes | ImageError]:
    """Yield each photo's bytes, or the reason why they can't be read; one in memory at a time.

    A photo larger than `vision.decode.MAX_BYTES` is never read or inflated beyond that size.
    """
    members = [photo.member for photo in photos]
    if (kind := _kind(path)) == "zip":
        yield from zip_archive.read(path, members)
    else:
        yield from folder.read(_folder_of(path, kind), members)


def source_digest(path: str, photos: Sequence[Photo]) -> str:
    """Return a sha256 over the photos' names and sizes, and a zip's checksums. Reads no photo.

    Copies of a source have the same digest. It changes when a photo is added, removed, renamed or
    gets another size.
    """
    members = [photo.member for photo in photos]
    if (kind := _kind(path)) == "zip":
        metadata = zip_archive.metadata(path, members)
    else:
        metadata = folder.metadata(_folder_of(path, kind), members)
    digest = hashlib.sha256()
    for photo, values in zip(photos, metadata, strict=True):
        digest.update(repr((photo.name, values)).encode(errors="backslashreplace"))
    return digest.hexdigest()


def stamp(path: str) -> tuple[int, ...] | None:
    """Return inode, size and modification time of a zip, or None for a source of many files."""
    return zip_archive.stamp(path) if _kind(path) == "zip" else None


def _folder_of(path: str, kind: _Kind) -> str:
    """Return the folder that a source's members are relative to: for a CSV, its own folder."""
    return str(Path(path).parent) if kind == "csv" else path


def _kind(path: str) -> _Kind:
    expected = "a zip or a folder of photos, or a CSV of file,label"
    source = Path(path)
    try:
        if source.is_dir():
            return "folder"
        if zip_archive.is_zip(path):
            return "zip"
        if source.is_file() and source.suffix.lower() == ".csv":
            return "csv"
        exists = source.exists()
        reason = ""
    except (OSError, ValueError) as error:  # A name that is too long, or a null character in it.
        exists, reason = False, f" ({error_reason(error)})"
    if not exists:
        received = f"{display_name(path)}{reason}"
        raise NotFoundError("There is no such file or folder", received=received, expected=expected)
    if not os.access(source, os.R_OK):
        raise DataError(f"{display_name(path)} can't be read", received="Permission denied", fix="make it readable")
    raise DataError(
        f"{display_name(path)} is neither a folder nor a whole zip",
        expected=expected,
        fix="download or copy it again",
    )


def _refuse_empty(path: str, members: Sequence[str]) -> None:
    zips = sorted((m for m in members if m.lower().endswith(".zip")), key=natural_key)
    if zips:
        raise DataError(
            f"{display_name(path)} holds no photos, only zips",
            received=", ".join(map(display_name, zips[:5])) + (", …" if len(zips) > 5 else ""),
            fix=f"name one of them, such as {display_name(path.rstrip('/'))}/{display_name(zips[0])}",
        )
    raise DataError(
        f"{display_name(path)} holds no photos",
        expected=f"files ending in {', '.join(EXTENSIONS)}",
        fix="name the zip or folder that holds them",
    )


def _refuse_unlabelled(path: str, photos: Sequence[Photo], classes: Sequence[str]) -> None:
    unlabelled = [photo.member for photo in photos if photo.label < 0]
    if unlabelled:
        raise DataError(
            f"{len(unlabelled):,} of {len(photos):,} photos in {display_name(path)} have no label",
            received=", ".join(map(display_name, unlabelled[:3])) + (", …" if len(unlabelled) > 3 else ""),
            expected=" or ".join(f"{name}.7.jpg" for name in classes)
            + f", or folders {'/, '.join(classes)}/, or a CSV of file,label",
            fix="rename or remove them, or correct --classes",
        )
