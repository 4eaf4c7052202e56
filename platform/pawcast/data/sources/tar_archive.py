"""Read a tar of photos in place, plain or compressed by gzip, without trusting it."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Sequence

from pawcast.data.sources.container import (
    DOWNLOAD,
    MAX_MEMBERS,
    PACK_AGAIN,
    Container,
    Entry,
    follow_links,
    refuse_ambiguous_names,
    too_large,
)
from pawcast.data.sources.labels import display_name, leads_out, normalize_path, refusal
from pawcast.data.sources.seekable import BoundedReader, FileRange
from pawcast.errors import ImageError
from pawcast.vision.decode import MAX_BYTES


class TarArchive(Container):
    """A tar whose headers were read, so that its members can be read in any order.

    Args:
        path: The tar, for messages.
        file: Its bytes, decompressed.

    Raises:
        DataError: If the tar is damaged, ends too early, has too many members, or if a member's
            path leads out of it.
    """

    def __init__(self, path: str, file: FileRange) -> None:
        self._path, self._file = path, file
        self._members: dict[str, tarfile.TarInfo] = {}
        self._entries: list[Entry] = []
        reader = BoundedReader(file)
        try:
            links = self._read_headers(reader)
        except Exception as error:
            # Damage raises more than TarError: UnicodeDecodeError, ValueError, EOFError, …
            raise refusal(path, "can't be opened as a tar", error, fix=DOWNLOAD) from None
        finally:
            reader.detach()
        for name in (*self._members, *links):
            if leads_out(name):
                received = repr(display_name(name))
                raise refusal(path, "holds a member whose path leads out of it", received, fix=PACK_AGAIN)
        targets = follow_links(links, self._members)
        for link in links:
            kind = "" if link in targets else "link"
            self._entries.append(Entry(link, normalize_path(link), kind, targets.get(link, "")))
        self._members |= {link: self._members[target] for link, target in targets.items()}

    def entries(self) -> list[Entry]:
        return self._entries

    def check_photos(self, photos: Sequence[Entry]) -> None:
        refuse_ambiguous_names(self._path, photos)

    def head(self, member: str, size: int) -> bytes:
        info = self._info(member)
        return self._read_at(info, min(size, info.size))

    def read(self, member: str, limit: int = MAX_BYTES) -> bytes:
        info = self._info(member)
        if info.size > limit:
            raise too_large(limit)
        return self._read_at(info, info.size)

    def metadata(self, member: str) -> tuple[object, ...]:
        """Return a member's size and modification time, as its header records them."""
        info = self._members[member]
        return info.size, info.mtime

    def _read_headers(self, reader: BoundedReader) -> dict[str, str]:
        """Read all headers. Return the links, each with its target relative to its folder."""
        links: dict[str, str] = {}
        with tarfile.open(fileobj=reader, mode="r:") as archive:
            for count, info in enumerate(archive):
                if count >= MAX_MEMBERS:
                    raise ValueError(f"it has more than {MAX_MEMBERS:,} members")
                if info.issym():
                    links[info.name] = info.linkname
                elif info.islnk():
                    links[info.name] = posixpath.relpath(info.linkname, posixpath.dirname(info.name) or ".")
                elif not info.isdir():
                    kind = "" if info.isreg() and info.sparse is None else "special"
                    self._entries.append(Entry(info.name, normalize_path(info.name), kind))
                    self._members[info.name] = info
            end = archive.offset
        # tarfile takes a damaged header for the end. A whole tar has a block of zeros there.
        if end > self._file.size or any(self._file.read_at(end, tarfile.BLOCKSIZE)):
            raise ValueError(f"it is damaged at byte {end:,}")
        return links

    def _info(self, member: str) -> tarfile.TarInfo:
        try:
            return self._members[member]
        except KeyError:
            raise ImageError("is no longer in the archive") from None

    def _read_at(self, info: tarfile.TarInfo, size: int) -> bytes:
        try:
            data = self._file.read_at(info.offset_data, size)
        except Exception as error:
            raise ImageError(f"can't be read from the archive ({type(error).__name__})") from None
        if len(data) != size:
            raise ImageError("is cut off in the archive")
        return data
