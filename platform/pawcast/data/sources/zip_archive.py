"""Read a zip of photos in place, without trusting it. README.md lists the threats."""

from __future__ import annotations

import io
import stat
import struct
import threading
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from string import ascii_letters

from pawcast.data.sources import nested_zip
from pawcast.data.sources.labels import display_name, fold_case
from pawcast.errors import DataError, ImageError, PawcastError
from pawcast.vision.decode import MAX_BYTES

MAX_MEMBERS = 1_000_000
MAX_DIRECTORY = 256 * 2**20
MAX_RATIO = 100
_MAX_UNCHECKED = 2**30  # Inflated bytes that are accepted at any ratio.
_ENCRYPTED = 0x1
_UTF8 = 0x800
_LOCAL_HEADER = struct.Struct("<4s22xHH")
# Bytes of extra fields that are read together with the header. Most zip tools write 0 or 28.
_EXTRA_BYTES = 64
# An archive is open once in a process, and its file has one position.
_POSITION_LOCK = threading.Lock()
_DIRECTORY_ENTRY = b"PK\x01\x02"
# Not bzip2 and LZMA: zipfile inflates them without a limit, and 40 bytes of bzip2 can hold 40 MB.
_SUPPORTED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES"}


class _BoundedReader(io.BufferedReader):
    """A file that, while `opening`, refuses to read a directory that is too large."""

    opening = True

    def read(self, size: int | None = -1, /) -> bytes:
        if self.opening and size is not None and size > MAX_DIRECTORY:
            raise DataError("its directory is too large", received=f"{size:,} bytes", expected=f"{MAX_DIRECTORY:,}")
        data = super().read(size)
        if self.opening and (count := data.count(_DIRECTORY_ENTRY)) > MAX_MEMBERS:
            raise DataError("it has too many members", received=f"{count:,}", expected=f"at most {MAX_MEMBERS:,}")
        return data


def is_zip(path: str) -> bool:
    """Return whether a path is a zip, or a zip within a zip."""
    outer, inner = nested_zip.split_path(path)
    return outer.is_file() and zipfile.is_zipfile(outer) and (not inner or bool(_open(path)))


def members(path: str) -> list[str]:
    """List the regular files in a zip.

    Raises:
        DataError: If a member's path leads out of the zip, or if members overlap.
    """
    archive = _open(path)
    infos = archive.infolist()
    for info in infos:
        _refuse_outside(path, info.filename)
    _refuse_overlap(path, archive)
    files = [info.filename for info in infos if stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)]
    return [name for name in files if not name.endswith("/")]


def check_photos(path: str, photos: Sequence[tuple[str, str]]) -> None:
    """Refuse a zip of ambiguous names, none of whose photos can be read, or that inflates too much.

    Args:
        path: The zip.
        photos: Member and normalized path of each photo.

    Raises:
        DataError: If the zip is refused.
    """
    seen: dict[str, str] = {}
    for name, normalized in photos:
        key = fold_case(normalized)
        if other := seen.get(key):
            problem = "of one name" if other == name else "whose names differ only in letter case or accents"
            raise DataError(
                f"{display_name(path)} holds two members {problem}",
                received=f"{display_name(other)!r} and {display_name(name)!r}",
                fix="rename or remove one, and zip the folder again",
            )
        seen[key] = name
    archive = _open(path)
    infos = [archive.NameToInfo[name] for name, _ in photos]
    if all(map(_unsupported_reason, infos)):
        raise DataError(
            f"No photo in {display_name(path)} can be read",
            received=f"{display_name(infos[0].filename)} {_unsupported_reason(infos[0])}, and so on",
            expected="members stored or deflated, without a password",
            fix="unpack it and give the folder, or zip it again",
        )
    usable = [info for info in infos if info.file_size <= MAX_BYTES]
    inflated = sum(info.file_size for info in usable)
    compressed = sum(info.compress_size for info in usable)
    if inflated > max(_MAX_UNCHECKED, MAX_RATIO * compressed):
        raise DataError(
            f"{display_name(path)} looks like a zip bomb",
            received=f"{compressed:,} bytes that inflate to {inflated:,}",
            expected=f"at most {MAX_RATIO} times as many, since photos hardly compress",
            fix="unpack it and give the folder, if you trust it",
        )


def read(path: str, members: Sequence[str]) -> Iterator[bytes | ImageError]:
    """Yield each member's bytes, or the reason why they can't be read."""
    archive = _open(path)
    for member in members:
        try:
            yield _read_member(archive, member)
        except ImageError as error:
            yield error


def metadata(path: str, members: Sequence[str]) -> Iterator[tuple[int, ...]]:
    """Yield each member's size and checksum, as the directory records them."""
    archive = _open(path)
    for member in members:
        info = archive.getinfo(member)
        yield info.file_size, info.CRC


