"""A zip of photos, read in place, and trusted in nothing: see the table in `pawcast.data.sources`."""

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
from pawcast.data.sources.labels import casefolded, display_name
from pawcast.errors import DataError, ImageError, PawcastError
from pawcast.vision.decode import MAX_BYTES

MAX_MEMBERS = 1_000_000
MAX_DIRECTORY = 256 * 2**20
MAX_RATIO = 100
_HARMLESS = 2**30
_ENCRYPTED = 0x1
_UTF8 = 0x800
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_EXTRA = 64  # Bytes between a member's name and its data that are read at once; most zippers write none, or 28.
# An archive is open once in a process, and has one place to read from.
_READING = threading.Lock()
_ENTRY = b"PK\x01\x02"
# zipfile inflates bzip2 and LZMA without a limit, and forty bytes of bzip2 can hold 40 MB.
_READ = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES"}


class _Bounded(io.BufferedReader):
    """A file that hands over no larger a directory than allowed, whatever the archive claims."""

    opening = True

    def read(self, size: int | None = -1, /) -> bytes:
        if self.opening and size is not None and size > MAX_DIRECTORY:
            raise DataError("its directory is too large", received=f"{size:,} bytes", expected=f"{MAX_DIRECTORY:,}")
        data = super().read(size)
        if self.opening and (count := data.count(_ENTRY)) > MAX_MEMBERS:
            raise DataError("it has too many members", received=f"{count:,}", expected=f"at most {MAX_MEMBERS:,}")
        return data


def is_zip(path: str) -> bool:
    """Whether a path is a zip, or leads to a zip within one."""
    outer, inner = nested_zip.split(path)
    return outer.is_file() and zipfile.is_zipfile(outer) and (not inner or bool(_open(path)))


def members(path: str) -> list[str]:
    """List the plain files in a zip. Raises `DataError` if one's path leads out of it, or if members overlap."""
    archive = _open(path)
    infos = archive.infolist()
    for info in infos:
        _refuse_outside(path, info.filename)
    _refuse_overlap(path, archive)
    plain = [info.filename for info in infos if stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)]
    return [name for name in plain if not name.endswith("/")]


def check(path: str, photos: Sequence[tuple[str, str]]) -> None:
    """Refuse an archive whose photos can't be told apart, can't be read at all, or inflate to far too much.

    Args:
        path: Of the archive.
        photos: Each one's member and `relative` path.
    """
    seen: dict[str, str] = {}
    for name, below in photos:
        key = casefolded(below)
        if other := seen.get(key):
            what = "of one name" if other == name else "whose names differ in nothing but letter case or accents"
            raise DataError(
                f"{display_name(path)} holds two members {what}",
                received=f"{display_name(other)!r} and {display_name(name)!r}",
                fix="rename or remove one, and zip the folder again",
            )
        seen[key] = name
    archive = _open(path)
    infos = [archive.NameToInfo[name] for name, _ in photos]
    if all(map(_unreadable, infos)):
        raise DataError(
            f"No photo in {display_name(path)} can be read",
            received=f"{display_name(infos[0].filename)} {_unreadable(infos[0])}, and so on",
            expected="members stored or deflated, without a password",
            fix="unpack it and give the folder, or zip it again",
        )
    usable = [info for info in infos if info.file_size <= MAX_BYTES]
    inflated = sum(info.file_size for info in usable)
    packed = sum(info.compress_size for info in usable)
    if inflated > max(_HARMLESS, MAX_RATIO * packed):
        raise DataError(
            f"{display_name(path)} looks like a zip bomb",
            received=f"{packed:,} bytes that inflate to {inflated:,}",
            expected=f"at most {MAX_RATIO}-fold, as photos hardly shrink",
            fix="unpack it and give the folder, if you trust it",
        )


def read(path: str, members: Sequence[str]) -> Iterator[bytes | ImageError]:
    """Yield each member's bytes, or the reason why they can't be had."""
    archive = _open(path)
    for member in members:
        try:
            yield _bytes(archive, member)
        except ImageError as error:
            yield error


def facts(path: str, members: Sequence[str]) -> Iterator[tuple[int, ...]]:
    """Yield what the directory says of each member: its size and checksum."""
    archive = _open(path)
    for member in members:
        info = archive.getinfo(member)
        yield info.file_size, info.CRC


def stamp(path: str) -> tuple[int, ...]:
    """Return what changes when the archive is replaced or written to."""
    outer, _ = nested_zip.split(path)
    try:
        about = outer.stat()
    except OSError as error:
        raise DataError(f"{display_name(path)} can't be opened", received=error.strerror) from None
    return about.st_ino, about.st_size, about.st_mtime_ns


