"""What file names tell: whether a file is a photo, its class, its id, its order, how to show it."""

from __future__ import annotations

import ntpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from posixpath import splitext
from typing import Any

from pawcast.errors import DataError

FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
"""Extensions of photos, and the format that each one promises."""

EXTENSIONS = tuple(FORMATS)
_WORD = re.compile(r"([^\W\d_]+)")
_NUMBER = re.compile("([0-9]+)")
_UP_TO_NUMBER = re.compile(r"(.*?)[\W_]*(?:\d|$)", re.DOTALL)
# Line breaks, other control characters, and marks that change the direction of writing.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MAX_DISPLAYED = 100


def label_from_path(path: str, classes: Sequence[str]) -> int:
    """Return the class that a photo's file name gives, else its nearest folder, else -1.

    Args:
        path: The path below the source, with slashes.
        classes: Names of the classes. Letter case is ignored, and plurals count too.

    Example:
        >>> classes = ["cat", "dog"]
        >>> label_from_path("train/dog.12.jpg", classes), label_from_path("Cat/3.jpg", classes)
        (1, 0)
    """
    index = _class_index(tuple(classes))
    *folders, file = unicodedata.normalize("NFC", path).split("/")
    # A file is named after its class and a number. A folder must be the class's name alone,
    # otherwise `dogs-vs-cats/` would count as a class.
    matches = [pattern.match(splitext(file)[0]) for pattern in (_UP_TO_NUMBER, _WORD)]
    for name in (*(match.group(1) for match in matches if match), *reversed(folders)):
        if (label := index.get(fold_case(name))) is not None:
            return label
    return -1


@lru_cache(maxsize=16)
def _class_index(classes: tuple[str, ...]) -> dict[str, int]:
    singular = {fold_case(name): i for i, name in enumerate(classes)}
    return {f"{name}s": i for name, i in singular.items()} | singular


def natural_key(text: str) -> tuple[list[str | tuple[int, str]], str]:
    """Return a sort key that puts `2` before `10`. Different texts have different keys."""
    parts: list[Any] = _NUMBER.split(text)
    for i in range(1, len(parts), 2):
        # Numbers compare by length, then by digits: int() refuses very long ones.
        digits = parts[i].lstrip("0")
        parts[i] = (len(digits), digits)
    return parts, text


def fold_case(name: str) -> str:
    """Return a name without what some file systems ignore: letter case and the form of accents."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_hidden(path: str) -> bool:
    """Return whether a file or one of its folders is hidden: `.git`, `._cat.1.jpg`, `__MACOSX`."""
    return path.startswith((".", "__MACOSX")) or "/." in path or "/__MACOSX" in path


def leads_out(path: str) -> bool:
    """Return whether a path is absolute, has a drive, or leads above where it begins."""
    drive, rest = ntpath.splitdrive(path)
    return bool(drive) or rest.startswith(("/", "\\")) or ".." in rest.replace("\\", "/").split("/")


def is_photo(path: str) -> bool:
    """Return whether a path has the extension of a photo and isn't hidden."""
    return path.lower().endswith(EXTENSIONS) and not is_hidden(path)


def normalize_path(member: str) -> str:
    """Return a path with single slashes and without `.`; some zip tools write backslashes."""
    return "/".join(part for part in member.replace("\\", "/").split("/") if part not in ("", "."))


def extension(path: str) -> str:
    """Return a path's extension in lower case: `.jpg`."""
    return splitext(path)[1].lower()


def shared_folder(paths: Iterable[str], classes: Sequence[str]) -> str:
    """Return the folder that all photos share, with a slash at its end: `train/`.

    Ids leave it out, so that a zip of `train/` and the folder itself give the same ids. A folder
    that names a class stays part of the id.
    """
    parents = {path[: path.rfind("/") + 1] for path in paths}
    root = ""
    for level in zip(*(parent.split("/")[:-1] for parent in parents), strict=False):
        if len(set(level)) > 1 or label_from_path(f"{level[0]}/_", classes) >= 0:
            break
        root += f"{level[0]}/"
    return root


def photo_ids(names: Sequence[str]) -> list[str]:
    """Return the names without extension; those that would then be equal keep it."""
    ids = [splitext(name)[0] for name in names]
    # An id with its extension may equal another one without: a.jpg, a.png and a.jpg.png.
    while len(set(ids)) < len(set(names)):
        counts = Counter(ids)
        ids = [name if counts[id_] > 1 else id_ for id_, name in zip(ids, names, strict=True)]
    return ids


def escape_name(name: str) -> str:
    """Return a file name with unprintable characters and invalid UTF-8 as backslash escapes."""
    if name.isprintable():
        return name
    return _UNPRINTABLE.sub(lambda match: match.group().encode("unicode_escape", "surrogatepass").decode(), name)


def error_reason(error: Exception) -> object:
    """Return an error's text for a message, without errno and path."""
    return error.strerror if isinstance(error, OSError) else error


def display_name(name: str) -> str:
    """Return a file name for a message: escaped, on one line, a long one without its middle."""
    text = escape_name(name)
    half = _MAX_DISPLAYED // 2
    return text if len(text) <= _MAX_DISPLAYED else f"{text[:half]}…{text[-half:]}"


def refusal(path: str, what: str, received: object = None, expected: object = None, *, fix: str) -> DataError:
    """Return the error of a source, or of a line in it, that can't be used."""
    return DataError(f"{display_name(path)} {what}", received=received, expected=expected, fix=fix)
