"""A zip within a zip, as Kaggle packs a competition, read in place: `dogs-vs-cats.zip/train.zip`.

A stored inner zip is a window on the outer file. A deflated one is inflated once from end to end, which is quick,
and the decompressor's state kept every megabyte or so: any place is then reached by inflating one step.
"""

from __future__ import annotations

import bisect
import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

_STEP = 2**20
_MOST_STATES = 1_024  # Of some 40 KiB each.
_CHUNK = 64 * 2**10
_LOCAL_HEADER = struct.Struct("<4s22xHH")


def split(path: str) -> tuple[Path, str]:
    """Return a path's file on the disk, and what follows it, which then is a member of it."""
    place = Path(path)
    if place.exists():
        return place, ""
    for outer in place.parents:
        if outer.is_file():
            return outer, place.relative_to(outer).as_posix()
        if outer.exists():
            break
    return place, ""


def opened(file: io.RawIOBase, info: zipfile.ZipInfo) -> io.RawIOBase:
    """Return a member as a file that can be read from any place. Raises `ValueError` if it is damaged."""
    header = os.pread(file.fileno(), _LOCAL_HEADER.size, info.header_offset)
    signature, name, extra = _LOCAL_HEADER.unpack(header)
    if signature != b"PK\x03\x04":
        raise ValueError("damaged header")
    start = info.header_offset + _LOCAL_HEADER.size + name + extra
    kind = _Window if info.compress_type == zipfile.ZIP_STORED else _Inflated
    return kind(file, start, info.compress_size, info.file_size)


class _Window(io.RawIOBase):
    """Bytes `start` to `start + packed` of a file."""

    def __init__(self, file: io.RawIOBase, start: int, packed: int, size: int) -> None:
        self._file, self._start, self._packed, self._size, self._place = file, start, packed, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if place < 0:
            raise OSError("Invalid argument")
        self._place = place
        return place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: bytearray, /) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._size - self._place)
        data = self._bytes(self._place, wanted) if wanted > 0 else b""
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _bytes(self, place: int, size: int) -> bytes:
        """Return at least one and at most `size` bytes."""
        return os.pread(self._file.fileno(), size, self._start + place)


class _Inflated(_Window):
    """The same, deflated."""

    def __init__(self, file: io.RawIOBase, start: int, packed: int, size: int) -> None:
        super().__init__(file, start, packed, size)
        self._inflater, self._read, self._block, self._block_start = zlib.decompressobj(-zlib.MAX_WBITS), 0, b"", 0
        self._states = [(0, 0, self._inflater.copy())]
        step = max(_STEP, size // _MOST_STATES)
        while self._block_start + len(self._block) < size:
            self._advance()
            if self._block_start + len(self._block) >= self._states[-1][0] + step:
                self._states.append((self._block_start + len(self._block), self._read, self._inflater.copy()))

    def _bytes(self, place: int, size: int) -> bytes:
        nearest = self._states[bisect.bisect_right(self._states, place, key=lambda state: state[0]) - 1]
        if not self._block_start <= place or nearest[0] > self._block_start + len(self._block):
            self._block_start, self._read, self._block = nearest[0], nearest[1], b""
            self._inflater = nearest[2].copy()
        while place >= self._block_start + len(self._block):
            self._advance()
        return self._block[place - self._block_start :][:size]

    def _advance(self) -> None:
        """Inflate the next block."""
        packed = self._inflater.unconsumed_tail
        if not packed:
            wanted = min(_CHUNK, self._packed - self._read)
            packed = os.pread(self._file.fileno(), wanted, self._start + self._read)
            self._read += len(packed)
        block = self._inflater.decompress(packed, _CHUNK)
        if not block and (not packed or self._inflater.eof):
            raise EOFError("the inner zip ends too early")
        self._block_start, self._block = self._block_start + len(self._block), block
