"""Read a zip of photos in place, without trusting it. README.md lists the threats."""

from __future__ import annotations

import contextlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from operator import attrgetter

from pawcast.data.sources.container import (
    DOWNLOAD,
    MAX_MEMBERS,
    PACK_AGAIN,
    UNPACK,
    Container,
    Entry,
    follow_links,
    refuse_ambiguous_names,
    refuse_bomb,
    too_large,
)
from pawcast.data.sources.labels import display_name, leads_out, normalize_path, refusal
from pawcast.data.sources.seekable import BoundedReader, FileRange, InflatedRange
from pawcast.errors import ImageError
from pawcast.vision.decode import MAX_BYTES

_ENCRYPTED = 0x1
_LOCAL_HEADER = struct.Struct("<4s22xHH")
# Bytes of name and extra fields that are read together with the header. They are rarely more.
_NAME_AND_EXTRA = 256
_HEAD_BYTES = 1_024  # Compressed, enough for a file's first bytes.
_MAX_TARGET = 4_096
_DIRECTORY_ENTRY = b"PK\x01\x02"
_REGULAR = (0, stat.S_IFREG)
# Not bzip2 and LZMA: 40 bytes of bzip2 can hold 40 MB.
_SUPPORTED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES"}
_READ_ERRORS = (OSError, EOFError, ValueError, struct.error, zlib.error)


