"""Read a zip of photos in place, without trusting it. README.md lists the threats."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

from pawcast.data.sources.labels import display_name, fold_case, leads_out, refusal
from pawcast.data.sources.seekable import FileRange, InflatedRange
from pawcast.errors import ImageError
from pawcast.vision.decode import MAX_BYTES

MAX_MEMBERS = 1_000_000
MAX_DIRECTORY = 256 * 2**20
MAX_RATIO = 100
_MAX_UNCHECKED = 2**30  # Inflated bytes that are accepted at any ratio.
_ENCRYPTED = 0x1
_LOCAL_HEADER = struct.Struct("<4s22xHH")
# Bytes of name and extra fields that are read together with the header. They are rarely more.
_NAME_AND_EXTRA = 256
_DIRECTORY_ENTRY = b"PK\x01\x02"
# Not bzip2 and LZMA: 40 bytes of bzip2 can hold 40 MB.
_SUPPORTED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES"}
_READ_ERRORS = (OSError, EOFError, ValueError, struct.error, zlib.error)
_UNPACK = "unpack it and give the folder"
_DOWNLOAD = "download or copy it again"
_ZIP_AGAIN = "zip the folder again, from within"


class _BoundedReader(io.BufferedReader):
    """Refuses to read too large a directory, which `zipfile` reads in one piece."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_DIRECTORY:
            raise ValueError(f"its directory is too large, {size:,} bytes of at most {MAX_DIRECTORY:,}")
        data = super().read(size)
        if (count := data.count(_DIRECTORY_ENTRY)) > MAX_MEMBERS:
            raise ValueError(f"it has too many members, {count:,} of at most {MAX_MEMBERS:,}")
        return data


class _File(io.FileIO):
    """Closed once no archive uses it."""

    def __del__(self) -> None:
        self.close()


