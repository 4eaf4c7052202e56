"""ASGI middleware around every request: API key, security headers, last-resort 500, metrics."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import time
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics

_Header = tuple[bytes, bytes]

# Paths that need no API key: probes use them, or they reveal neither photos nor models.
_OPEN_PATHS = frozenset(("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json"))
_DOCS_PAGES = ("/docs", "/redoc")
_DOCS_PATHS = (*_DOCS_PAGES, "/static-offline-docs")
_OPEN_PREFIXES = ("/static/", *(f"{path}/" for path in _DOCS_PATHS))
# No inline script or style, no other origin, no frame around the page. `blob:` is for the photos
# that the page shows from memory.
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# FastAPI's docs start with an inline script. They show nothing that a caller sent.
_DOCS_POLICY = f"{_POLICY}; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; worker-src blob:"
_SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_PAGE_HEADERS = (*_SAFE_HEADERS, (b"content-security-policy", _POLICY.encode()))
_DOCS_HEADERS = (*_SAFE_HEADERS, (b"content-security-policy", _DOCS_POLICY.encode()))
_NO_STORE = (b"cache-control", b"no-store")
# Browsers revalidate the page's files each time (304 if unchanged), so that a new service never
# runs with an old script.
_NO_CACHE = (b"cache-control", b"no-cache")
_CLIENT_CLOSED_REQUEST = 499
_ERROR_KINDS = {
    400: "malformed",
    401: "unauthorized",
    404: "unknown_path",
    405: "wrong_method",
    408: "body_timeout",
    413: "too_large",
    415: "unsupported_type",
    422: "unusable_photo",
    429: "busy",
    _CLIENT_CLOSED_REQUEST: "client_gone",
    503: "no_model",
}
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_log = logging.getLogger("ray.serve")


class RequestMiddleware:
    """Checks API keys, adds security headers, answers unexpected exceptions, counts requests.

    Args:
        app: The ASGI application.
        metrics: Where requests and errors are counted.
        key: The API key that requests must bring, except for health, API docs and the web page;
            None for no key.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, key: str | None = None) -> None:
        self._app, self._metrics = app, metrics
        self._key_digest = _digest(key) if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Read before routing: a mounted application changes it.
        path = _path(scope)
        started, status = time.monotonic(), 0

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_safe_headers(message.get("headers", ()), path)
            await send(message)

        try:
            if self._is_allowed(scope, path):
                await self._app(scope, receive, send_safely)
            else:
                line = "This service asks for an API key. Expected: Authorization: Bearer KEY, or X-API-Key: KEY."
                await _send_error(send_safely, 401, line, {"www-authenticate": "Bearer"})
        except ClientDisconnect:
            pass
        except Exception:
            # The details go to the log only.
            _log.exception("A request failed unexpectedly.")
            if not status:
                await _send_error(send_safely, 500, "Internal error. The service's log has the details.")
        finally:
            # Without a response the client has gone, or Serve has cancelled the request.
            self._count(scope, status or _CLIENT_CLOSED_REQUEST, time.monotonic() - started)

    def _is_allowed(self, scope: Scope, path: str) -> bool:
        is_open = path in _OPEN_PATHS or path in _DOCS_PATHS or path.startswith(_OPEN_PREFIXES)
        if self._key_digest is None or is_open:
            return True
        headers = Headers(scope=scope)
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            key = headers.get("x-api-key", "")
        # Digests have equal lengths, so the comparison takes the same time for every key.
        return hmac.compare_digest(_digest(key.strip()), self._key_digest)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        # A route's template and a known method: no text of a client becomes a metric's label.
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.request(method, route, status, seconds)
        if status >= 400:
            self._metrics.error(_ERROR_KINDS.get(status, "unexpected"))


def _path(scope: Scope) -> str:
    """Return the path without the application's `route_prefix`."""
    return scope["path"].removeprefix(scope.get("root_path", ""))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _with_safe_headers(headers: Iterable[_Header], path: str) -> list[_Header]:
    """Return a response's headers, with the security headers that it doesn't set itself."""
    own = list(headers)
    own_names = {name for name, _ in own}
    safe: tuple[_Header, ...] = _DOCS_HEADERS if path.startswith(_DOCS_PAGES) else _PAGE_HEADERS
    if path.startswith(("/v1/", "/v2")):
        safe = (*safe, _NO_STORE)
    elif path == "/" or path.startswith("/static/"):
        safe = (*safe, _NO_CACHE)
    return [*own, *(header for header in safe if header[0] not in own_names)]


async def _send_error(send: Send, status: int, line: str, headers: dict[str, str] | None = None) -> None:
    body = json.dumps({"error": line}).encode()
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    raw_headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw_headers})
    await send({"type": "http.response.body", "body": body})
