"""A small HTTP server that answers as a Pawcast service does, or as a test says."""

from __future__ import annotations

import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Response = tuple[int, dict[str, str], object]
"""Status, headers and body."""


class StubService(ThreadingHTTPServer):
    """Answers as the service does, with a checksum of the bytes as the score.

    Each of the `rules` may answer a request first. It gets the request's number and its photos.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.model = "sums@1"
        self.about: object = {"model": "sums", "version": 1, "classes": ["cat", "dog"], "files": {"w": "x"}}
        self.rules: list[Callable[[int, list[bytes]], Response | None]] = []
        self.request_sizes: list[int] = []
        self.photos: list[list[bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""

    def answer(self, photos: list[bytes]) -> Response:
        for rule in self.rules:
            if response := rule(len(self.request_sizes), photos):
                return response
        items = [
            {"id": str(i), "error": "no\nphoto"} if data == b"bad" else {"id": str(i), "scores": scores(data)}
            for i, data in enumerate(photos)
        ]
        return 200 if any("scores" in item for item in items) else 422, {}, {"model": self.model, "predictions": items}


def scores(data: bytes) -> dict[str, float]:
    """The scores that the stub gives a photo."""
    score = zlib.crc32(data) / 2**32
    return {"cat": 1 - score, "dog": score}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StubService

    def do_GET(self) -> None:
        response = self.server.about
        self._send(response if isinstance(response, tuple) else (200, {}, response))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.times.append(time.monotonic())
        self.server.request_sizes.append(len(body))
        self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
        photos = [body]
        if boundary := re.search("boundary=(.+)", self.headers["content-type"]):
            parts = body.split(b"--" + boundary[1].encode())[1:-1]
            photos = [part.partition(b"\r\n\r\n")[2][:-2] for part in parts]
        self.server.photos.append(photos)
        self._send(self.server.answer(photos))

    def _send(self, response: Response) -> None:
        status, headers, content = response
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response_only(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def first(
    count: int, status: int, headers: dict[str, str] | None = None
) -> Callable[[int, list[bytes]], Response | None]:
    """A rule that refuses the first `count` requests."""
    return lambda number, photos: (status, headers or {}, {"error": "later"}) if number <= count else None


@contextmanager
def running() -> Iterator[StubService]:
    """Run a stub in a thread until the block ends."""
    with StubService() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
