"""Request bodies, received within limits of size, time and memory.

Neither uvicorn nor Ray Serve has such limits. `RequestBody.read` returns a whole body,
`RequestBody.files` the files of a multipart form (https://www.rfc-editor.org/rfc/rfc7578).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from fastapi import Request
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.exceptions import HTTPException

from pawcast.errors import ImageError
from pawcast.vision.decode import MAX_BYTES

from ..limits import ServiceLimits, busy

# `wbits` of `zlib.decompressobj` for each Content-Encoding.
_WBITS = {"identity": 0, "gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class BodyReader:
    """Receives the bodies of one replica's requests, and limits what they hold together.

    Bytes are counted as they arrive. If announced lengths were reserved instead, a few slow clients
    could reserve all of the memory.
    """

    def __init__(self, limits: ServiceLimits) -> None:
        self.limits = limits
        self._requests = self._held_bytes = 0

    @contextmanager
    def receive(self, request: Request) -> Iterator[RequestBody]:
        """Account for a request while the block runs. Read its body once, in one of the two ways.

        Raises:
            BusyError: If this replica has too many requests or bodies already.
            HTTPException: 413 or 415 if the headers announce a body that is refused.
        """
        if self._requests >= self.limits.requests:
            raise busy(f"{self._requests:,} requests at once", f"at most {self.limits.requests:,}")
        body = RequestBody(self, request)
        self._requests += 1
        try:
            yield body
        finally:
            self._requests -= 1
            self._held_bytes -= body.size

    def hold(self, size: int) -> None:
        """Count bytes that are held in memory. Raises as `require`."""
        self.require(size)
        self._held_bytes += size

    def require(self, size: int) -> None:
        """Raise `BusyError` if so many bytes more would exceed the memory for bodies."""
        if self._held_bytes + size > self.limits.held_bytes:
            expected = f"at most {self.limits.held_bytes >> 20:,} MiB with this request"
            raise busy(f"{self._held_bytes >> 20:,} MiB of photos in memory", expected)


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
    """

    def __init__(self, reader: BodyReader, request: Request) -> None:
        self._reader, self._request, self._limits = reader, request, reader.limits
        self.size = 0
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in _WBITS:
            raise HTTPException(415, f"Unsupported Content-Encoding {encoding}; send gzip, deflate or none.")
        self._wbits = _WBITS[encoding]
        content_length = request.headers.get("content-length", "")
        if content_length.isdecimal():
            if int(content_length) > self._limits.body_bytes:
                raise self._too_large()
            reader.require(int(content_length))

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

    async def _receive(self, feed: Callable[[bytes], None]) -> None:
        """Pass the body to a function, chunk by chunk."""
        decompressor = zlib.decompressobj(self._wbits) if self._wbits else None
        try:
            async with asyncio.timeout(self._limits.receive_seconds):
                async for received in self._request.stream():
                    chunk = self._decompress(decompressor, received) if decompressor else received
                    if self.size + len(chunk) > self._limits.body_bytes:
                        raise self._too_large()
                    self._reader.hold(len(chunk))
                    self.size += len(chunk)
                    feed(chunk)
        except TimeoutError:
            line = f"The body didn't arrive within {self._limits.receive_seconds:g} s; send less at once."
            # Otherwise the client could go on sending.
            raise HTTPException(408, line, headers={"connection": "close"}) from None
        if decompressor and not decompressor.eof:
            raise HTTPException(400, "The compressed body is truncated.")

    def _decompress(self, decompressor: zlib._Decompress, chunk: bytes) -> bytes:
        """Return at most one byte more than allowed."""
        try:
            data = decompressor.decompress(chunk, self._limits.body_bytes - self.size + 1)
        except zlib.error as error:
            raise HTTPException(400, f"The body can't be decompressed: {error}.") from None
        if decompressor.unused_data:
            raise HTTPException(400, "The body has bytes after the end of the compressed data.")
        return data

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"The body is larger than {self._limits.body_bytes >> 20} MiB; send fewer photos.")


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
        name, content_type = self._part.filename, self._part.content_type
        if name is None and content_type in (None, "text/plain"):
            return
        if len(self._files) == self._max_files:
            raise HTTPException(400, f"The form holds more than {self._max_files} photos; send fewer at once.")
        content: bytes | ImageError = b"".join(self._part_chunks)
        if self._part.size > MAX_BYTES:
            content = ImageError(f"larger than {MAX_BYTES >> 20} MiB")
        if name and not name.isascii():
            name = name.encode("latin-1").decode(errors="replace")
        self._files.append(FormFile(name or "photo", content))
