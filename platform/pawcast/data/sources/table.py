"""A table of labels, such as `file,label`, as people and programs write it."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from posixpath import isfile
from typing import NamedTuple

from pawcast.data.sources import labels
from pawcast.data.sources.container import Entry
from pawcast.data.sources.folder import Folder
from pawcast.data.sources.labels import EXTENSIONS as PHOTO_EXTENSIONS
from pawcast.data.sources.labels import display_name, error_reason, leads_out, normalize_path, refusal
from pawcast.errors import DataError, NotFoundError, suggest

EXTENSIONS = (".csv", ".tsv")
MAX_FILE = 256 * 2**20
# Names of columns in lower case, letters and digits only; the most telling first.
FILE_COLUMNS = (
    *("file", "filename", "filepath", "files", "filenames", "filepaths", "path", "paths"),
    *("image", "imagename", "imagefile", "imagepath", "images", "img", "imgname", "imgpath", "photo", "picture"),
    *("imageid", "imgid", "photoid", "id", "ids", "name"),
)
LABEL_COLUMNS = ("label", "labels", "class", "classes", "classname", "category", "target", "y")
_DELIMITERS = ",;\t|"


class Table(NamedTuple):
    """A table of labels.

    Attributes:
        path: For messages.
        header: The names of its columns.
        rows: Line number and cells of each row below the header that isn't empty.
    """

    path: str
    header: list[str]
    rows: list[tuple[int, list[str]]]

    def lists_photos(self, files: Files, label_column: str) -> bool:
        """Return whether it has a column of labels, and its first row names a photo."""
        return bool(self.rows) and self._label_column(label_column) >= 0 and any(map(files.find, self.rows[0][1]))

    def photos(self, files: Files, classes: Sequence[str], label_column: str, group: str) -> list[Entry]:
        """Return every photo that the table lists.

        Args:
            files: Where they are.
            classes: Names of the classes. Empty: labels aren't looked at.
            label_column: The column of labels. Empty: `label`, `class` and the like, or the only
                other column.
            group: The column of groups, if there is one of this name.

        Raises:
            DataError: If a column is missing, a label is unknown, a photo has two labels, or a file
                is outside of the source or ambiguous.
            NotFoundError: If a listed file is missing.
        """
        file, label = self._file_column(files), self._label_column(label_column)
        grouped = find_column(self.header, (), group)
        header = repr(display_name(",".join(self.header)))
        if classes and label < 0 and label_column:
            raise refusal(self.path, f"has no column {display_name(label_column)}", header, fix="name one of these")
        if file < 0 or (classes and label < 0):
            expected = "file,label (or image,label, or id,label) as the first line"
            fix = "add it, or name the column of labels with --label-column"
            raise refusal(self.path, "lacks a header", header, expected, fix=fix)
        found: dict[str, tuple[Entry, int]] = {}
        for line, row in self.rows:
            where = f"{display_name(self.path)}, line {line:,}:"
            member = _member(files, row[file], where)
            text = row[label] if classes else ""
            if classes and labels.label_from_text(text, classes) < 0:
                raise unknown_label(where, text, classes)
            entry = Entry(member, normalize_path(member), label=text, group=row[grouped] if grouped >= 0 else "")
            first, first_line = found.setdefault(member, (entry, line))
            if classes and labels.label_from_text(first.label, classes) != labels.label_from_text(text, classes):
                received = f"{display_name(row[file])}: {first.label} on line {first_line:,}, and {text}"
                raise refusal(where, "one photo has two labels", received, fix="remove the wrong line")
        if not found:
            raise refusal(self.path, "lists no photo", fix="add a line for each photo, or name their folder")
        return [entry for entry, _ in found.values()]

    def _file_column(self, files: Files) -> int:
        """Return the column of files: among those of a known name, one whose file is there."""
        plain = [_plain(name) for name in self.header]
        known = [plain.index(name) for name in FILE_COLUMNS if name in plain]
        first = self.rows[0][1] if self.rows else []
        candidates = (known or range(len(plain))) if first else []
        return next((i for i in candidates if files.find(first[i])), known[0] if known else -1)

    def _label_column(self, wanted: str) -> int:
        found = find_column(self.header, LABEL_COLUMNS, wanted)
        if found < 0 and not wanted and len(self.header) == 2:
            files = [i for i, name in enumerate(self.header) if _plain(name) in FILE_COLUMNS]
            return 1 - files[0] if files else -1
        return found


class Files:
    """Finds photos by what tables call them: a path, its end, with or without the extension.

    Args:
        members: The member of each photo, by its path below the source's root.
        folder: The table's own folder below the root, with a slash at its end, or empty.
    """

    def __init__(self, members: Mapping[str, str], folder: str = "") -> None:
        self._members, self._folder = members, folder
        self._by_end: dict[str, list[str]] = defaultdict(list)
        for name, member in members.items():
            parts = name.split("/")
            for i in range(len(parts)):
                end = "/".join(parts[i:])
                for text in {end, labels.without_extension(end)}:
                    self._by_end[text].append(member)

    def find(self, file: str) -> list[str]:
        """Return the members that a table may mean: one, none, or several."""
        name = normalize_path(file.strip())
        if member := self._members.get(self._folder + name):
            return [member]
        beside = self._by_end.get(self._folder + name) if self._folder else None
        return beside or self._by_end.get(name, [])

    def holds(self, member: str) -> bool:
        """Return whether a member that was found isn't outside of the source."""
        return True


