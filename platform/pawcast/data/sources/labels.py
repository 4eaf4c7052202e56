"""What names say: which files are photos, which class they show, in which order they come, what they are called."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

FORMATS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF", ".tif": "TIFF",
    ".tiff": "TIFF",
}  # fmt: skip
"""Extensions of photos, and the format that each one promises."""

EXTENSIONS = tuple(FORMATS)
_WORD = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile("([0-9]+)")
_TO_NUMBER = re.compile(r"(.*?)[\W_]*(?:\d|$)", re.DOTALL)
# Line breaks, other control characters, and marks that turn the direction of writing: none may reach a line of output.
_UNWRITABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SHOWN = 100


def label_of(path: str, classes: Sequence[str]) -> int:
    """Return the class of a photo by its file name, else by its nearest folder that names one, else -1.

    Args:
        path: Below its source, with slashes.
        classes: Their names; the case aside, and in the plural too.

    Example:
        >>> label_of("train/dog.12.jpg", ["cat", "dog"]), label_of("PetImages/Cat/3.jpg", ["cat", "dog"])
        (1, 0)
    """
    index = _index(tuple(classes))
    for name in _names(unicodedata.normalize("NFC", path)):
        if (label := index.get(casefolded(name))) is not None:
            return label
    return -1


def _names(path: str) -> Iterator[str]:
    """Yield what may be a class's name, the surest first."""
    *folders, file = path.split("/")
    # A file is named by its class and a number; a folder by its class alone, or `dogs-vs-cats/` would be one.
    until = _TO_NUMBER.match(without_extension(file))
    yield until.group(1) if until else ""
    word = _WORD.match(file)
    yield word.group() if word else ""
    yield from reversed(folders)


@lru_cache(maxsize=16)
def _index(classes: tuple[str, ...]) -> dict[str, int]:
    index = {casefolded(name): i for i, name in enumerate(classes)}
    return {f"{name}s": i for name, i in index.items()} | index


def natural_key(text: str) -> tuple[list[str | tuple[int, str]], str]:
    """A sort key that puts `2` before `10`, and every text in a place of its own."""
    parts: list[Any] = _NUMBER.split(text)
    for i in range(1, len(parts), 2):
        # Numbers by their length, then their digits: int() refuses very long ones.
        digits = parts[i].lstrip("0")
        parts[i] = (len(digits), digits)
    return parts, text


def casefolded(name: str) -> str:
    """Return a name as far as it tells two things apart on every system: not by letter case or form of accents."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder that it is in, is none of the user's: `.git`, `._cat.1.jpg`, `__MACOSX`."""
    return path.startswith((".", "__MACOSX")) or "/." in path or "/__MACOSX" in path


def is_photo(path: str) -> bool:
    """Whether a path is a photo's, by its extension, and not hidden."""
    return path.lower().endswith(EXTENSIONS) and not is_hidden(path)


def relative_path(member: str) -> str:
    """Return a member's path below its source, with slashes. Some zippers on Windows write backslashes."""
    path = member.replace("\\", "/")
    framed = f"/{path}/"
    if "//" in framed or "/./" in framed:
        return "/".join(part for part in path.split("/") if part not in ("", "."))
    return path


def extension(file: str) -> str:
    """Return a file's extension, in small letters: `.jpg`, or nothing for `.jpg` and `jpg.`."""
    return file[len(without_extension(file)) :].lower()


def without_extension(file: str) -> str:
    """Return a file's name, or a path, without the extension."""
    stem, _, ending = file.rpartition(".")
    return stem if stem and ending and stem[-1] != "/" and "/" not in ending else file


def common_root(paths: Iterable[str], classes: Sequence[str]) -> str:
    """The folders that all photos share, so that a zip of `train/` and the folder itself give the same ids: `train/`.

    A folder that names a class is part of the id even if there is no other.
    """
    parents = {path[: path.rfind("/") + 1] for path in paths}
    root = ""
    for parts in zip(*(parent.split("/")[:-1] for parent in parents), strict=False):
        if len(set(parts)) > 1 or label_of(f"{parts[0]}/_", classes) >= 0:
            break
        root += f"{parts[0]}/"
    return root


def ids_of(names: Sequence[str]) -> list[str]:
    """Return names without their extension; where two would then be the same, all names as they are."""
    stems = [without_extension(name) for name in names]
    return stems if len(set(stems)) == len(stems) else list(names)


def printable(name: str) -> str:
    """Return a file name as text that can be written down, even if it isn't UTF-8 on the disk or holds a line break."""
    if name.isprintable():
        return name
    return _UNWRITABLE.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode(), name)


def display_name(name: str) -> str:
    """Return a file name for a message: on one line, and the middle left out if it is very long."""
    text = printable(name)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 2 :]}"
