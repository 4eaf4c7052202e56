"""A proxy in front of a real server that injects faults of networks and servers.

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


class Response(NamedTuple):
    """A server's response."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


Fault = Callable[["Handler", bytes], None]
"""Handles a request, whose body was read, instead of forwarding it."""


@dataclass
class Rule:
    """Apply a fault to the next requests that match."""

    fault: Fault
    method: str
    key: str
    times: int
    hits: int = 0


@dataclass
class Proxy:
    """Forwards 127.0.0.1:port to a server, with the faults of its rules. A context manager."""

    upstream: str
    rules: list[Rule] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    pause: float = 0.0
    """Seconds to wait after each 64 KiB of a request's body."""

    def __post_init__(self) -> None:
        self.stalls_over = threading.Event()
        self._lock = threading.Lock()
        self._listen(0)
        self.port = int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def inject(self, fault: Fault, method: str = "", key: str = "", times: int = 1) -> Rule:
        """Apply a fault to the next `times` requests with this method and `key` in their path."""
        rule = Rule(fault, method, key, times)
        with self._lock:
            self.rules.append(rule)
        return rule

    def reset(self) -> None:
        """Remove all rules and recorded requests; end all stalls."""
        self.stalls_over.set()
        with self._lock:
            self.stalls_over = threading.Event()
            self.rules.clear()
            self.requests.clear()
            self.pause = 0.0

    @contextmanager
    def refusing(self, seconds: float) -> Iterator[None]:
        """Refuse connections from now on, for some seconds."""
        self._close()
        timer = threading.Timer(seconds, self._listen, [self.port])
        timer.start()
        try:
            yield
        finally:
            timer.join()

    def fault_for(self, method: str, path: str) -> Fault | None:
        """Record a request; return its fault, if there is one."""
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
        self.stalls_over.set()
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
        # A small window, so that a slow reader slows the sender down.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _PIECE)
        super().server_bind()

    def handle_error(self, request: object, client_address: object) -> None:
        """Log nothing: clients that disconnect are expected."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _handle(self) -> None:
        body = self._read()
        fault = self.server.proxy.fault_for(self.command, self.path)
        if fault:
            fault(self, body)
        else:
            self.send(self.forward(body))

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815

    def forward(self, body: bytes) -> Response:
        """Send the request to the server; return its response."""
        connection = http.client.HTTPConnection(self.server.proxy.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection", "content-length", "transfer-encoding"):
                    connection.putheader(name, value)
            if self.command in ("PUT", "POST"):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            return Response(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def send(self, response: Response, part: float = 1.0) -> None:
        """Send a response, or only a part of its body. The headers always promise all of it."""
        self.send_response_only(response.status)
        for name, value in response.headers:
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        length = {name.lower(): value for name, value in response.headers}.get("content-length")
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(response.body)))
        self.end_headers()
        self.wfile.write(response.body[: int(len(response.body) * part)])
        self.wfile.flush()

    def reset_connection(self) -> None:
        """Close the connection with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

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
    """Respond with an S3 error; the server never receives the request."""

    def fault(handler: Handler, body: bytes) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as injected</Message></Error>".encode()
        handler.send(Response(status, [("Content-Type", "application/xml")], text))

    return fault


def busy(status: int, retry_after: str | None = None) -> Fault:
    """Respond as an overloaded Pawcast service; the server never receives the request."""

    def fault(handler: Handler, body: bytes) -> None:
        headers = [("Content-Type", "application/json")]
        if retry_after:
            headers.append(("Retry-After", retry_after))
        handler.send(Response(status, headers, b'{"error": "as injected"}'))

    return fault


def reset(handler: Handler, body: bytes) -> None:
    """Reset the connection; the server never receives the request."""
    handler.reset_connection()


def lose_response(handler: Handler, body: bytes) -> None:
    """Forward the request, then reset the connection instead of responding."""
    handler.forward(body)
    handler.reset_connection()


def lose_response_as(status: int, code: str) -> Fault:
    """Forward the request, then respond with an error, as a gateway between would."""

    def fault(handler: Handler, body: bytes) -> None:
        handler.forward(body)
        error(status, code)(handler, body)

    return fault


def cut(handler: Handler, body: bytes) -> None:
    """Close the connection in order, half-way through the body."""
    handler.send(handler.forward(body), part=0.5)
    handler.close_connection = True


def cut_hard(handler: Handler, body: bytes) -> None:
    """Reset the connection half-way through the body."""
    handler.send(handler.forward(body), part=0.5)
    handler.reset_connection()


def stall(handler: Handler, body: bytes) -> None:
    """Never respond."""
    handler.server.proxy.stalls_over.wait(120)
    handler.reset_connection()


def stall_midway(handler: Handler, body: bytes) -> None:
    """Send half of the body, then nothing more."""
    stalls_over = handler.server.proxy.stalls_over
    handler.send(handler.forward(body), part=0.5)
    stalls_over.wait(120)
    handler.reset_connection()


def flip(handler: Handler, body: bytes) -> None:
    """Flip one bit in the middle of the response's body, and remove the checksums."""
    response = handler.forward(body)
    handler.send(response._replace(headers=_without_checksums(response), body=flipped(response.body)))


def flip_under_checksum(handler: Handler, body: bytes) -> None:
    """Flip one bit of the body, and add the checksum of the true body as AWS does."""
    response = handler.forward(body)
    checksum = b64encode(zlib.crc32(response.body).to_bytes(4, "big")).decode()
    headers = [*_without_checksums(response), ("x-amz-checksum-crc32", checksum)]
    handler.send(response._replace(headers=headers, body=flipped(response.body)))


def flip_upload(handler: Handler, body: bytes) -> None:
    """Forward the request with one bit of its body flipped."""
    handler.send(handler.forward(flipped(body)))


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _without_checksums(response: Response) -> list[tuple[str, str]]:
    return [(name, value) for name, value in response.headers if not name.lower().startswith("x-amz-checksum")]
