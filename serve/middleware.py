"""What every request passes on its way in and out: the API key, safe headers, a last word for what went wrong."""

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

# Needed by probes, or the same for everybody: nothing here tells of photos or models.
_OPEN = frozenset(("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json"))
_DOCS = ("/docs", "/redoc", "/static-offline-docs")
_OPEN_FOLDERS = ("/static/", *(f"{path}/" for path in _DOCS))
# No inline script or style, no other origin; the page shows photos from memory (blob:), and nothing may frame it.
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# The page that FastAPI makes starts itself by a script within the page; it shows nothing that a caller sent.
_DOCS_POLICY = f"{_POLICY}; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; worker-src blob:"
_SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_HEADERS = (*_SAFE_HEADERS, (b"content-security-policy", _POLICY.encode()))
_DOCS_HEADERS = (*_SAFE_HEADERS, (b"content-security-policy", _DOCS_POLICY.encode()))
_PRIVATE_HEADERS = ((b"cache-control", b"no-store"),)
_KINDS = {
    400: "malformed", 401: "unauthorized", 404: "unknown path", 405: "wrong method", 408: "slow", 413: "too large",
    415: "wrong type", 422: "unusable photo", 429: "busy", 499: "client gone", 503: "no model",
}  # fmt: skip
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_log = logging.getLogger("ray.serve")

_Header = tuple[bytes, bytes]


class RequestMiddleware:
    """ASGI middleware around the whole application.

    Args:
        app: What is behind it.
        metrics: Where to count.
        key: The API key that requests must bring, except for health, API docs and the web page; none if None.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, key: str | None = None) -> None:
        self._app, self._metrics = app, metrics
        self._key = _digest(key) if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _protected(message.get("headers", ()), _path(scope))
            await send(message)

        try:
            if self._admits(scope):
                await self._app(scope, receive, sending)
            else:
                line = "This service asks for an API key. Expected: Authorization: Bearer KEY, or X-API-Key: KEY."
                await _answer(sending, 401, line, {"www-authenticate": "Bearer"})
        except ClientDisconnect:
            status = status or 499
        except Exception:
            # The details are for the log only.
            _log.exception("A request failed unexpectedly.")
            if not status:
                await _answer(sending, 500, "Something went wrong in the service; its log says what.")
        finally:
            route = getattr(scope.get("route"), "path", "other")
            # Nothing that a client makes up becomes a label.
            method = scope["method"] if scope["method"] in _METHODS else "other"
            # Left without an answer: the client has gone, and Serve has cancelled the request.
            status = status or 499
            self._metrics.request(method, route, status, time.monotonic() - started)
            if status >= 400:
                self._metrics.error(_KINDS.get(status, "unexpected"))

    def _admits(self, scope: Scope) -> bool:
        path = _path(scope)
        if self._key is None or path in _OPEN or path in _DOCS or path.startswith(_OPEN_FOLDERS):
            return True
        headers = Headers(scope=scope)
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            given = headers.get("x-api-key", "")
        # Digests have one length, so that the comparison takes the same time whatever was sent.
        return hmac.compare_digest(_digest(given.strip()), self._key)


def _path(scope: Scope) -> str:
    """The path below the application's `route_prefix`."""
    return scope["path"].removeprefix(scope.get("root_path", ""))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _protected(headers: Iterable[_Header], path: str) -> list[_Header]:
    """Return an answer's headers, and those that keep it safe unless it has them already."""
    found = list(headers)
    names = {name for name, _ in found}
    safe = _DOCS_HEADERS if path.startswith(_DOCS) else _HEADERS
    private = _PRIVATE_HEADERS if path.startswith(("/v1/", "/v2")) else ()
    return [*found, *(header for header in (*safe, *private) if header[0] not in names)]


async def _answer(send: Send, status: int, line: str, headers: dict[str, str] | None = None) -> None:
    body = json.dumps({"error": line}).encode()
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
