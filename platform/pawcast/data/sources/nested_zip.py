"""Read a zip within a zip in place, as Kaggle packs a competition: `dogs-vs-cats.zip/train.zip`.

A stored inner zip is a range of bytes of the outer file. A deflated one is inflated once from end
to end when it is opened, and the decompressor's state is kept every megabyte or so. Any position is
then reached by inflating from the nearest state.
"""

from __future__ import annotations

import bisect
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

_STEP = 2**20
_MAX_STATES = 1_024  # About 40 KiB each.
_CHUNK = 64 * 2**10
_LOCAL_HEADER = struct.Struct("<4s22xHH")


def split_path(path: str) -> tuple[Path, str]:
    """Split a path into a file on the disk and the member named by the rest (empty if none)."""
    whole = Path(path)
    if whole.exists():
        return whole, ""
    for outer in whole.parents:
        if outer.is_file():
            return outer, whole.relative_to(outer).as_posix()
        if outer.exists():
            break
    return whole, ""


def open_member(file: io.RawIOBase, info: zipfile.ZipInfo) -> io.RawIOBase:
    """Return a member of a zip as a seekable file.

    Args:
        file: The zip, a file on the disk.
        info: The member, stored or deflated.

    Raises:
        ValueError, EOFError, zlib.error: If the member is damaged.
    """
    header = os.pread(file.fileno(), _LOCAL_HEADER.size, info.header_offset)
    signature, name_size, extra_size = _LOCAL_HEADER.unpack(header)
    if signature != b"PK\x03\x04":
        raise ValueError("damaged header")
    start = info.header_offset + _LOCAL_HEADER.size + name_size + extra_size
    member = StoredMember if info.compress_type == zipfile.ZIP_STORED else DeflatedMember
    return member(file, start, info.compress_size, info.file_size)


class StoredMember(io.RawIOBase):
    """A stored member as a seekable file.

    Args:
        file: The zip. Closed together with the member.
        start: Position of the member's data in it.
        compressed_size: Bytes of the data.
        size: Bytes of the member.
    """

    def __init__(self, file: io.RawIOBase, start: int, compressed_size: int, size: int) -> None:
        self._file, self._start, self._compressed_size, self._size = file, start, compressed_size, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if position < 0:
            raise OSError("Invalid argument")
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: bytearray, /) -> int:  # type: ignore[override]
        size = min(len(buffer), self._size - self._position)
        data = self._read_at(self._position, size) if size > 0 else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _read_at(self, position: int, size: int) -> bytes:
        """Return at least one and at most `size` bytes."""
        return os.pread(self._file.fileno(), size, self._start + position)


class _State(NamedTuple):
    """Where inflating can begin: a position in the member, and in its compressed data."""

    position: int
    compressed_position: int
    decompressor: zlib._Decompress


class DeflatedMember(StoredMember):
    """A deflated member as a seekable file."""

    def __init__(self, file: io.RawIOBase, start: int, compressed_size: int, size: int) -> None:
        super().__init__(file, start, compressed_size, size)
        self._decompressor, self._compressed_position = zlib.decompressobj(-zlib.MAX_WBITS), 0
        # The inflated block that was read last.
        self._block, self._block_start = b"", 0
        self._states = [_State(0, 0, self._decompressor.copy())]
        step = max(_STEP, size // _MAX_STATES)
        while self._block_end < size:
            self._advance()
            if self._block_end >= self._states[-1].position + step:
                self._states.append(_State(self._block_end, self._compressed_position, self._decompressor.copy()))

    @property
    def _block_end(self) -> int:
        return self._block_start + len(self._block)

    def _read_at(self, position: int, size: int) -> bytes:
        nearest = self._states[bisect.bisect_right(self._states, position, key=lambda state: state.position) - 1]
        if position < self._block_start or nearest.position > self._block_end:
            self._block, self._block_start = b"", nearest.position
            self._compressed_position, self._decompressor = nearest.compressed_position, nearest.decompressor.copy()
        while position >= self._block_end:
            self._advance()
        return self._block[position - self._block_start :][:size]

    def _advance(self) -> None:
        """Inflate the next block."""
        compressed = self._decompressor.unconsumed_tail
        if not compressed:
            size = min(_CHUNK, self._compressed_size - self._compressed_position)
            compressed = os.pread(self._file.fileno(), size, self._start + self._compressed_position)
            self._compressed_position += len(compressed)
        block = self._decompressor.decompress(compressed, _CHUNK)
        if not block and (not compressed or self._decompressor.eof):
            raise EOFError("the inner zip ends too early")
        self._block_start, self._block = self._block_end, block
