"""Which files of a source are photos, and what the others are."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pawcast.data.sources import table
from pawcast.data.sources.container import Container, Entry
from pawcast.data.sources.folder import Folder
from pawcast.data.sources.labels import (
    EXTENSIONS,
    display_name,
    extension,
    is_hidden,
    is_litter,
    labels_from_paths,
    natural_key,
    refusal,
)
from pawcast.data.sources.opening import HEAD_BYTES, is_table, kind_of, open_path
from pawcast.data.sources.zip_archive import ZipArchive
from pawcast.errors import DataError, ImageError, NotFoundError
from pawcast.vision.formats import READABLE

_PHOTO = "photo"
# The decoder tells these by their bytes. The first bytes of all other files are looked at.
_PHOTO_EXTENSIONS = tuple(ending for ending in EXTENSIONS if ending not in {".avif", ".heic", ".heif"})
# Pictures of cameras, whose first bytes are those of a TIFF.
_RAW_EXTENSIONS = {".cr2", ".nef", ".arw", ".dng", ".orf", ".rw2", ".pef", ".srw"}


class Contents:
    """The files of a source.

    Attributes:
        photos: The photos.
        others: The other files by kind, an identifier such as `heic`, `link`, `text` or `archive`.
            A hidden folder counts as one file. Litter such as `.DS_Store` isn't there.

    Raises:
        DataError: If they can't be listed.
    """

    def __init__(self, container: Container) -> None:
        self.photos: list[Entry] = []
        self.others: dict[str, list[Entry]] = defaultdict(list)
        hidden: dict[str, Entry] = {}
        for entry in container.entries():
            if is_hidden(entry.name):
                part = _hidden_part(entry.name)
                hidden[part] = Entry(part, part)
            elif (kind := entry.kind or _kind(container, entry)) == _PHOTO:
                self.photos.append(entry)
            else:
                self.others[kind].append(entry)
        self.others["hidden"] = [entry for part, entry in hidden.items() if not is_litter(part.rpartition("/")[2])]

    def refusal(self, path: str, container: Container) -> DataError:
        """Return the error of a source without photos, which tells what it holds instead."""
        if archives := sorted((entry.name for entry in self.others["archive"]), key=natural_key):
            received = ", ".join(map(display_name, archives[:5])) + (", …" if len(archives) > 5 else "")
            fix = "unpack it or download them, and name one of them"
            if isinstance(container, Folder | ZipArchive):
                fix = f"name one of them, such as {display_name(path.rstrip('/'))}/{display_name(archives[0])}"
            return refusal(path, "holds no photos, only archives", received, fix=fix)
        fix = "name the folder or archive that holds them"
        if "heic" in self.others:
            fix = "install pillow-heif, which reads HEIC, or convert them to JPEG"
        elif "link" in self.others:
            fix = "name the folder that the links lead to, or copy the files themselves with cp -rL"
        received = ", ".join(f"{len(found):,} {kind}" for kind, found in self.others.items() if found)
        return refusal(path, "holds no photos", received or "no file", "JPEG, PNG, WebP, …, by their bytes", fix=fix)


def list_photos(
    path: str, container: Container, classes: Sequence[str], label_column: str, group: str
) -> tuple[list[Entry], Mapping[str, list[Entry]]]:
    """Return the photos of a source, and its other files by kind.

    Labels and groups that a table tells are in the entries.

    Args:
        path: The source.
        container: What is there.
        classes: Names of the classes. Empty: labels aren't looked for.
        label_column: The column of labels in a table.
        group: The column of groups in a table, if there is one of this name.

    Raises:
        DataError, NotFoundError: As `pawcast.data.sources.scan` does.
    """
    if is_table(path) and isinstance(container, Folder) and container.path != Path(path):
        lines = _read_table(container, Path(path).name, path)
        files = table.FilesOnDisk(container, lambda: _photos_below(container))
        return lines.photos(files, classes, label_column, group), {}
    rows = container.rows(label_column, group)
    if rows is not None:
        return list(rows), {}
    contents = Contents(container)
    photos, others = contents.photos, contents.others
    if not photos and others["parquet"] and isinstance(container, Folder):
        return list(_rows_below(container, others.pop("parquet"), label_column, group)), others
    if not photos:
        raise contents.refusal(path, container)
    container.check_photos(photos)
    tables = _find_tables(path, container, contents, classes, label_column)
    if tables:
        listed = {
            photo.member: photo
            for entry, lines in tables
            for photo in lines.photos(_files_around(entry, photos), classes, label_column, group)
        }
        others["unlisted"] = [photo for photo in photos if photo.member not in listed]
        photos = list(listed.values())
    return photos, others


def _find_tables(
    path: str, container: Container, contents: Contents, classes: Sequence[str], label_column: str
) -> list[tuple[Entry, table.Table]]:
    """Return the table of labels within a source, if one is named or needed.

    There may be one in each of several folders, as Hugging Face's ImageFolder has them. They no
    longer count as other files.
    """
    found = [entry for entries in contents.others.values() for entry in entries if is_table(entry.name)]
    if is_table(path):
        found = [entry for entry in found if f"/{path}".endswith(f"/{entry.name}")]
        if not found:
            raise NotFoundError("There is no such table in the source", received=display_name(path))
        tables = [(entry, _read_table(container, entry.member, path)) for entry in found[:1]]
    elif classes and (label_column or (found and not _tell_classes(contents.photos, classes))):
        tables = list(_tables_of_photos(container, found, contents.photos, label_column))
        if label_column and not tables:
            raise refusal(path, f"has no table with the column {display_name(label_column)}", fix="correct its name")
    else:
        return []
    folders = {entry.name.rpartition("/")[0] for entry, _ in tables}
    if len(folders) < len(tables) or len({tuple(lines.header) for _, lines in tables}) > 1:
        names = sorted((entry.name for entry, _ in tables), key=natural_key)
        fix = f"name one of them, such as {display_name(path.rstrip('/'))}/{names[0]}"
        raise refusal(path, "holds several tables of labels", ", ".join(names[:5]), fix=fix)
    for entries in contents.others.values():
        entries[:] = [entry for entry in entries if all(entry is not used for used, _ in tables)]
    return tables


def _tell_classes(photos: Sequence[Entry], classes: Sequence[str]) -> bool:
    return max(labels_from_paths([photo.name for photo in photos], classes)[0]) >= 0


def _tables_of_photos(
    container: Container, found: Sequence[Entry], photos: Sequence[Entry], label_column: str
) -> Iterator[tuple[Entry, table.Table]]:
    """Yield those files that are tables of labels of these photos."""
    for entry in found:
        # Kaggle's samples of a submission have a column of labels, which are made up.
        if "submission" not in entry.name.lower():
            with contextlib.suppress(DataError):
                lines = _read_table(container, entry.member, entry.name)
                if lines.lists_photos(_files_around(entry, photos), label_column):
                    yield entry, lines


def _read_table(container: Container, member: str, path: str) -> table.Table:
    try:
        return table.parse(path, container.read(member, table.MAX_FILE))
    except ImageError as error:
        raise refusal(path, "can't be read", error.what, fix="make it readable, or split it") from None


def _files_around(entry: Entry, photos: Sequence[Entry]) -> table.Files:
    """Return where a table in a source finds its photos: below its own folder, or anywhere."""
    folder = entry.name[: entry.name.rfind("/") + 1]
    return table.Files({photo.name: photo.member for photo in photos}, folder)


def _photos_below(folder: Folder) -> dict[str, str]:
    """Return the photos in a folder and in the archives directly in it: each path's member."""
    try:
        contents = Contents(folder)
    except DataError:
        return {}
    found = {photo.name: photo.member for photo in contents.photos}
    for archive in contents.others["archive"]:
        with contextlib.suppress(DataError, OSError):
            if "/" not in archive.name:
                photos = Contents(open_path(folder.path / archive.name)).photos
                found |= {f"{archive.name}/{photo.name}": f"{archive.name}//{photo.member}" for photo in photos}
    return found


def _rows_below(folder: Folder, files: Sequence[Entry], label_column: str, group: str) -> Iterator[Entry]:
    """Yield the photos in Parquet files, named as by `datasets`: `train-00000-of-2.parquet`."""
    for file in files:
        split = file.name.rpartition("/")[2].partition(".")[0].partition("-")[0]
        for entry in open_path(folder.path / file.member).rows(label_column, group) or ():
            yield entry._replace(member=f"{file.member}//{entry.member}", name=f"{split}/{entry.name}")


def _kind(container: Container, entry: Entry) -> str:
    if entry.name.lower().endswith(_PHOTO_EXTENSIONS):
        return _PHOTO
    try:
        kind = kind_of(container.head(entry.member, HEAD_BYTES))
    except ImageError:
        return "unreadable"
    if kind == "tiff" and extension(entry.name) in _RAW_EXTENSIONS:
        return "camera_raw"
    return _PHOTO if kind in READABLE else kind


def _hidden_part(path: str) -> str:
    """Return a path up to its first part that is hidden or litter."""
    parts = path.split("/")
    end = next(i for i, part in enumerate(parts) if part.startswith(".") or is_litter(part))
    return "/".join(parts[: end + 1])
