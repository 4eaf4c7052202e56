"""A CSV that says which file shows what: `file,label`, with files below its own folder."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NoReturn

from pawcast.data.sources.labels import EXTENSIONS, casefolded, display_name
from pawcast.errors import DataError, NotFoundError, suggest

MAX_FILE = 256 * 2**20
_FILE = ("file", "image", "id", "filename", "path")
_LABEL = ("label", "class")


def labels(path: str, classes: Sequence[str]) -> dict[str, int]:
    """Return each listed file's class: an index, or -1 if no classes are asked for.

    The header names a column for the file and one for its label, among any others. A label is a class's name, the
    case aside, or its index; a file may lack its extension.

    Raises:
        DataError: For a CSV that can't be read, names an unknown class or a file outside of its folder, or gives
            one file two labels.
        NotFoundError: If a file isn't there.
    """
    found: dict[str, int] = {}
    lines: dict[str, int] = {}
    root = Path(path).parent
    inside = root.resolve()
    index = {str(i): i for i in range(len(classes))} | {casefolded(name): i for i, name in enumerate(classes)}
    for line, file, label in _rows(path, bool(classes)):
        where = f"{display_name(path)}, line {line:,}"
        if file.startswith(("/", "\\")) or ":" in file[1:2] or ".." in PurePosixPath(file.replace("\\", "/")).parts:
            _refuse_outside(where, file)
        member = _member(root, file, where)
        if not (root / member).resolve().is_relative_to(inside):
            _refuse_outside(where, file)
        known = index.get(casefolded(label.strip()), -1)
        if classes and known < 0:
            raise DataError(
                f"{where}: unknown label", received=repr(display_name(label)), expected=_near(label, classes)
            )
        if found.setdefault(member, known) != known:
            raise DataError(
                f"{where}: one photo has two labels",
                received=f"{display_name(file)}: {classes[found[member]]} on line {lines[member]:,}, and {classes[known]}",
                fix="remove the wrong line",
            )
        lines.setdefault(member, line)
    if not found:
        raise DataError(f"{display_name(path)} lists no photo", expected="a line for each photo below the header")
    return found


def _rows(path: str, labelled: bool) -> Iterator[tuple[int, str, str]]:
    """Yield line number, file and label."""
    try:
        if Path(path).stat().st_size > MAX_FILE:
            raise DataError(f"{display_name(path)} is too large", expected=f"at most {MAX_FILE >> 20} MiB")
        with open(path, encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            file = next((header.index(name) for name in _FILE if name in header), -1)
            label = next((header.index(name) for name in _LABEL if name in header), -1)
            if file < 0 or (labelled and label < 0):
                raise DataError(
                    f"{display_name(path)} lacks a header",
                    received=repr(display_name(",".join(header))),
                    expected="file,label (or image,label, or id,label) as the first line",
                )
            for row in reader:
                if not any(row):
                    continue
                if len(row) != len(header):
                    raise DataError(
                        f"{display_name(path)}, line {reader.line_num:,}: wrong number of columns",
                        received=repr(display_name(",".join(row))),
                        expected=f"{len(header)}, as in the header",
                        fix="put names with a comma in double quotes",
                    )
                yield reader.line_num, row[file], row[label] if label >= 0 else ""
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"{display_name(path)} can't be read as CSV", received=reason, expected="UTF-8, commas"
        ) from None


def _member(root: Path, file: str, where: str) -> str:
    """Return the path below the root of a listed file, whose extension may be missing."""
    name = PurePosixPath(file.replace("\\", "/")).as_posix()
    try:
        if (root / name).is_file():
            return name
        endings = [ending for lower in EXTENSIONS for ending in (lower, lower.upper())]
        candidates = [name + ending for ending in endings if (root / (name + ending)).is_file()]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{where}: no file's name", received=f"{display_name(file)!r} ({reason})") from None
    if not candidates:
        raise NotFoundError(
            f"{where}: there is no such file", received=display_name(file), expected=f"below {display_name(str(root))}"
        )
    if len(candidates) > 1:
        raise DataError(
            f"{where}: the extension is needed", received=display_name(file), expected=" or ".join(candidates)
        )
    return candidates[0]


def _near(label: str, classes: Sequence[str]) -> str:
    return f"{suggest(label.strip().lower(), classes)}, or 0 to {len(classes) - 1}"


def _refuse_outside(where: str, file: str) -> NoReturn:
    raise DataError(
        f"{where}: the file is outside of the CSV's folder",
        received=repr(display_name(file)),
        expected="a path below the folder that the CSV is in",
        fix="put the CSV beside or above its photos",
    )
