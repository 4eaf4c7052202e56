"""A CSV of labels, `file,label`, whose files lie below its own folder."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from posixpath import isfile

from pawcast.data.sources.labels import (
    EXTENSIONS,
    display_name,
    error_reason,
    fold_case,
    leads_out,
    normalize_path,
    refusal,
)
from pawcast.errors import NotFoundError, suggest

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
    found: dict[str, tuple[int, int]] = {}
    index = {str(i): i for i in range(len(classes))} | {fold_case(name): i for i, name in enumerate(classes)}
    for line, file, text in _rows(path, bool(classes)):
        where = f"{display_name(path)}, line {line:,}:"
        member = _member(Path(path).parent, file, where)
        label = index.get(fold_case(text.strip()), -1)
        if classes and label < 0:
            expected = f"{suggest(text.strip().lower(), classes)}, or 0 to {len(classes) - 1}"
            received = repr(display_name(text))
            raise refusal(where, "unknown label", received, expected, fix="correct the line, or --classes")
        first, first_line = found.setdefault(member, (label, line))
        if first != label:
            received = f"{display_name(file)}: {classes[first]} on line {first_line:,}, and {classes[label]}"
            raise refusal(where, "one photo has two labels", received, fix="remove the wrong line")
    if not found:
        raise refusal(path, "lists no photo", fix="add a line for each photo, or name their folder")
    return {member: label for member, (label, _) in found.items()}


def _rows(path: str, labelled: bool) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, file, label) of each line."""
    if Path(path).stat().st_size > MAX_FILE:
        raise refusal(path, "is too large", expected=f"at most {MAX_FILE >> 20} MiB", fix="split it")
    try:
        with open(path, encoding="utf-8-sig", newline="") as text:
            rows = csv.reader(text, strict=True)
            header = [column.strip().lower() for column in next(rows, [])]
            file = next((header.index(column) for column in _FILE_COLUMNS if column in header), -1)
            label = next((header.index(column) for column in _LABEL_COLUMNS if column in header), -1)
            if file < 0 or (labelled and label < 0):
                expected = "file,label (or image,label, or id,label) as the first line"
                raise refusal(path, "lacks a header", repr(display_name(",".join(header))), expected, fix="add it")
            for row in rows:
                if len(row) == len(header):
                    yield rows.line_num, row[file], row[label] if label >= 0 else ""
                elif any(row):
                    what = f"has {len(row)} columns on line {rows.line_num:,}"
                    fix = "put names with a comma in double quotes"
                    raise refusal(path, what, repr(display_name(",".join(row))), f"{len(header)}", fix=fix)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        received, fix = error_reason(error), "save it again as CSV in UTF-8"
        raise refusal(path, "can't be read as CSV", received, "UTF-8, commas", fix=fix) from None


def _member(root: Path, file: str, where: str) -> str:
    """Return a listed file's path below the root, with its extension."""
    name, shown = normalize_path(file), display_name(file)
    endings = ["", *EXTENSIONS, *map(str.upper, EXTENSIONS)]
    found = [name + ending for ending in endings if isfile(root / (name + ending))]
    if leads_out(file) or any(not (root / member).resolve().is_relative_to(root.resolve()) for member in found):
        fix = "put the CSV beside or above its photos"
        raise refusal(where, "the file is outside of the CSV's folder", repr(shown), fix=fix)
    if not found:
        expected, fix = f"a file below {display_name(str(root))}", "correct the line, or remove it"
        raise NotFoundError(f"{where} there is no such file", received=shown, expected=expected, fix=fix)
    if len(found) > 1 and name not in found:
        raise refusal(where, "several files have this name", shown, " or ".join(found), fix="write the extension")
    return found[0]
