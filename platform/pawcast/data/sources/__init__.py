"""Where photos come from: a zip, a folder, or a CSV of `file,label`. Read only, never unpacked, nothing written.

A photo's label comes from the CSV; without one from its name (`cat.7.jpg`) or, failing that, from its folder
(`Cat/7.jpg`). A source is untrusted. `scan` refuses it as a whole, or `read` gives a reason for one photo:

    threat                                                   what happens
    names with `..`, from the root or with a drive           the archive is refused
    two photos of one name, letter case and accents aside    the archive is refused
    more than 1,000,000 members, a directory over 256 MiB    refused before the directory is read
    members whose bytes overlap, or lie outside the file     the archive is refused
    photos that inflate more than 100-fold, over 1 GiB       the archive is refused
    all photos encrypted, or compressed in another way       the archive is refused
    a truncated or otherwise damaged directory               the archive is refused
    symbolic links, FIFOs, devices, hidden files             left out, and never opened
    one photo encrypted, or neither stored nor deflated      that photo's reason
    a photo over 32 MiB, whatever the directory says         that photo's reason; not inflated further
    a wrong checksum, a damaged or shortened member          that photo's reason
    a file that vanished, or turned into a link or FIFO      that photo's reason
    CSV rows with `..`, from the root, or through links      the CSV is refused

Bytes in front of a zip are ignored, as unzip does. Reading takes one photo and its compressed bytes at a time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pawcast.data.sources import folder, table, zip_archive
from pawcast.data.sources.labels import (
    EXTENSIONS,
    FORMATS,
    common_root,
    display_name,
    extension,
    ids_of,
    is_photo,
    label_of,
    natural_key,
    printable,
    relative_path,
)
from pawcast.errors import DataError, ImageError, NotFoundError

__all__ = ["EXTENSIONS", "FORMATS", "Photo", "extension", "fingerprint", "label_of", "natural", "read", "scan"]


class Photo(NamedTuple):
    """One photo of a source.

    Attributes:
        id: Its path below the source's root without the extension: `cat.7`, `12`, `Cat/7`; with it if
            two photos would have the same.
        name: Its path below the source's root: `cat.7.jpg`.
        member: The path that the source itself knows it by: `train/cat.7.jpg`.
        label: Index into the classes, or -1.
    """

    id: str
    name: str
    member: str
    label: int


def scan(path: str, classes: Sequence[str] = ()) -> list[Photo]:
    """List a source's photos in natural order (`2` before `10`), whatever order it stores them in.

    Args:
        path: A zip, a zip within a zip (`dogs-vs-cats.zip/train.zip`), a folder, or a CSV beside its photos.
        classes: Names to look for in file and folder names or in the CSV, the case aside. Empty: no labels.

    Returns:
        The photos. Files that aren't images by their extension, and hidden ones, are left out.

    Raises:
        NotFoundError: If nothing is there.
        DataError: If it is none of these, holds no photo, holds a photo that fits no class, or isn't to be
            trusted (see above).
    """
    kind = _kind(path)
    if kind is table:
        labels = table.labels(path, classes)
        paths = {member: relative_path(member) for member in labels}
    else:
        members = zip_archive.members(path) if kind is zip_archive else folder.members(path)
        wanted = [(member, below) for member in members if is_photo(below := relative_path(member))]
        if not wanted:
            _refuse_empty(path, members)
        if kind is zip_archive:
            zip_archive.check(path, wanted)
        paths = dict(wanted)
        labels = {member: label_of(below, classes) if classes else -1 for member, below in wanted}
    root = common_root(paths.values(), classes)
    in_order = sorted(paths, key=natural_key)
    names = [paths[member][len(root) :] for member in in_order]
    photos = [
        Photo(printable(id_), printable(name), member, labels[member])
        for id_, name, member in zip(ids_of(names), names, in_order, strict=True)
    ]
    if classes:
        _refuse_unlabelled(path, photos, classes)
    return photos


def read(path: str, photos: Sequence[Photo]) -> Iterator[bytes | ImageError]:
    """Yield each photo's bytes, or the reason why they can't be had; one photo in memory at a time.

    Photos over `images.MAX_BYTES` are refused on what the archive says, and not inflated further than that.
    """
    members = [photo.member for photo in photos]
    kind = _kind(path)
    if kind is zip_archive:
        yield from zip_archive.read(path, members)
    else:
        yield from folder.read(str(Path(path).parent) if kind is table else path, members)


def source_digest(path: str, photos: Sequence[Photo]) -> str:
    """Return a sha256 over the photos' names and sizes, and in a zip their checksums, without reading a photo.

    The same photos elsewhere have the same fingerprint; a photo added, removed or renamed, or one of another
    size, gives another.
    """
    members = [photo.member for photo in photos]
    kind = _kind(path)
    if kind is zip_archive:
        facts = zip_archive.facts(path, members)
    else:
        facts = folder.facts(str(Path(path).parent) if kind is table else path, members)
    digest = hashlib.sha256()
    for photo, about in zip(photos, facts, strict=True):
        digest.update(repr((photo.name, about)).encode(errors="backslashreplace"))
    return digest.hexdigest()


def stamp(path: str) -> tuple[int, ...] | None:
    """Return what changes when an archive is replaced or written to; None for a source of many files."""
    return zip_archive.stamp(path) if _kind(path) is zip_archive else None


def _kind(path: str) -> object:
    place = Path(path)
    try:
        if place.is_dir():
            return folder
        if zip_archive.is_zip(path):
            return zip_archive
        if place.is_file() and place.suffix.lower() == ".csv":
            return table
        exists = place.exists()
    except (OSError, ValueError) as error:  # A name that is too long, a null character.
        reason = error.strerror if isinstance(error, OSError) else error
        raise NotFoundError("There is no such file or folder", received=f"{display_name(path)} ({reason})") from None
    if not exists:
        raise NotFoundError(
            "There is no such file or folder",
            received=display_name(path),
            expected="a zip or a folder of photos, or a CSV of file,label",
        )
    if not os.access(place, os.R_OK):
        raise DataError(f"{display_name(path)} can't be read", received="Permission denied", fix="make it readable")
    raise DataError(
        f"{display_name(path)} is neither a folder nor a whole zip",
        expected="a zip or a folder of photos, or a CSV of file,label",
        fix="download or copy it again",
    )


def _refuse_empty(path: str, members: Sequence[str]) -> None:
    zips = sorted((m for m in members if m.lower().endswith(".zip")), key=natural_key)
    if zips:
        raise DataError(
            f"{display_name(path)} holds no photo, but zips",
            received=", ".join(map(display_name, zips[:5])) + (", …" if len(zips) > 5 else ""),
            fix=f"name one of them, such as {display_name(path.rstrip('/'))}/{display_name(zips[0])}",
        )
    raise DataError(f"{display_name(path)} holds no photo", expected=f"files ending in {', '.join(EXTENSIONS)}")


def _refuse_unlabelled(path: str, photos: Sequence[Photo], classes: Sequence[str]) -> None:
    nameless = [photo.member for photo in photos if photo.label < 0]
    if nameless:
        raise DataError(
            f"{len(nameless):,} of {len(photos):,} photos in {display_name(path)} have no label",
            received=", ".join(map(display_name, nameless[:3])) + (", …" if len(nameless) > 3 else ""),
            expected=" or ".join(f"{name}.7.jpg" for name in classes)
            + f", or folders {'/, '.join(classes)}/, or a CSV of file,label",
        )
