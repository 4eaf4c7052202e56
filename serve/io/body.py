"""Request bodies, received within limits of size, time and memory.

Neither uvicorn nor Ray Serve has such limits. `RequestBody.read` returns a whole body,
`RequestBody.files` the files of a multipart form (https://www.rfc-editor.org/rfc/rfc7578).
"""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple
from urllib.parse import unquote

from fastapi import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.exceptions import HTTPException

from pawcast.errors import ImageError
from pawcast.vision.decode import MAX_BYTES

from ..limits import ServiceLimits, busy

# A body that is idle for longer makes room for others when memory is short.
_IDLE_SECONDS = 1.0
# The highest compression of a body of more than `_ANY_RATIO_BYTES`. Real photos, pixels and text
# are far below it; a body of zeros would cost much more time than its transfer.
_MAX_RATIO, _ANY_RATIO_BYTES = 100, 2**20
_MAX_GZIP_MEMBERS = 4_096
# The name in the form of RFC 5987, which some clients send for names that aren't ASCII.
_EXTENDED_NAME = re.compile(r"""filename\*\s*=\s*"?([\w-]*)'[^']*'([^;"]*)""", re.IGNORECASE)
# `wbits` of `zlib.decompressobj` for each Content-Encoding.
_WBITS = {"identity": 0, "gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class BodyReader:
    """Receives the bodies of one replica's requests, and limits what they hold together.

    Bytes are counted as they arrive. If announced lengths were reserved instead, a few slow clients
    could reserve all of the memory. For the same reason a request counts as one of
    `limits.requests` only once its body is there. Until then it may have to make room for others,
    the one that has been idle longest first.
    """

    def __init__(self, limits: ServiceLimits) -> None:
        self.limits = limits
        self._requests = self._held_bytes = 0
        # By when their last bytes came.
        self._arriving: dict[RequestBody, float] = {}

    @contextmanager
    def receive(self, request: Request) -> Iterator[RequestBody]:
        """Account for a request while the block runs. Read its body once, in one of the two ways.

        Raises:
            BusyError: If this replica has too many bodies already.
            HTTPException: 413 or 415 if the headers announce a body that is refused.
        """
        body = RequestBody(self, request)
        try:
            yield body
        finally:
            self._arriving.pop(body, None)
            self._held_bytes -= body.size
            self._requests -= body.is_complete

    def hold(self, body: RequestBody, size: int) -> None:
        """Count bytes of a body that arrive.

        Raises:
            BusyError: If the bodies of all requests take too much memory.
        """
        self._arriving.pop(body, None)
        self.make_room(size)
        if len(self._arriving) >= self.limits.arriving:
            self._drop_longest_idle()
        self._arriving[body] = time.monotonic()
        self._held_bytes += size
        body.size += size

    def make_room(self, size: int) -> None:
        """Raise `BusyError` if so many bytes more would exceed the memory for bodies."""
        idle_since = time.monotonic() - _IDLE_SECONDS
        while self._held_bytes + size > self.limits.held_bytes:
            if not self._arriving or next(iter(self._arriving.values())) > idle_since:
                expected = f"at most {self.limits.held_bytes >> 20:,} MiB with this request"
                raise busy(f"{self._held_bytes >> 20:,} MiB of photos in memory", expected)
            self._drop_longest_idle()

    def complete(self, body: RequestBody) -> None:
        """Count a request whose body is there. Raises `BusyError` if there are too many."""
        self._arriving.pop(body, None)
        if self._requests >= self.limits.requests:
            raise busy(f"{self._requests:,} requests at once", f"at most {self.limits.requests:,}")
        self._requests += 1
        body.is_complete = True

    def _drop_longest_idle(self) -> None:
        body = next(iter(self._arriving))
        del self._arriving[body]
        self._held_bytes -= body.size
        body.drop()


class FormFile(NamedTuple):
    """A file of a multipart form.

    Attributes:
        name: The file's name as the client sent it, or `photo`.
        content: The file's bytes, or an error if it is too large.
    """

    name: str
    content: bytes | ImageError


class RequestBody:
    """The body of one request.

    Attributes:
        size: Bytes received so far, after decompression.
        is_complete: Whether the body is there.
    """

    def __init__(self, reader: BodyReader, request: Request) -> None:
        self._reader, self._request, self._limits = reader, request, reader.limits
        self.size, self.is_complete, self._is_dropped = 0, False, False
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in _WBITS:
            raise HTTPException(415, f"Unsupported Content-Encoding {encoding}; send gzip, deflate or none.")
        self._decompressor = _Decompressor(_WBITS[encoding], self._limits.body_bytes) if _WBITS[encoding] else None
        content_length = request.headers.get("content-length", "")
        if content_length.isdecimal():
            if int(content_length) > self._limits.body_bytes:
                raise self._too_large()
            reader.make_room(int(content_length))

    async def read(self) -> bytes:
        """Return the whole body, decompressed.

        Raises:
            BusyError: If the bodies of all requests take too much memory.
            HTTPException: 400, 408 or 413.
        """
        chunks: list[bytes] = []
        await self._receive(chunks.append)
        return b"".join(chunks)

    async def files(self) -> list[FormFile]:
        """Return the files of a multipart form, whatever the names of their fields.

        Raises:
            BusyError: If the bodies of all requests take too much memory.
            HTTPException: 400, 408 or 413.
        """
        try:
            form = MultipartForm(self._request.headers["content-type"], self._limits.photos)
            await self._receive(form.feed)
            return form.close()
        except MultipartError as error:
            raise HTTPException(400, f"The form can't be read: {error}.") from None

    def drop(self) -> None:
        """Stop receiving, and forget what has arrived: others need the room."""
        self.size, self._is_dropped = 0, True
        if not self._timeout.expired():
            self._timeout.reschedule(0)

    async def _receive(self, feed: Callable[[bytes], None]) -> None:
        """Pass the body to a function, chunk by chunk."""
        seconds, decompressor = self._limits.receive_seconds, self._decompressor
        try:
            async with asyncio.timeout(seconds) as self._timeout:
                self._reader.hold(self, 0)
                async for received in self._request.stream():
                    if self._is_dropped:
                        raise TimeoutError
                    chunk = decompressor.feed(received) if decompressor else received
                    if self.size + len(chunk) > self._limits.body_bytes:
                        raise self._too_large()
                    self._reader.hold(self, len(chunk))
                    feed(chunk)
        except TimeoutError:
            line = f"The body didn't arrive within {seconds:g} s; send less at once."
            if self._is_dropped:
                line = "The body came too slowly while many others arrived; send it again."
            # Otherwise the client could go on sending.
            raise HTTPException(408, line, headers={"connection": "close"}) from None
        if decompressor and not decompressor.is_complete:
            raise HTTPException(400, "The compressed body is truncated.")
        self._reader.complete(self)

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"The body is larger than {self._limits.body_bytes >> 20} MiB; send fewer photos.")


