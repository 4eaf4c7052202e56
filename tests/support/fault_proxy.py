"""A proxy before a real server that makes, on demand, what networks and servers do on bad days.

It forwards whole requests with all their headers, Host included, so signatures stay valid.
"""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

_PIECE = 64 * 1024


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


Fault = Callable[["Handler", bytes], None]
"""Deals with a request, whose body was read, in its own way."""


@dataclass
class Rule:
    """Do this to the next requests that fit."""

    fault: Fault
    method: str
    key: str
    times: int
    hits: int = 0


@dataclass
class Proxy:
    """Forwards 127.0.0.1:port to a server; rules say what goes wrong. Use as a context manager."""

    upstream: str
    rules: list[Rule] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    pause: float = 0.0
    """Seconds to wait after each 64 KiB of a request's body."""

    def __post_init__(self) -> None:
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._listen(0)
        self.port = int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def inject(self, fault: Fault, method: str = "", key: str = "", times: int = 1) -> Rule:
        """Let the next `times` requests with this method and this in their path go wrong."""
        rule = Rule(fault, method, key, times)
        with self._lock:
            self.rules.append(rule)
        return rule

    def reset(self) -> None:
        """Forget all rules and requests; end all stalls."""
        self.over.set()
        with self._lock:
            self.over = threading.Event()
            self.rules.clear()
            self.requests.clear()
            self.pause = 0.0

    @contextmanager
    def refusing(self, seconds: float) -> Iterator[None]:
        """Refuse connections from now on, until the time is over."""
        self._close()
        timer = threading.Timer(seconds, self._listen, [self.port])
        timer.start()
        try:
            yield
        finally:
            timer.join()

    def take(self, method: str, path: str) -> Fault | None:
        """Note a request; return what is to go wrong with it."""
        with self._lock:
            self.requests.append(f"{method} {path}")
            for rule in self.rules:
                if rule.hits < rule.times and rule.method in ("", method) and rule.key in path:
                    rule.hits += 1
                    return rule.fault
        return None

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exception: object) -> None:
        self.over.set()
        self._close()

    def _listen(self, port: int) -> None:
        self._server = _Server(("127.0.0.1", port), Handler)
        self._server.proxy = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def _close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    proxy: Proxy

    def server_bind(self) -> None:
        # A small window, so that a slow reader is felt by the sender.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE)
        super().server_bind()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that hang up are part of the play."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _handle(self) -> None:
        body = self._read()
        fault = self.server.proxy.take(self.command, self.path)
        if fault:
            fault(self, body)
        else:
            self.send(self.forward(body))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815

    def forward(self, body: bytes) -> Answer:
        """Ask the server."""
        connection = http.client.HTTPConnection(self.server.proxy.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection", "content-length", "transfer-encoding"):
                    connection.putheader(name, value)
            if self.command in ("PUT", "POST"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    def send(self, answer: Answer, part: float = 1.0) -> None:
        """Answer, with only a part of the body if asked; the headers promise all of it."""
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        length = {name.lower(): value for name, value in answer.headers}.get("content-length")
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[: int(len(answer.body) * part)])
        self.wfile.flush()

    def hang_up(self) -> None:
        """Reset the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _read(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return b"".join(iter(self._chunk, b""))
        left = int(self.headers.get("Content-Length") or 0)
        pieces = []
        while left:
            pieces.append(self.rfile.read(min(left, _PIECE)))
            left -= len(pieces[-1])
            time.sleep(self.server.proxy.pause)
        return b"".join(pieces)

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline().split(b";")[0], 16))
        self.rfile.readline()
        return data


def error(status: int, code: str) -> Fault:
    """Answer with an S3 error and never ask the server."""

    def fault(handler: Handler, body: bytes) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as injected</Message></Error>".encode()
        handler.send(Answer(status, [("Content-Type", "application/xml")], text))

    return fault


def busy(status: int, retry_after: str | None = None) -> Fault:
    """Answer as a service of ours that has enough to do, or no model yet, and never ask it."""

    def fault(handler: Handler, body: bytes) -> None:
        headers = [("Content-Type", "application/json")]
        if retry_after:
            headers.append(("Retry-After", retry_after))
        handler.send(Answer(status, headers, b'{"error": "as injected"}'))

    return fault


def reset(handler: Handler, body: bytes) -> None:
    """Reset the connection; the server never hears of the request."""
    handler.hang_up()


def lose_answer(handler: Handler, body: bytes) -> None:
    """Let the server do it, then reset the connection."""
    handler.forward(body)
    handler.hang_up()


def lose_answer_as(status: int, code: str) -> Fault:
    """Let the server do it, then answer with an error, as a gateway between would."""

    def fault(handler: Handler, body: bytes) -> None:
        handler.forward(body)
        error(status, code)(handler, body)

    return fault


def cut(handler: Handler, body: bytes) -> None:
    """Close in an orderly way, half-way through the body."""
    handler.send(handler.forward(body), part=0.5)
    handler.close_connection = True


def cut_hard(handler: Handler, body: bytes) -> None:
    """Reset the connection half-way through the body."""
    handler.send(handler.forward(body), part=0.5)
    handler.hang_up()


def stall(handler: Handler, body: bytes) -> None:
    """Never answer."""
    handler.server.proxy.over.wait(120)
    handler.hang_up()


def stall_midway(handler: Handler, body: bytes) -> None:
    """Send half of the body, then nothing more."""
    over = handler.server.proxy.over
    handler.send(handler.forward(body), part=0.5)
    over.wait(120)
    handler.hang_up()


def flip(handler: Handler, body: bytes) -> None:
    """Answer with a bit of the body's middle flipped, and no checksum that would show it."""
    answer = handler.forward(body)
    handler.send(answer._replace(headers=_without_checksums(answer), body=flipped(answer.body)))


def flip_under_checksum(handler: Handler, body: bytes) -> None:
    """Answer with a bit flipped under the checksum of the true body, as AWS sends it."""
    answer = handler.forward(body)
    checksum = b64encode(zlib.crc32(answer.body).to_bytes(4, "big")).decode()
    headers = [*_without_checksums(answer), ("x-amz-checksum-crc32", checksum)]
    handler.send(answer._replace(headers=headers, body=flipped(answer.body)))


def flip_upload(handler: Handler, body: bytes) -> None:
    """Give the server other bytes than were sent."""
    handler.send(handler.forward(flipped(body)))


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _without_checksums(answer: Answer) -> list[tuple[str, str]]:
    return [(name, value) for name, value in answer.headers if not name.lower().startswith("x-amz-checksum")]