class _DirectoryReader(BoundedReader):
    """Refuses a directory of too many members before `zipfile` parses it."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if (count := data.count(_DIRECTORY_ENTRY)) > MAX_MEMBERS:
            raise ValueError(f"it has too many members, {count:,} of at most {MAX_MEMBERS:,}")
        return data


class ZipArchive(Container):
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
        reader = _DirectoryReader(file)
        try:
            archive = zipfile.ZipFile(reader)
        except Exception as error:
            # Damage raises far more than BadZipFile: UnicodeDecodeError, struct.error, …
            raise refusal(path, "can't be opened as a zip", error, fix=DOWNLOAD) from None
        finally:
            reader.detach()
        self._infos = archive.infolist()
        self._by_name = archive.NameToInfo
        self._refuse_overlap(archive.start_dir)
        for name in self._by_name:
            if leads_out(name):
                received = repr(display_name(name))
                raise refusal(path, "holds a member whose path leads out of it", received, fix=PACK_AGAIN)
        self._targets: dict[str, str] = {}
        self._targets = self._find_targets()

    def entries(self) -> Iterator[Entry]:
        for info in self._infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            name = normalize_path(info.filename)
            if stat.S_ISLNK(kind):
                target = self._targets.get(info.filename, "")
                yield Entry(info.filename, name, "" if target else "link", target)
            elif not name.endswith("/"):
                yield Entry(info.filename, name, "" if kind in _REGULAR else "special")

    def check_photos(self, photos: Sequence[Entry]) -> None:
        """Refuse a zip of ambiguous names, without readable photos, or that inflates too much."""
        refuse_ambiguous_names(self._path, photos)
        infos = [self._by_name[photo.target or photo.member] for photo in photos]
        if all(map(_unsupported_reason, infos)):
            received = f"{display_name(infos[0].filename)} {_unsupported_reason(infos[0])}, and so on"
            raise refusal(self._path, "holds no photo that can be read", received, fix=UNPACK)
        usable = [info for info in infos if info.file_size <= MAX_BYTES]
        inflated, compressed = (sum(getattr(info, size) for info in usable) for size in ("file_size", "compress_size"))
        refuse_bomb(self._path, inflated, compressed)

    def read(self, member: str, limit: int = MAX_BYTES) -> bytes:
        info = self._info(member)
        if info.file_size > limit or info.compress_size > 2 * limit:
            raise too_large(limit)
        try:
            data = self._compressed_bytes(info)
            if info.compress_type == zipfile.ZIP_DEFLATED:
                # Never more than one byte beyond the declared size, whatever is inside.
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, info.file_size + 1)
        except _READ_ERRORS as error:
            raise _read_error(error) from None
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise ImageError("doesn't match its size or checksum in the archive")
        return data

    def head(self, member: str, size: int) -> bytes:
        info = self._info(member)
        try:
            data = self._file.read_at(info.header_offset, _LOCAL_HEADER.size + _NAME_AND_EXTRA + _HEAD_BYTES)
            data = data[_header_size(data) :][: info.compress_size]
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size) if info.compress_type else data[:size]
        except _READ_ERRORS as error:
            raise _read_error(error) from None

    def metadata(self, member: str) -> tuple[object, ...]:
        """Return a member's size and checksum, as the directory records them."""
        info = self._by_name[self._targets.get(member, member)]
        return info.file_size, info.CRC

    def open_member(self, name: str) -> FileRange:
        """Return a member as a seekable file of its own, such as a zip within this zip."""
        path = f"{self._path}/{name}"
        info = self._by_name.get(name)
        if not info:
            archives = [
                display_name(member)
                for member in self._by_name
                if member.lower().endswith((".zip", ".tar", ".tgz", ".gz"))
            ]
            expected = ", ".join(archives[:5]) or "an archive in it"
            raise refusal(self._path, f"holds no {display_name(name)}", expected=expected, fix="name one of them")
        if reason := _unsupported_reason(info):
            raise refusal(path, reason, fix=UNPACK)
        refuse_bomb(path, info.file_size, info.compress_size)
        try:
            header = self._file.read_at(info.header_offset, _LOCAL_HEADER.size)
            inner = FileRange(self._file.file, info.header_offset + _header_size(header), info.compress_size)
            return InflatedRange(inner, info.file_size) if info.compress_type else inner
        except _READ_ERRORS as error:
            raise refusal(path, "can't be opened", error, fix=DOWNLOAD) from None

    def _info(self, member: str) -> zipfile.ZipInfo:
        info = self._by_name.get(self._targets.get(member, member))
        if not info:
            raise ImageError("is no longer in the archive")
        if reason := _unsupported_reason(info):
            raise ImageError(reason)
        return info

    def _find_targets(self) -> dict[str, str]:
        """Return the file in this zip that each link leads to. A link's bytes are its target."""
        links = {}
        for info in self._infos:
            if stat.S_ISLNK(info.external_attr >> 16):
                with contextlib.suppress(ImageError):
                    links[info.filename] = self.read(info.filename, _MAX_TARGET).decode(errors="surrogateescape")
        return follow_links(links, set(self._by_name) - set(links)) if links else {}

    def _compressed_bytes(self, info: zipfile.ZipInfo) -> bytes:
        """Return a member's bytes as stored. `zipfile` takes five times as long for a photo."""
        size = _LOCAL_HEADER.size + _NAME_AND_EXTRA + info.compress_size
        data = self._file.read_at(info.header_offset, size)
        start = _header_size(data)
        if start + info.compress_size > size:
            data = self._file.read_at(info.header_offset, start + info.compress_size)
        return data[start : start + info.compress_size]

    def _refuse_overlap(self, directory_start: int) -> None:
        """Refuse members that share bytes: a small file could inflate to petabytes."""
        infos = sorted(self._infos, key=attrgetter("header_offset"))
        starts = [info.header_offset for info in infos] + [directory_start]
        for info, (start, following) in zip(infos, pairwise(starts), strict=True):
            if start < 0 or start + _LOCAL_HEADER.size + info.compress_size > following:
                what = "holds members that overlap, or lie outside of the file"
                fix = f"{DOWNLOAD}. If that doesn't help, don't use it"
                raise refusal(self._path, what, repr(display_name(info.filename)), fix=fix)


def _header_size(header: bytes) -> int:
    signature, name_size, extra_size = _LOCAL_HEADER.unpack_from(header)
    if signature != b"PK\x03\x04":
        raise ValueError("damaged header")
    return _LOCAL_HEADER.size + name_size + extra_size


def _read_error(error: Exception) -> ImageError:
    return ImageError(f"can't be read from the archive ({type(error).__name__})")


def _unsupported_reason(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in _SUPPORTED:
        return f"is compressed by {_METHODS.get(info.compress_type, f'method {info.compress_type}')}, which isn't read"
    return None
