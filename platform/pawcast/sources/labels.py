"""What names say: which files are photos, which class they show, in which order they come, what they are called."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

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


def label_of(member: str, classes: Sequence[str]) -> int:
    """Return the class of a photo by its file name, else by its nearest folder that names one, else -1.

    Example:
        >>> label_of("train/dog.12.jpg", ["cat", "dog"]), label_of("PetImages/Cat/3.jpg", ["cat", "dog"])
        (1, 0)
    """
    *folders, file = relative(unicodedata.normalize("NFC", member))
    index = _index(tuple(classes))
    # A file is named by its class and a number; a folder by its class alone, or `dogs-vs-cats/` would be one.
    until = _TO_NUMBER.match(without_extension(file))
    word = _WORD.match(file)
    for name in (until.group(1) if until else "", word.group() if word else "", *reversed(folders)):
        form = folded(name)
        for known in (form, form.removesuffix("s")):
            if known in index:
                return index[known]
    return -1


@lru_cache(maxsize=16)
def _index(classes: tuple[str, ...]) -> dict[str, int]:
    return {folded(name): i for i, name in enumerate(classes)}


def natural(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sort key that puts `2` before `10`, and every text in a place of its own."""
    parts = [(1, 0, part) for part in _NUMBER.split(text)]
    for i in range(1, len(parts), 2):
        # Numbers by their length, then their digits: int() refuses very long ones.
        digits = parts[i][2].lstrip("0")
        parts[i] = (0, len(digits), digits)
    return parts, text


def folded(name: str) -> str:
    """Return a name as far as it tells two things apart on every system: not by letter case or form of accents."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_hidden(part: str) -> bool:
    """Whether a file or folder of this name is none of the user's: `.git`, `._cat.1.jpg`, `__MACOSX`."""
    return part.startswith((".", "__MACOSX"))


def is_photo(member: str) -> bool:
    """Whether a path is a photo's, by its extension, and not hidden."""
    parts = relative(member)
    return extension(parts[-1]) in EXTENSIONS and not any(map(is_hidden, parts))


def relative(member: str) -> tuple[str, ...]:
    """Return the parts of a member's path below its source. Some zippers on Windows write backslashes."""
    parts = member.replace("\\", "/").split("/")
    if "" in parts or "." in parts:
        parts = [part for part in parts if part not in ("", ".")]
    return tuple(parts) or ("",)


def extension(file: str) -> str:
    """Return a file's extension, in small letters: `.jpg`, or nothing for `.jpg` and `jpg.`."""
    return file[len(without_extension(file)) :].lower()


def without_extension(file: str) -> str:
    """Return a file's name, or a path, without the extension."""
    dot = file.rfind(".")
    return file[:dot] if file.rfind("/") + 1 < dot < len(file) - 1 else file


def common_root(members: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """The folders that all photos share, so that a zip of `train/` and the folder itself give the same ids.

    A folder that names a class is part of the id even if there is no other.
    """
    parents = {relative(member)[:-1] for member in members}
    shared = []
    for parts in zip(*parents, strict=False):
        if len(set(parts)) > 1 or label_of(f"{parts[0]}/_", classes) >= 0:
            break
        shared.append(parts[0])
    return tuple(shared)


def ids_of(names: Sequence[str]) -> list[str]:
    """Return names without their extension; where two would then be the same, all names as they are."""
    stems = [without_extension(name) for name in names]
    return stems if len(set(stems)) == len(stems) else list(names)


def written(name: str) -> str:
    """Return a file name as text that can be written down, even if it isn't UTF-8 on the disk or holds a line break."""
    return _UNWRITABLE.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode(), name)


def shown(name: str) -> str:
    """Return a file name for a message: on one line, and the middle left out if it is very long."""
    text = written(name)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 2 :]}"