class FilesOnDisk(Files):
    """Photos below the folder that a table is in, or in archives beside it.

    The folder is listed only if a photo isn't where the table says.

    Args:
        folder: The table's folder.
        list_photos: Lists the folder: the member of each photo by its path.
    """

    def __init__(self, folder: Folder, list_photos: Callable[[], Mapping[str, str]]) -> None:
        self._disk, self._list_photos = folder, list_photos
        self._listed: Files | None = None

    def find(self, file: str) -> list[str]:
        name = normalize_path(file.strip())
        endings = ("", *PHOTO_EXTENSIONS, *map(str.upper, PHOTO_EXTENSIONS))
        found = [name + ending for ending in endings if isfile(self._disk.path / (name + ending))]
        if name in found:
            found = [name]
        if not found and self._listed is None:
            self._listed = Files(self._list_photos())
        return found or (self._listed.find(name) if self._listed else [])

    def holds(self, member: str) -> bool:
        return self._disk.holds(member.partition("//")[0])  # An archive beside the table.


def parse(path: str, data: bytes) -> Table:
    """Read a table: UTF-8 or UTF-16, with commas, semicolons, tabs or bars.

    Args:
        path: For messages.
        data: The file.

    Raises:
        DataError: If it is none, or a line has another number of columns than the header.
    """
    try:
        text = data.decode("utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig")
        lines = io.StringIO(text, newline="")
        first = lines.readline()
        if excel := re.fullmatch(r"sep=(.)\s*", first, re.IGNORECASE):  # A first line of Excel's own.
            delimiter = excel.group(1)
        else:
            delimiter = max(_DELIMITERS, key=first.count)
            lines.seek(0)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header = [column.strip() for column in next(reader, [])]
        skipped = 1 if excel else 0
        rows = [(reader.line_num + skipped, row) for row in reader if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        fix = "save it again as CSV in UTF-8"
        raise refusal(path, "can't be read as CSV", error_reason(error), "UTF-8 or UTF-16", fix=fix) from None
    for line, row in rows:
        if len(row) != len(header):
            received, expected = repr(display_name(delimiter.join(row))), f"{len(header)}, as in the header"
            fix = f"put names that hold {delimiter!r} in double quotes"
            raise refusal(path, f"has another number of columns on line {line:,}", received, expected, fix=fix)
    return Table(path, header, rows)


def find_column(header: Sequence[str], known: Sequence[str], wanted: str = "") -> int:
    """Return the index of the column `wanted`, else of the first known one; -1 if there is none."""
    if wanted:
        return next((i for i, name in enumerate(header) if name.casefold() == wanted.casefold()), -1)
    plain = [_plain(name) for name in header]
    return next((plain.index(name) for name in known if name in plain), -1)


def unknown_label(where: str, text: str, classes: Sequence[str]) -> DataError:
    expected = f"{suggest(text.strip().lower(), classes)}, or 0 to {len(classes) - 1}"
    return refusal(where, "unknown label", repr(display_name(text)), expected, fix="correct it, or --classes")


def _plain(name: str) -> str:
    """Return a column's name in lower case, without spaces, underscores and the like."""
    return "".join(filter(str.isalnum, name.casefold()))


def _member(files: Files, file: str, where: str) -> str:
    """Return the one photo that a line names."""
    shown = display_name(file)
    found = [] if leads_out(file) else files.find(file)
    if leads_out(file) or not all(map(files.holds, found)):
        fix = "put the CSV beside or above its photos, and write paths from there"
        raise refusal(where, "the file is outside of the CSV's folder", repr(shown), fix=fix)
    if not found:
        expected, fix = "a file below the folder that the CSV is in", "correct the line, or remove it"
        raise NotFoundError(f"{where} there is no such file", received=shown, expected=expected, fix=fix)
    if len(found) > 1:
        raise refusal(where, "several files have this name", shown, " or ".join(found[:3]), fix="write the whole path")
    return found[0]
