"""Parts of a file as seekable files of their own: a range of its bytes, stored or deflated."""

from __future__ import annotations

import bisect
import io
import os
import threading
import zlib
from typing import NamedTuple

_STEP = 2**20
_MAX_STATES = 1_024  # About 40 KiB each.
_CHUNK = 64 * 2**10


class FileRange(io.RawIOBase):
    """A range of a file as a seekable file.

    Args:
        file: The file.
        start: Position of the range in it.
        size: Bytes of the range.
    """

    def __init__(self, file: io.FileIO, start: int, size: int) -> None:
        self.file, self.start, self.size = file, start, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if position < 0:
            raise OSError("Invalid argument")
        self._position = position
        return position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        data = self.read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read_at(self, position: int, size: int) -> bytes:
        """Return `size` bytes from `position` on, fewer at the end. Any thread may call it."""
        return os.pread(self.file.fileno(), max(0, min(size, self.size - position)), self.start + position)


class _State(NamedTuple):
    """Where inflating can begin: a position in the inflated and in the compressed bytes."""

    position: int
    compressed_position: int
    decompressor: zlib._Decompress


class InflatedRange(FileRange):
    """A deflated range of a file as a seekable file of the inflated bytes.

    It is inflated once from end to end when it is opened, and the decompressor's state is kept
    every megabyte or so. Any position is then reached by inflating from the nearest state.

    Args:
        compressed: The deflated range.
        size: Bytes once inflated.

    Raises:
        EOFError, zlib.error: If it is damaged.
    """

    def __init__(self, compressed: FileRange, size: int) -> None:
        super().__init__(compressed.file, compressed.start, size)
        self._compressed, self._lock = compressed, threading.Lock()
        self._restore(_State(0, 0, zlib.decompressobj(-zlib.MAX_WBITS)))
        self._states = [self._state()]
        while self._block_end < size:
            self._advance()
            if self._block_end >= self._states[-1].position + max(_STEP, size // _MAX_STATES):
                self._states.append(self._state())

    def read_at(self, position: int, size: int) -> bytes:
        data = b""
        end = min(position + size, self.size)
        with self._lock:
            nearest = self._states[bisect.bisect_right(self._states, position, key=lambda state: state.position) - 1]
            if position < self._block_start or nearest.position > self._block_end:
                self._restore(nearest)
            while position + len(data) < end:
                if position + len(data) >= self._block_end:
                    self._advance()
                else:
                    data += self._block[position + len(data) - self._block_start :][: end - position - len(data)]
        return data

    @property
    def _block_end(self) -> int:
        return self._block_start + len(self._block)

    def _state(self) -> _State:
        return _State(self._block_end, self._compressed_position, self._decompressor.copy())

    def _restore(self, state: _State) -> None:
        # The block is what was inflated last.
        self._block, self._block_start = b"", state.position
        self._compressed_position, self._decompressor = state.compressed_position, state.decompressor.copy()

    def _advance(self) -> None:
        """Inflate the next block."""
        data = self._decompressor.unconsumed_tail
        if not data:
            data = self._compressed.read_at(self._compressed_position, _CHUNK)
            self._compressed_position += len(data)
        block = self._decompressor.decompress(data, _CHUNK)
        if not block and (not data or self._decompressor.eof):
            raise EOFError("it ends too early")
        self._block_start, self._block = self._block_end, block
