"""Where photos come from: a zip as Kaggle makes it, a folder, or an ImageFolder tree. Read only, never unpacked.

A photo's label comes from its name (`cat.7.jpg`) or, failing that, from its folder (`Cat/7.jpg`).
"""

from __future__ import annotations

import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pawcast.errors import DataError, ImageError, NotFoundError
from pawcast.images import MAX_BYTES

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_WORD = re.compile(r"[A-Za-z]+")


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
        path: A zip or a folder.
        classes: Names to look for in file and folder names, the case aside. Empty: no labels.

    Returns:
        The photos. Files that aren't images by their extension, and hidden ones, are left out.

    Raises:
        NotFoundError: If nothing is there.
        DataError: If it is neither folder nor zip, holds no photo, or holds a photo that fits no class.
    """
    members = _zip_members(path) if _is_zip(path) else _folder_members(path)
    wanted = sorted((m for m in members if _is_photo(m)), key=natural)
    if not wanted:
        raise DataError(f"{path} holds no photo", expected=f"files ending in {', '.join(EXTENSIONS)}")
    root = _common_root(wanted, classes)
    names = [_relative(member).relative_to(root).as_posix() for member in wanted]
    stems = [str(PurePosixPath(name).with_suffix("")) for name in names]
    # Where two photos share a stem, all keep their extension: nothing else is sure to tell them apart.
    ids = stems if len(set(stems)) == len(stems) else names
    photos = [
        Photo(_written(id_), _written(name), member, label_of(member, classes))
        for id_, name, member in zip(ids, names, wanted, strict=True)
    ]
    if classes:
        _refuse_unlabelled(path, photos, classes)
    return photos


def read(path: str, photos: Sequence[Photo]) -> Iterator[bytes | ImageError]:
    """Yield each photo's bytes, or the reason why they can't be had; one photo in memory at a time.

    Photos over `images.MAX_BYTES` are refused on what the archive says, and not inflated further than that.
    """
    if not _is_zip(path):
        for photo in photos:
            file = Path(path) / photo.member
            try:
                too_large = file.stat().st_size > MAX_BYTES
                yield ImageError(f"larger than {MAX_BYTES >> 20} MiB") if too_large else file.read_bytes()
            except OSError as error:
                yield ImageError(f"can't be read ({error.strerror})")
        return
    archive = _open_zip(path)
    for photo in photos:
        try:
            with archive.open(photo.member) as member:
                data = member.read(MAX_BYTES + 1)
            yield ImageError(f"larger than {MAX_BYTES >> 20} MiB") if len(data) > MAX_BYTES else data
        except (
            RuntimeError,
            NotImplementedError,
            OSError,
            EOFError,
            ValueError,
            zipfile.BadZipFile,
        ) as error:
            yield ImageError(f"can't be read from the archive ({error})")
        except (zlib.error, lzma.LZMAError) as error:
            yield ImageError(f"can't be inflated ({error})")


def label_of(member: str, classes: Sequence[str]) -> int:
    """Return the class of a photo by its file name, else by its nearest folder that names one, else -1.

    Example:
        >>> label_of("train/dog.12.jpg", ["cat", "dog"]), label_of("PetImages/Cat/3.jpg", ["cat", "dog"])
        (1, 0)
    """
    path = _relative(member)
    index = {name.lower(): i for i, name in enumerate(classes)}
    # A file is named by its class and a number; a folder by its class alone, or `dogs-vs-cats/` would be one.
    word = _WORD.match(path.name)
    for name in (word.group() if word else "", *reversed(path.parts[:-1])):
        for form in (name.lower(), name.lower().removesuffix("s")):
            if form in index:
                return index[form]
    return -1


def natural(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key that puts `2` before `10`, and every text in a place of its own."""
    parts = []
    for part in re.split(r"([0-9]+)", text):
        digits = part.lstrip("0")
        # Numbers by their length, then their digits: int() refuses very long ones.
        parts.append((0, len(digits), digits) if part[:1].isdecimal() and part.isascii() else (1, 0, part))
    return parts, text


def _is_zip(path: str) -> bool:
    place = Path(path)
    if not place.exists():
        raise NotFoundError("There is no such file or folder", received=path, expected="a zip or a folder of photos")
    if place.is_dir():
        return False
    if not zipfile.is_zipfile(place):
        raise DataError(f"{path} is neither a folder nor a whole zip", fix="download or copy it again")
    return True


@lru_cache(maxsize=4)
def _open_zip(path: str) -> zipfile.ZipFile:
    # Reading the directory of 25,000 members takes a while; a worker process reads the same archive many times.
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise DataError(f"{path} can't be opened as a zip", received=error) from None


def _zip_members(path: str) -> list[str]:
    infos = _open_zip(path).infolist()
    names = [info.filename for info in infos if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16)]
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise DataError(f"{path} holds two members of one name", received=repr(twice))
    return names


def _folder_members(path: str) -> list[str]:
    root = Path(path)
    return [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and not p.is_symlink()]


def _is_photo(member: str) -> bool:
    path = _relative(member)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in EXTENSIONS and not hidden


def _common_root(members: Sequence[str], classes: Sequence[str]) -> PurePosixPath:
    """The folders that all photos share, so that a zip of `train/` and the folder itself give the same ids.

    A folder that names a class is part of the id even if there is no other.
    """
    parents = [_relative(member).parent.parts for member in members]
    shared = []
    for parts in zip(*parents, strict=False):
        if len(set(parts)) > 1 or label_of(f"{parts[0]}/_", classes) >= 0:
            break
        shared.append(parts[0])
    return PurePosixPath(*shared)


def _relative(member: str) -> PurePosixPath:
    # Some zippers on Windows write backslashes.
    return PurePosixPath(member.replace("\\", "/").lstrip("/"))


def _written(name: str) -> str:
    """Return a file name as text that can be written down, even if it isn't UTF-8 on the disk."""
    return name.encode("utf-8", "backslashreplace").decode()


def _refuse_unlabelled(path: str, photos: Sequence[Photo], classes: Sequence[str]) -> None:
    nameless = [photo.member for photo in photos if photo.label < 0]
    if nameless:
        shown = ", ".join(nameless[:3]) + (", …" if len(nameless) > 3 else "")
        raise DataError(
            f"{len(nameless):,} of {len(photos):,} photos in {path} have no label",
            received=shown,
            expected=" or ".join(f"{name}.7.jpg" for name in classes) + f", or folders {'/, '.join(classes)}/",
        )