def _bytes(archive: zipfile.ZipFile, member: str) -> bytes:
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise ImageError("is no longer in the archive") from None
    if reason := _unreadable(info):
        raise ImageError(reason)
    if info.file_size > MAX_BYTES or info.compress_size > 2 * MAX_BYTES:
        raise ImageError(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        packed = _packed(archive, info)
        # No more than is declared, whatever is inside.
        data = packed if info.compress_type == zipfile.ZIP_STORED else _inflated(packed, info.file_size + 1)
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


def _packed(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Return a member's bytes as they lie in the archive. `zipfile` does the same in several times the time."""
    file = archive.fp
    if file is None:
        raise ValueError("closed")
    before = _LOCAL_HEADER.size + len(named := _raw_name(info))
    with _READING:
        file.seek(info.header_offset)
        found = file.read(before + _EXTRA + info.compress_size)
        signature, name, extra = _LOCAL_HEADER.unpack_from(found)
        if signature != b"PK\x03\x04" or name != len(named) or found[_LOCAL_HEADER.size : before] != named:
            # The reasons name no file, so that a thousand equal ones count as one.
            raise ImageError("has a damaged header in the archive")
        if extra > _EXTRA:
            found += file.read(extra - _EXTRA)
    return found[before + extra :][: info.compress_size]


def _inflated(packed: bytes, most: int) -> bytes:
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")


def _unreadable(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in _READ:
        return f"is compressed by {_METHODS.get(info.compress_type, f'method {info.compress_type}')}, which isn't read"
    return None


def _open(path: str) -> zipfile.ZipFile:
    outer, inner = nested_zip.split(path)
    # A file of the same name that was replaced meanwhile is another archive.
    return _opened(str(outer), inner, *stamp(path))


@lru_cache(maxsize=4)
def _opened(outer: str, inner: str, *stamp: int) -> zipfile.ZipFile:
    # Reading the directory of 25,000 members takes a while; a worker process reads the same archive many times.
    path = f"{outer}/{inner}" if inner else outer
    if inner:
        archive = _opened(outer, "", *stamp)
        if inner not in archive.NameToInfo:
            raise DataError(f"{display_name(outer)} holds no {display_name(inner)}", expected=_zips(archive))
        _refuse_overlap(outer, archive)
        info = archive.getinfo(inner)
        if reason := _unreadable(info):
            raise DataError(f"{display_name(path)} {reason}", fix=f"unpack {display_name(outer)}")
        if info.file_size > max(_HARMLESS, MAX_RATIO * info.compress_size):
            raise DataError(
                f"{display_name(path)} looks like a zip bomb", received=f"{info.file_size:,} bytes once inflated"
            )
    raw: io.RawIOBase | None = None
    try:
        raw = io.FileIO(outer)
        if inner:
            raw = nested_zip.opened(raw, info)
        file = _Bounded(raw)
        archive = zipfile.ZipFile(file)
    except PawcastError as error:
        raise _closing(raw, DataError(f"{display_name(path)} is refused: {str(error).rstrip('.')}")) from None
    except Exception as error:
        # A damaged directory raises far more than BadZipFile: UnicodeDecodeError, struct.error, ValueError …
        fix = "download or copy it again"
        raise _closing(
            raw, DataError(f"{display_name(path)} can't be opened as a zip", received=error, fix=fix)
        ) from None
    file.opening = False
    weakref.finalize(archive, file.close)
    return archive


def _closing(raw: io.RawIOBase | None, error: DataError) -> DataError:
    if raw:
        raw.close()
    return error


def _zips(archive: zipfile.ZipFile) -> str:
    return (
        ", ".join([display_name(name) for name in archive.namelist() if name.lower().endswith(".zip")][:5])
        or "a zip in it"
    )


def _refuse_outside(path: str, name: str) -> None:
    """Nothing is unpacked, but names become ids and end up in reports; and an archive like this means harm."""
    place = name.replace("\\", "/")
    if place.startswith("/") or (place[1:2] == ":" and place[0] in ascii_letters) or "/../" in f"/{place}/":
        raise DataError(
            f"{display_name(path)} holds a member whose path leads out of it",
            received=repr(display_name(name)),
            expected="paths below the archive's own root",
            fix="zip the folder again, from within",
        )


def _refuse_overlap(path: str, archive: zipfile.ZipFile) -> None:
    """Members that share bytes let a small file inflate to petabytes, each of them harmless by itself."""
    infos = sorted(archive.infolist(), key=attrgetter("header_offset"))
    starts = [info.header_offset for info in infos] + [archive.start_dir]
    for info, (start, following) in zip(infos, pairwise(starts), strict=True):
        if start < 0 or start + _LOCAL_HEADER.size + info.compress_size > following:
            raise DataError(
                f"{display_name(path)} holds members that overlap or lie outside of it",
                received=repr(display_name(info.filename)),
                expected="each member's bytes in a place of their own",
                fix="download or copy it again; if that doesn't help, don't trust it",
            )
