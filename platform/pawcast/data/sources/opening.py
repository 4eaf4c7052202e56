"""From a path to the container of photos there: which kind it is, is told by its first bytes."""

from __future__ import annotations

import zipfile
import zlib
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import cast

from pawcast.data.sources import table
from pawcast.data.sources.container import DOWNLOAD, UNPACK, Container, most_inflated
from pawcast.data.sources.folder import Folder
from pawcast.data.sources.labels import display_name, error_reason, refusal
from pawcast.data.sources.seekable import FileRange, InflatedRange, open_file
from pawcast.data.sources.tar_archive import TarArchive
from pawcast.data.sources.zip_archive import ZipArchive
from pawcast.errors import ImageError, NotFoundError
from pawcast.vision.decode import MAX_BYTES
from pawcast.vision.formats import image_format

EXPECTED = "a zip, tar, tar.gz, Parquet file or folder of photos, a CSV of file,label, or s3://bucket/prefix"
_NEITHER = "is neither a folder nor a whole zip, tar or Parquet file"
HEAD_BYTES = 512
"""How many first bytes `kind_of` needs."""

_GZIP, _PARQUET, _TAR, _TAR_POSITION = b"\x1f\x8b", b"PAR1", b"ustar", 257
# Archives that aren't read, and the command that unpacks each.
_UNPACK_WITH = {
    b"BZh": "tar -xf",
    b"\xfd7zXZ\0": "tar -xf",
    b"\x28\xb5\x2f\xfd": "tar -xf",
    b"7z\xbc\xaf\x27\x1c": "7z x",
    b"Rar!\x1a\x07": "7z x",
}
_KINDS = {
    **dict.fromkeys((b"PK\3\4", _GZIP, *_UNPACK_WITH), "archive"),
    **{_PARQUET: "parquet", b"%PDF": "pdf", b"\x1a\x45\xdf\xa3": "video", b"\0\0\1\xba": "video"},
}


def open_source(path: str) -> Container:
    """Open a source; for a table of labels, the folder or archive that it is in.

    Raises:
        NotFoundError: If nothing is there.
        DataError: If it is no source, or not safe to read.
    """
    if path.startswith("s3://"):
        from pawcast.data.sources.s3 import S3Folder  # boto3 takes a while to import.

        return S3Folder(path.rpartition("/")[0] if is_table(path) else path)
    if "://" in path:
        raise refusal(path, "can't be read from here", expected=EXPECTED, fix="download it, and name the file")
    source = Path(path)
    try:
        if source.is_dir():
            return _FolderOfFiles(source)
        # What is on the disk; the rest of the path is the name of a member.
        outer = next((outer for outer in (source, *source.parents) if outer.exists()), source)
        if outer.is_file():
            inner = source.relative_to(outer).as_posix()
            return _FolderOfFiles(outer.parent) if is_table(path) and inner == "." else open_path(outer, inner)
        exists, received = source.exists(), display_name(path)
    except PermissionError as error:
        raise refusal(path, "can't be read", error.strerror, fix="make it readable") from None
    except (OSError, ValueError) as error:  # A name that is too long, or a null character in it.
        exists, received = False, f"{display_name(path)} ({error_reason(error)})"
    if not exists:
        raise NotFoundError("There is no such file or folder", received=received, expected=EXPECTED)
    raise refusal(path, _NEITHER, expected=EXPECTED, fix=DOWNLOAD)


def open_path(outer: Path, inner: str = ".") -> Container:
    """Open an archive or Parquet file on the disk, or the archive `inner` within it."""
    if is_table(inner):
        inner = "."
    status = outer.stat()
    # A file that was replaced is another archive.
    return _open_cached(outer, inner, (status.st_ino, status.st_size, status.st_mtime_ns))


def is_table(path: str) -> bool:
    """Return whether a path has the extension of a table of labels."""
    return PurePosixPath(path).suffix.lower() in table.EXTENSIONS


def kind_of(head: bytes) -> str:
    """Return what a file is by its first bytes, as an identifier: `heic`, `text`, `archive`, …"""
    if name := image_format(head):
        return name
    for signature, kind in _KINDS.items():
        if head.startswith(signature):
            return kind
    if head[_TAR_POSITION:].startswith(_TAR):
        return "archive"
    if head[4:8] == b"ftyp" or (head[:4] == b"RIFF" and head[8:12] == b"AVI "):
        return "video"
    is_utf16 = head[:2] in {b"\xff\xfe", b"\xfe\xff"}
    if is_utf16 or not any(byte < 9 or 13 < byte < 27 or byte == 127 for byte in head):
        return "text" if head else "empty"
    return "other"


@lru_cache(maxsize=4)
def _open_cached(outer: Path, inner: str, stamp: tuple[int, ...]) -> Container:
    """Open a file, and keep it: a worker process reads the same archive many times."""
    path = str(outer)
    if zipfile.is_zipfile(outer):
        if inner == ".":
            return ZipArchive(path, open_file(outer))
        archive = cast("ZipArchive", _open_cached(outer, ".", stamp))
        return _open_archive(f"{path}/{inner}", archive.open_member(inner))
    if inner != ".":
        raise NotFoundError(
            "There is no such file or folder", received=display_name(f"{path}/{inner}"), expected=EXPECTED
        )
    file = open_file(outer)
    head = file.read_at(0, HEAD_BYTES)
    if head.startswith(_PARQUET):
        from pawcast.data.sources.parquet import ParquetFile

        return ParquetFile(outer)
    if head.startswith(_GZIP) or head[_TAR_POSITION:].startswith(_TAR) or outer.suffix.lower() == ".tar":
        return _open_archive(path, file)
    if image_format(head):
        raise refusal(path, "is one photo, not a source of photos", expected=EXPECTED, fix="name its folder")
    for signature, command in _UNPACK_WITH.items():
        if head.startswith(signature):
            fix = f"unpack it with `{command} {display_name(outer.name)}`, and name the folder"
            raise refusal(path, "is an archive that can't be read in place", expected=EXPECTED, fix=fix)
    raise refusal(path, _NEITHER, expected=EXPECTED, fix=DOWNLOAD)


def _open_archive(path: str, file: FileRange) -> Container:
    """Open a tar, a tar.gz or else a zip."""
    head = file.read_at(0, HEAD_BYTES)
    if head.startswith(_GZIP):
        try:
            file = InflatedRange(file, most_inflated(file.size), gzip=True)
        except OverflowError as error:
            raise refusal(path, "looks like an archive bomb", error, fix=f"{UNPACK}, if you trust it") from None
        except (EOFError, ValueError, zlib.error) as error:
            raise refusal(path, "can't be opened as a tar.gz", error, fix=DOWNLOAD) from None
        return TarArchive(path, file)
    is_tar = head[_TAR_POSITION:].startswith(_TAR) or path.lower().endswith(".tar")
    return TarArchive(path, file) if is_tar else ZipArchive(path, file)


class _FolderOfFiles(Folder):
    """A folder, also of archives and Parquet files: `train.zip//cat.1.jpg` is a member of one."""

    def read(self, member: str, limit: int = MAX_BYTES) -> bytes:
        outer, _, inner = member.partition("//")
        return self._open(outer).read(inner, limit) if inner else super().read(member, limit)

    def metadata(self, member: str) -> tuple[object, ...]:
        outer, _, inner = member.partition("//")
        return self._open(outer).metadata(inner) if inner else super().metadata(member)

    def _open(self, file: str) -> Container:
        try:
            return open_path(self.path / file)
        except OSError as error:
            raise ImageError(f"can't be read ({error_reason(error)})") from None