class ZipArchive:
    """A zip whose directory was read, and whose members share no bytes.

    Args:
        path: The zip, for messages.
        file: Its bytes.

    Raises:
        DataError: If the directory is damaged or too large, if members overlap, or if a member's
            path leads out of the zip.
    """

    def __init__(self, path: str, file: FileRange) -> None:
        self._path, self._file = path, file
        reader = _BoundedReader(file)
        try:
            archive = zipfile.ZipFile(reader)
        except Exception as error:
            # Damage raises far more than BadZipFile: UnicodeDecodeError, struct.error, …
            raise refusal(path, "can't be opened as a zip", error, fix=_DOWNLOAD) from None
        finally:
            reader.detach()
        self._infos = archive.infolist()
        self._by_name = archive.NameToInfo
        self._refuse_overlap(archive.start_dir)
        for name in self._by_name:
            if leads_out(name):
                received = repr(display_name(name))
                raise refusal(path, "holds a member whose path leads out of it", received, fix=_ZIP_AGAIN)

    def members(self) -> list[str]:
        """List the regular files."""
        files = [info.filename for info in self._infos if stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)]
        return [name for name in files if not name.endswith("/")]

    def check_photos(self, photos: Sequence[tuple[str, str]]) -> None:
        """Refuse a zip of ambiguous names, without readable photos, or that inflates too much.

        Args:
            photos: Member and normalized path of each photo.

        Raises:
            DataError: If the zip is refused.
        """
        seen: dict[str, str] = {}
        for name, normalized in photos:
            if (key := fold_case(normalized)) in seen:
                received = f"{display_name(seen[key])!r} and {display_name(name)!r}"
                what = "holds two members of one name (letter case and accents don't count)"
                raise refusal(self._path, what, received, fix=f"rename or remove one, and {_ZIP_AGAIN}")
            seen[key] = name
        infos = [self._by_name[name] for name, _ in photos]
        if all(map(_unsupported_reason, infos)):
            received = f"{display_name(infos[0].filename)} {_unsupported_reason(infos[0])}, and so on"
            raise refusal(self._path, "holds no photo that can be read", received, fix=_UNPACK)
        usable = [info for info in infos if info.file_size <= MAX_BYTES]
        self._refuse_bomb(sum(info.file_size for info in usable), sum(info.compress_size for info in usable))

    def read(self, member: str) -> bytes:
        """Return a member's bytes. Raises `ImageError` with the reason if they can't be read."""
        info = self._by_name.get(member)
        if not info:
            raise ImageError("is no longer in the archive")
        if reason := _unsupported_reason(info):
            raise ImageError(reason)
        if info.file_size > MAX_BYTES or info.compress_size > 2 * MAX_BYTES:
            raise ImageError(f"larger than {MAX_BYTES >> 20} MiB")
        try:
            data = self._compressed_bytes(info)
            if info.compress_type == zipfile.ZIP_DEFLATED:
                # Never more than one byte beyond the declared size, whatever is inside.
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, info.file_size + 1)
        except _READ_ERRORS as error:
            raise ImageError(f"can't be read from the archive ({type(error).__name__})") from None
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise ImageError("doesn't match its size or checksum in the archive")
        return data

    def metadata(self, member: str) -> tuple[int, ...]:
        """Return a member's size and checksum, as the directory records them."""
        info = self._by_name[member]
        return info.file_size, info.CRC

    def open_member(self, name: str) -> ZipArchive:
        """Open a zip within this zip, in place."""
        path = f"{self._path}/{name}"
        info = self._by_name.get(name)
        if not info:
            zips = [display_name(member) for member in self._by_name if member.lower().endswith(".zip")]
            expected = ", ".join(zips[:5]) or "a zip in it"
            raise refusal(self._path, f"holds no {display_name(name)}", expected=expected, fix="name one of them")
        if reason := _unsupported_reason(info):
            raise refusal(path, reason, fix=_UNPACK)
        self._refuse_bomb(info.file_size, info.compress_size)
        try:
            header = self._file.read_at(info.header_offset, _LOCAL_HEADER.size)
            inner = FileRange(self._file.file, info.header_offset + _header_size(header), info.compress_size)
            if info.compress_type == zipfile.ZIP_DEFLATED:
                inner = InflatedRange(inner, info.file_size)
        except _READ_ERRORS as error:
            raise refusal(path, "can't be opened as a zip", error, fix=_DOWNLOAD) from None
        return ZipArchive(path, inner)

    def _compressed_bytes(self, info: zipfile.ZipInfo) -> bytes:
        """Return a member's bytes as stored. `zipfile` takes five times as long for a photo."""
        size = _LOCAL_HEADER.size + _NAME_AND_EXTRA + info.compress_size
        data = self._file.read_at(info.header_offset, size)
        start = _header_size(data)
        if start + info.compress_size > size:
            data = self._file.read_at(info.header_offset, start + info.compress_size)
        return data[start : start + info.compress_size]

    def _refuse_bomb(self, inflated: int, compressed: int) -> None:
        if inflated > max(_MAX_UNCHECKED, MAX_RATIO * compressed):
            received = f"{compressed:,} bytes that inflate to {inflated:,}"
            expected = f"at most {MAX_RATIO} times as many, since photos hardly compress"
            raise refusal(self._path, "looks like a zip bomb", received, expected, fix=f"{_UNPACK}, if you trust it")

    def _refuse_overlap(self, directory_start: int) -> None:
        """Refuse members that share bytes: a small file could inflate to petabytes."""
        infos = sorted(self._infos, key=attrgetter("header_offset"))
        starts = [info.header_offset for info in infos] + [directory_start]
        for info, (start, following) in zip(infos, pairwise(starts), strict=True):
            if start < 0 or start + _LOCAL_HEADER.size + info.compress_size > following:
                what = "holds members that overlap, or lie outside of the file"
                fix = f"{_DOWNLOAD}. If that doesn't help, don't use it"
                raise refusal(self._path, what, repr(display_name(info.filename)), fix=fix)


def open_zip(outer: Path, inner: str) -> ZipArchive:
    """Open a zip on the disk, or the zip `inner` within it (`.`: none). Four stay open."""
    status = outer.stat()
    # A file that was replaced is another archive.
    return _open_cached(outer, inner, (status.st_ino, status.st_size, status.st_mtime_ns))


# A worker process reads the same archive many times, and a directory of 25,000 members takes a
# while.
@lru_cache(maxsize=4)
def _open_cached(outer: Path, inner: str, stamp: tuple[int, ...]) -> ZipArchive:
    if inner != ".":
        return _open_cached(outer, ".", stamp).open_member(inner)
    return ZipArchive(str(outer), FileRange(_File(outer), 0, stamp[1]))


def _header_size(header: bytes) -> int:
    signature, name_size, extra_size = _LOCAL_HEADER.unpack_from(header)
    if signature != b"PK\x03\x04":
        raise ValueError("damaged header")
    return _LOCAL_HEADER.size + name_size + extra_size


def _unsupported_reason(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in _SUPPORTED:
        return f"is compressed by {_METHODS.get(info.compress_type, f'method {info.compress_type}')}, which isn't read"
    return None