def stamp(path: str) -> tuple[int, ...]:
    """Return inode, size and modification time of the file: they change when it does."""
    outer, _ = nested_zip.split_path(path)
    try:
        status = outer.stat()
    except OSError as error:
        raise DataError(
            f"{display_name(path)} can't be opened", received=error.strerror, fix="make it readable"
        ) from None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read_member(archive: zipfile.ZipFile, member: str) -> bytes:
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise ImageError("is no longer in the archive") from None
    if reason := _unsupported_reason(info):
        raise ImageError(reason)
    if info.file_size > MAX_BYTES or info.compress_size > 2 * MAX_BYTES:
        raise ImageError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        data = _compressed_bytes(archive, info)
        if info.compress_type == zipfile.ZIP_DEFLATED:
            # Never more than one byte beyond the declared size, whatever is inside.
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, info.file_size + 1)
    except ImageError:
        raise
    except zlib.error:
        raise ImageError("can't be inflated") from None
    except Exception as error:
        raise ImageError(f"can't be read from the archive ({type(error).__name__})") from None
    if len(data) != info.file_size:
        raise ImageError(f"is {'shorter' if len(data) < info.file_size else 'longer'} than the archive says")
    if zlib.crc32(data) != info.CRC:
        raise ImageError("doesn't match its checksum")
    return data


def _compressed_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return a member's bytes as the archive stores them. `zipfile` takes several times as long."""
    file = archive.fp
    if file is None:
        raise ValueError("closed")
    name = info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
    header_size = _LOCAL_HEADER.size + len(name)
    with _POSITION_LOCK:
        file.seek(info.header_offset)
        data = file.read(header_size + _EXTRA_BYTES + info.compress_size)
        signature, name_size, extra_size = _LOCAL_HEADER.unpack_from(data)
        if signature != b"PK\x03\x04" or name_size != len(name) or data[_LOCAL_HEADER.size : header_size] != name:
            # Reasons name no file, so that equal ones can be counted.
            raise ImageError("has a damaged header in the archive")
        if extra_size > _EXTRA_BYTES:
            data += file.read(extra_size - _EXTRA_BYTES)
    return data[header_size + extra_size :][: info.compress_size]


def _unsupported_reason(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in _SUPPORTED:
        return f"is compressed by {_METHODS.get(info.compress_type, f'method {info.compress_type}')}, which isn't read"
    return None


def _open(path: str) -> zipfile.ZipFile:
    outer, inner = nested_zip.split_path(path)
    # The stamp is part of the cache's key: a file that was replaced is another archive.
    return _open_cached(str(outer), inner, *stamp(path))


@lru_cache(maxsize=4)
def _open_cached(outer: str, inner: str, *stamp: int) -> zipfile.ZipFile:
    # Reading the directory of 25,000 members takes a while, and a worker process reads the same
    # archive many times.
    path = f"{outer}/{inner}" if inner else outer
    if inner:
        archive = _open_cached(outer, "", *stamp)
        if inner not in archive.NameToInfo:
            zips = [display_name(name) for name in archive.namelist() if name.lower().endswith(".zip")]
            raise DataError(
                f"{display_name(outer)} holds no {display_name(inner)}",
                expected=", ".join(zips[:5]) or "a zip in it",
                fix="name one of them",
            )
        _refuse_overlap(outer, archive)
        info = archive.getinfo(inner)
        if reason := _unsupported_reason(info):
            raise DataError(f"{display_name(path)} {reason}", fix=f"unpack {display_name(outer)}")
        if info.file_size > max(_MAX_UNCHECKED, MAX_RATIO * info.compress_size):
            raise DataError(
                f"{display_name(path)} looks like a zip bomb",
                received=f"{info.file_size:,} bytes once inflated",
                expected=f"at most {MAX_RATIO} times the {info.compress_size:,} compressed bytes",
                fix=f"unpack {display_name(outer)}, if you trust it",
            )
    raw: io.RawIOBase | None = None
    try:
        raw = io.FileIO(outer)
        if inner:
            raw = nested_zip.open_member(raw, info)
        file = _BoundedReader(raw)
        archive = zipfile.ZipFile(file)
    except PawcastError as error:
        _close(raw)
        raise DataError(
            f"{display_name(path)} is refused: {str(error).rstrip('.')}", fix="unpack it and give the folder"
        ) from None
    except Exception as error:
        # A damaged directory raises far more than BadZipFile: UnicodeDecodeError, struct.error, …
        _close(raw)
        raise DataError(
            f"{display_name(path)} can't be opened as a zip", received=error, fix="download or copy it again"
        ) from None
    file.opening = False
    weakref.finalize(archive, file.close)
    return archive


def _close(raw: io.RawIOBase | None) -> None:
    if raw:
        raw.close()


def _refuse_outside(path: str, name: str) -> None:
    """Refuse a member whose path leads out of the zip.

    Nothing is unpacked, but names become ids and get into reports, and no zip tool writes such
    paths by itself.
    """
    member = name.replace("\\", "/")
    if member.startswith("/") or (member[1:2] == ":" and member[0] in ascii_letters) or "/../" in f"/{member}/":
        raise DataError(
            f"{display_name(path)} holds a member whose path leads out of it",
            received=repr(display_name(name)),
            expected="paths below the archive's own root",
            fix="zip the folder again, from within",
        )


def _refuse_overlap(path: str, archive: zipfile.ZipFile) -> None:
    """Refuse members that share bytes.

    They let a small file inflate to petabytes, though each member alone is harmless.
    """
    infos = sorted(archive.infolist(), key=attrgetter("header_offset"))
    starts = [info.header_offset for info in infos] + [archive.start_dir]
    for info, (start, following) in zip(infos, pairwise(starts), strict=True):
        if start < 0 or start + _LOCAL_HEADER.size + info.compress_size > following:
            raise DataError(
                f"{display_name(path)} holds members that overlap, or lie outside of the file",
                received=repr(display_name(info.filename)),
                expected="separate bytes for each member",
                fix="download or copy it again. If that doesn't help, don't use it",
            )
