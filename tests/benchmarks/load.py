"""A closed loop of HTTP requests over kept connections: requests per second, and their latencies.

The client shares the machine with the server, so it must be cheaper than an HTTP library: requests
are bytes made in advance, and of a response only the status and the length are parsed.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_LONGEST = 120
_MOST = 50_000
_BOUNDARY = b"a-boundary-that-no-photo-holds"


class LoadError(RuntimeError):
    """A request that got no response, or one with a status other than 200."""


class Measured(NamedTuple):
    """The result of a loop.

    Attributes:
        per_second: Responses per second.
        milliseconds: Each request's latency, from its first byte to the last byte of its response.
        answers: The body of the first response of each connection.
    """

    per_second: float
    milliseconds: list[float]
    answers: list[bytes]

    def percentiles(self) -> dict[str, float]:
        """Return the latency's 50th, 95th and 99th percentile, in milliseconds."""
        values = np.percentile(self.milliseconds, [50, 95, 99])
        return dict(zip(("p50", "p95", "p99"), map(float, values), strict=True))


def request(path: str, body: bytes, content_type: str) -> bytes:
    """Return a whole POST request."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


def form(path: str, field: str, photos: Sequence[bytes]) -> bytes:
    """Return a POST request with the photos as files of a multipart form, all of one field."""
    parts = []
    for number, photo in enumerate(photos):
        head = f'content-disposition: form-data; name="{field}"; filename="{number}.jpg"\r\ncontent-type: image/jpeg'
        parts += [b"--", _BOUNDARY, b"\r\n", head.encode(), b"\r\n\r\n", photo, b"\r\n"]
    body = b"".join([*parts, b"--", _BOUNDARY, b"--\r\n"])
    return request(path, body, f"multipart/form-data; boundary={_BOUNDARY.decode()}")


def run(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Measured:
    """Send the requests in turn, over some connections, for some seconds.

    Raises:
        LoadError: If a status is other than 200, or if a response takes more than two minutes.
    """
    try:
        return asyncio.run(_run(port, requests, connections, seconds))
    except ExceptionGroup as group:
        raise LoadError(repr(group.exceptions[0])) from None


async def _run(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Measured:
    following = itertools.cycle(requests)
    milliseconds: list[float] = []
    answers: list[bytes] = []
    started = time.perf_counter()
    deadline = started + seconds

    async def connection() -> None:
        first, stays = True, False
        while first or (time.perf_counter() < deadline and len(milliseconds) < _MOST):
            sent = time.perf_counter()
            if not stays:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
            writer.write(next(following))
            answer, stays = await asyncio.wait_for(_answer(reader), _LONGEST)
            milliseconds.append(1_000 * (time.perf_counter() - sent))
            if not stays:
                writer.close()
            if first:
                answers.append(answer)
            first = False
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(connection())
    return Measured(len(milliseconds) / (time.perf_counter() - started), milliseconds, answers)


async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """Return a response's body, and whether the server keeps the connection open."""
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines if line)
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    if not status.startswith("http/1.1 200"):
        raise LoadError(f"{status}: {body[:200]!r}")
    return body, headers.get("connection") != "close"