class _Decompressor:
    """Decompresses deflate, or gzip of one or more members, chunk by chunk.

    Args:
        wbits: As for `zlib.decompressobj`.
        max_bytes: The most bytes that are wanted. At most one byte more is returned.
    """

    def __init__(self, wbits: int, max_bytes: int) -> None:
        self._wbits, self._max_bytes = wbits, max_bytes
        self._zlib = zlib.decompressobj(wbits)
        self._received = self._returned = self._members = 0

    @property
    def is_complete(self) -> bool:
        """Whether the compressed data has come to its end."""
        return self._zlib.eof

    def feed(self, data: bytes) -> bytes:
        """Return the data of the next bytes. Raises an `HTTPException` of 400 or 413."""
        self._received += len(data)
        longest_by_ratio = _ANY_RATIO_BYTES + _MAX_RATIO * self._received
        longest = min(self._max_bytes, longest_by_ratio)
        pieces = []
        while data and self._returned <= longest:
            if self._zlib.eof:
                self._members += 1
                if self._wbits == zlib.MAX_WBITS or self._members > _MAX_GZIP_MEMBERS:
                    raise HTTPException(400, "The body has bytes after the end of the compressed data.")
                self._zlib = zlib.decompressobj(self._wbits)
            try:
                pieces.append(self._zlib.decompress(data, longest - self._returned + 1))
            except zlib.error as error:
                raise HTTPException(400, f"The body can't be decompressed: {error}.") from None
            self._returned += len(pieces[-1])
            data = self._zlib.unused_data
        if self._returned > longest_by_ratio:
            raise HTTPException(413, f"The body is compressed to less than 1/{_MAX_RATIO}; send it uncompressed.")
        return b"".join(pieces)


class MultipartForm:
    """Parses a multipart form chunk by chunk.

    Its methods raise `MultipartError`, or an `HTTPException` of 400.

    Args:
        content_type: The request's Content-Type, which holds the boundary between parts.
        max_files: Most files.
    """

    def __init__(self, content_type: str, max_files: int) -> None:
        self._max_files = max_files
        self._files: list[FormFile] = []
        # The part that is arriving. Its headers come before its bytes.
        self._part: MultipartSegment
        self._part_chunks: list[bytes] = []
        boundary = parse_options_header(content_type)[1].get("boundary", "")
        # Text fields are allowed, but not endlessly many. Latin-1 decodes every byte: a file name
        # that isn't UTF-8 must not fail the form.
        self._parser = PushMultipartParser(boundary, max_segment_count=2 * max_files, header_charset="latin-1")

    def feed(self, chunk: bytes) -> None:
        """Parse the next bytes."""
        # The parser takes an empty chunk as the end.
        for event in self._parser.parse(chunk) if chunk else ():
            if isinstance(event, MultipartSegment):
                self._part, self._part_chunks = event, []
            elif event:
                self._part_chunks.append(event)
            else:
                self._end_part()

    def close(self) -> list[FormFile]:
        """Return the files of the complete form, in order."""
        self._parser.close()
        if not self._files:
            raise HTTPException(400, "The form holds no photo. Expected: at least one file field.")
        return self._files

    def _end_part(self) -> None:
        """Keep a complete part if it is a file."""
        name, content_type = _file_name(self._part), self._part.content_type
        if name is None and content_type in (None, "text/plain"):
            return
        # A browser's file input without a file.
        if name == "" and not self._part.size:
            return
        if len(self._files) == self._max_files:
            raise HTTPException(400, f"The form holds more than {self._max_files} photos; send fewer at once.")
        content: bytes | ImageError = b"".join(self._part_chunks)
        if self._part.size > MAX_BYTES:
            content = ImageError(f"larger than {MAX_BYTES >> 20} MiB")
        self._files.append(FormFile(name or "photo", content))


def _file_name(part: MultipartSegment) -> str | None:
    if extended := _EXTENDED_NAME.search(part.header("Content-Disposition", "")):
        with suppress(LookupError):  # an unknown encoding
            return unquote(extended[2].strip(), extended[1] or "utf-8", "replace")
    name: str | None = part.filename
    return name.encode("latin-1").decode(errors="replace") if name and not name.isascii() else name
