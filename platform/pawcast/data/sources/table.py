"""A CSV of labels, `file,label`, whose files lie below its own folder."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NoReturn

from pawcast.data.sources.labels import EXTENSIONS, display_name, error_reason, fold_case
from pawcast.errors import DataError, NotFoundError, suggest

MAX_FILE = 256 * 2**20
_FILE_COLUMNS = ("file", "image", "id", "filename", "path")
_LABEL_COLUMNS = ("label", "class")


def labels(path: str, classes: Sequence[str]) -> dict[str, int]:
    """Return the label of each listed file, by its path below the CSV's folder.

    The header names a column of files and a column of labels, among any others. A label is the name
    of a class, ignoring case, or its index. A file may lack its extension.

    Args:
        path: The CSV, at most `MAX_FILE` bytes.
        classes: Names of the classes. Empty: every label is -1.

    Raises:
        DataError: If the CSV can't be read, names an unknown class or a file outside of its
            folder, or gives one file two labels.
        NotFoundError: If a listed file is missing.
    """
    labels: dict[str, int] = {}
    lines: dict[str, int] = {}
    root = Path(path).parent
    resolved_root = root.resolve()
    index = {str(i): i for i in range(len(classes))} | {fold_case(name): i for i, name in enumerate(classes)}
    for line, file, label_text in _rows(path, bool(classes)):
        where = f"{display_name(path)}, line {line:,}"
        if file.startswith(("/", "\\")) or ":" in file[1:2] or ".." in PurePosixPath(file.replace("\\", "/")).parts:
            _refuse_outside(where, file)
        member = _member(root, file, where)
        if not (root / member).resolve().is_relative_to(resolved_root):
            _refuse_outside(where, file)
        label = index.get(fold_case(label_text.strip()), -1)
        if classes and label < 0:
            raise DataError(
                f"{where}: unknown label",
                received=repr(display_name(label_text)),
                expected=f"{suggest(label_text.strip().lower(), classes)}, or 0 to {len(classes) - 1}",
                fix="correct the line, or --classes",
            )
        if labels.setdefault(member, label) != label:
            first = f"{classes[labels[member]]} on line {lines[member]:,}"
            raise DataError(
                f"{where}: one photo has two labels",
                received=f"{display_name(file)}: {first}, and {classes[label]}",
                fix="remove the wrong line",
            )
        lines.setdefault(member, line)
    if not labels:
        raise DataError(
            f"{display_name(path)} lists no photo",
            expected="a line for each photo below the header",
            fix="add the photos to the CSV, or name their folder instead",
        )
    return labels


def _rows(path: str, labelled: bool) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, file, label) of each line."""
    try:
        if Path(path).stat().st_size > MAX_FILE:
            raise DataError(
                f"{display_name(path)} is too large",
                expected=f"at most {MAX_FILE >> 20} MiB",
                fix="split it, or put photos into a folder for each class",
            )
        with open(path, encoding="utf-8-sig", newline="") as text:
            reader = csv.reader(text, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            file = next((header.index(name) for name in _FILE_COLUMNS if name in header), -1)
            label = next((header.index(name) for name in _LABEL_COLUMNS if name in header), -1)
            if file < 0 or (labelled and label < 0):
                raise DataError(
                    f"{display_name(path)} lacks a header",
                    received=repr(display_name(",".join(header))),
                    expected="file,label (or image,label, or id,label) as the first line",
                    fix="add it",
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
        raise DataError(
            f"{display_name(path)} can't be read as CSV",
            received=error_reason(error),
            expected="UTF-8, commas",
            fix="save it again as CSV in UTF-8",
        ) from None


def _member(root: Path, file: str, where: str) -> str:
    """Return a listed file's path below the root, with its extension."""
    name = PurePosixPath(file.replace("\\", "/")).as_posix()
    try:
        if (root / name).is_file():
            return name
        endings = [ending for lower in EXTENSIONS for ending in (lower, lower.upper())]
        candidates = [name + ending for ending in endings if (root / (name + ending)).is_file()]
    except (OSError, ValueError) as error:
        received = f"{display_name(file)!r} ({error_reason(error)})"
        raise DataError(f"{where}: not a file name", received=received, fix="correct the line") from None
    if not candidates:
        raise NotFoundError(
            f"{where}: there is no such file",
            received=display_name(file),
            expected=f"a file below {display_name(str(root))}",
            fix="correct the line, or remove it",
        )
    if len(candidates) > 1:
        raise DataError(
            f"{where}: several files have this name",
            received=display_name(file),
            expected=" or ".join(candidates),
            fix="write the extension",
        )
    return candidates[0]


def _refuse_outside(where: str, file: str) -> NoReturn:
    raise DataError(
        f"{where}: the file is outside of the CSV's folder",
        received=repr(display_name(file)),
        expected="a path below the folder that the CSV is in",
        fix="put the CSV beside or above its photos",
    )
