"""Bodies of requests, received within limits of size, time and memory: neither uvicorn nor Serve has any."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import Request
from starlette.exceptions import HTTPException

from pawcast.errors import BusyError

from ..limits import ServiceLimits
from .multipart import FormFile, MultipartReader

_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


class BodyReader:
    """Takes in the bodies of one replica's requests, and knows what all of them hold together."""

    def __init__(self, limits: ServiceLimits) -> None:
        self.limits = limits
        self._requests = self._held = 0

    @contextmanager
    def receive(self, request: Request) -> Iterator[RequestBody]:
        """Account for a request while the block runs; its body can be read once, by one of the two ways.

        Raises:
            BusyError: If the replica holds enough requests or bodies already.
            HTTPException: 413 or 415 if the headers say that the body can't be taken.
        """
        if self._requests >= self.limits.requests:
            raise _busy(f"{self._requests:,} requests at once", f"at most {self.limits.requests:,}")
        incoming = RequestBody(self, request)
        self._requests += 1
        try:
            yield incoming
        finally:
            self._requests -= 1
            self._held -= incoming.held

    def hold(self, incoming: RequestBody, size: int) -> None:
        """Count bytes that a request holds. Raises `BusyError` if all of them are too many."""
        self.require(size)
        self._held += size
        incoming.held += size

    def require(self, size: int) -> None:
        """Raise `BusyError` if there is no memory for so many bytes more."""
        if self._held + size > self.limits.held_bytes:
            held = f"{self._held >> 20:,} MiB of photos in memory"
            raise _busy(held, f"at most {self.limits.held_bytes >> 20:,} MiB with this request")


class RequestBody:
    """One request's body.

    Attributes:
        held: Bytes of it in memory.
    """

    def __init__(self, intake: BodyReader, request: Request) -> None:
        self._intake, self._request, self._limits = intake, request, intake.limits
        self.held = 0
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if coding != "identity" and coding not in _WINDOW:
            raise HTTPException(415, f"Content-Encoding {coding} isn't read; send gzip, deflate or none.")
        self._window = _WINDOW.get(coding)
        length = request.headers.get("content-length", "")
        if length.isdecimal():
            if int(length) > self._limits.body_bytes:
                raise self._too_large()
            intake.require(int(length))

    async def whole(self) -> bytes:
        """Return the whole body, inflated.

        Raises:
            BusyError: If the bodies of all requests become too much to hold.
            HTTPException: 400, 408 or 413.
        """
        async with self._in_time():
            return b"".join([chunk async for chunk in self._chunks()])

    async def photos(self) -> list[FormFile]:
        """Return the files of a multipart form as (file name, bytes), whatever the names of their fields.

        Raises:
            BusyError: As for `whole`.
            HTTPException: 400, 408 or 413.
        """
        form = MultipartReader(self._request.headers["content-type"], self._limits.photos)
        async with self._in_time():
            async for chunk in self._chunks():
                form.feed(chunk)
        return form.end()

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._limits.receive_seconds):
                yield
        except TimeoutError:
            raise HTTPException(
                408,
                f"The body didn't arrive within {self._limits.receive_seconds:g} s; send less at once.",
                # Or the client could go on sending for ever.
                headers={"connection": "close"},
            ) from None

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        inflater = zlib.decompressobj(self._window) if self._window else None
        async for chunk in self._request.stream():
            if inflater:
                # What inflates to more than there is room for is stopped one byte beyond.
                try:
                    chunk = inflater.decompress(chunk, self._limits.body_bytes - self.held + 1)
                except zlib.error as error:
                    raise HTTPException(400, f"The body can't be inflated: {error}.") from None
                if inflater.unused_data:
                    raise HTTPException(400, "The body goes on after its compressed end.")
            if self.held + len(chunk) > self._limits.body_bytes:
                raise self._too_large()
            self._intake.hold(self, len(chunk))
            yield chunk
        if inflater and not inflater.eof:
            raise HTTPException(400, "The compressed body is cut short.")

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"The body is larger than {self._limits.body_bytes >> 20} MiB; send fewer photos.")


def _busy(received: str, expected: str) -> BusyError:
    return BusyError("The server is busy", received=received, expected=expected, fix="try again in a second")
