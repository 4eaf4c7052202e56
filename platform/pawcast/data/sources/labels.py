"""What file names tell: whether a file is a photo, its class, its id, its order, how to show it."""

from __future__ import annotations

import ntpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pawcast.errors import DataError

FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
    ".heic": "HEIF",
    ".heif": "HEIF",
}
"""Extensions of photos, and the format that each one promises."""

EXTENSIONS = tuple(FORMATS)
_WORD = re.compile(r"([^\W\d_]+)")
_NUMBER = re.compile("([0-9]+)")
_UP_TO_NUMBER = re.compile(r"(.*?)[\W_]*(?:\d|$)", re.DOTALL)
# Line breaks, other control characters, and marks that change the direction of writing.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MAX_DISPLAYED = 100
_LITTER = {
    *("__macosx", ".ds_store", ".localized", ".fseventsd", ".spotlight-v100", ".trashes", ".temporaryitems"),
    *("icon\r", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("@eadir", "lost+found", ".directory", ".nomedia", ".picasa.ini", ".dropbox", ".thumbnails"),
    *(".git", ".gitignore", ".gitattributes", ".gitkeep", ".keep", ".svn", ".hg", ".dvc", ".dvcignore"),
    *(".ipynb_checkpoints", "__pycache__", ".cache", ".idea", ".vscode", ".venv"),
}
_LITTER_BEGINNINGS = ("._", "~$", ".nfs", ".fuse_hidden", ".~lock")
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def labels_from_paths(paths: Sequence[str], classes: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the class that each photo's path tells, and which of the paths tell two.

    The nearest folder that is named after a class decides, else the file's name. If every file's
    name tells a class and no two folders differ, the folder says nothing and the names decide.

    Args:
        paths: The paths below the source, with slashes.
        classes: Names of the classes. Letter case is ignored, and plurals count too.

    Returns:
        For each photo the index of its class or -1, and the indices of those photos whose file name
        says another class than the folder that decided.

    Example:
        >>> labels_from_paths(["train/dog.12.jpg", "Cat/3.jpg"], ["cat", "dog"])
        ([1, 0], [])
    """
    index = _class_index(tuple(classes))
    parts = [path.rpartition("/") for path in paths]
    by_file = [_label_from_file(file, index) for _, _, file in parts]
    folders = {folder: label_from_folder(folder, classes) for folder in {folder for folder, _, _ in parts}}
    by_folder = [folders[folder] for folder, _, _ in parts]
    if -1 not in by_file and len({*by_folder} - {-1}) < 2:
        return by_file, []
    pairs = list(zip(by_folder, by_file, strict=True))
    contradictions = [i for i, pair in enumerate(pairs) if -1 not in pair and pair[0] != pair[1]]
    return [folder if folder >= 0 else file for folder, file in pairs], contradictions


def _label_from_file(name: str, index: Mapping[str, int]) -> int:
    """Return the class that a file is named after, alone or with a number behind it; else -1."""
    stem = without_extension(unicodedata.normalize("NFC", name))
    for pattern in (_UP_TO_NUMBER, _WORD):
        if (match := pattern.match(stem)) and (label := index.get(fold_case(match[1]))) is not None:
            return label
    return -1


def label_from_folder(path: str, classes: Sequence[str]) -> int:
    """Return the class that the nearest of the folders in a path is named after, else -1."""
    # The whole name counts, otherwise `dogs-vs-cats/` would name a class.
    index = _class_index(tuple(classes))
    folders = reversed(unicodedata.normalize("NFC", path).split("/"))
    return next((index[name] for folder in folders if (name := fold_case(folder)) in index), -1)


def label_from_text(text: str, classes: Sequence[str]) -> int:
    """Return the class that a table's text names: `cat`, `Cats`, `0` or `0.0`; else -1."""
    name = fold_case(unicodedata.normalize("NFC", text.strip()))
    if name in (index := _class_index(tuple(classes))):
        return index[name]
    number = re.fullmatch(r"(\d{1,9})(\.0*)?", name)
    return int(number.group(1)) if number and int(number.group(1)) < len(classes) else -1


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
    """Return whether a file or one of its folders is hidden or litter."""
    folder, _, name = path.rpartition("/")
    return name.startswith(".") or is_litter(name) or (folder != "" and _is_hidden_folder(folder))


@lru_cache(maxsize=1_024)
def _is_hidden_folder(path: str) -> bool:
    return is_hidden(path)


def is_litter(name: str) -> bool:
    """Return whether systems and tools leave files of this name by themselves: `.DS_Store`."""
    return name.startswith(_LITTER_BEGINNINGS) or name.lower() in _LITTER


def leads_out(path: str) -> bool:
    """Return whether a path is absolute, has a drive, or leads above where it begins."""
    drive, rest = ntpath.splitdrive(path)
    return bool(drive) or rest.startswith(("/", "\\")) or ".." in rest.replace("\\", "/").split("/")


def normalize_path(member: str) -> str:
    """Return a path with single slashes and without `.`; some zip tools write backslashes."""
    path = member.replace("\\", "/")
    if "//" in path or "./" in path or path.startswith("/"):
        return "/".join(part for part in path.split("/") if part not in ("", "."))
    return path


def without_extension(path: str) -> str:
    """Return a path without its extension. The name `.jpg` has none."""
    stem, _, ending = path.rpartition(".")
    return stem if stem and ending and "/" not in ending and not stem.endswith("/") else path


def extension(path: str) -> str:
    """Return a path's extension in lower case: `.jpg`."""
    return path[len(without_extension(path)) :].lower()


def shared_folder(paths: Iterable[str], classes: Sequence[str]) -> str:
    """Return the folder that all photos share, with a slash at its end: `train/`.

    Ids leave it out, so that a zip of `train/` and the folder itself give the same ids. A folder
    that names a class stays part of the id.
    """
    parents = {path[: path.rfind("/") + 1] for path in paths}
    root = ""
    for level in zip(*(parent.split("/")[:-1] for parent in parents), strict=False):
        if len(set(level)) > 1 or label_from_folder(level[0], classes) >= 0:
            break
        root += f"{level[0]}/"
    return root


def split_folder(path: str) -> str:
    """Return the outermost folder in a path that is named after a split, or an empty text."""
    return _split_folder(path.rpartition("/")[0])


@lru_cache(maxsize=1_024)
def _split_folder(folders: str) -> str:
    return next((folder for folder in folders.split("/") if folder.lower() in _SPLITS), "")


def split_of(folder: str) -> str:
    """Return the split that a folder is named after: `train`, `val` or `test`."""
    return _SPLITS.get(folder.lower(), "")


def photo_ids(names: Sequence[str]) -> list[str]:
    """Return the names without extension; those that would then be equal keep it."""
    ids = [without_extension(name) for name in names]
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
    shown = None if received is None else escape_name(str(received))
    return DataError(f"{display_name(path)} {what}", received=shown, expected=expected, fix=fix)
