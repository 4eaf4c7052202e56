"""ASGI middleware around every request: API key, security headers, last-resort 500, metrics."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics

# Paths that need no API key: probes use them, or they reveal neither photos nor models.
_OPEN_PATHS = re.compile(
    "/|/healthz|/readyz|/v2/health/(live|ready)|/openapi.json|/(docs|redoc|static-offline-docs)(/.*)?|/static/.*"
)
# No inline script or style, no other origin, no frame around the page. `blob:` is for the photos
# that the page shows from memory.
_POLICY = (
    b"default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'"
)
# FastAPI's docs start with an inline script. They show nothing that a caller sent.
_DOCS_POLICY = _POLICY + b"; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; worker-src blob:"
_SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_API_HEADERS = (*_SAFE_HEADERS, (b"content-security-policy", _POLICY), (b"cache-control", b"no-store"))
_DOCS_HEADERS = (*_SAFE_HEADERS, (b"content-security-policy", _DOCS_POLICY))
# Browsers revalidate the page's files each time (304 if unchanged), so that a new service never
# runs with an old script.
_PAGE_HEADERS = (*_SAFE_HEADERS, (b"content-security-policy", _POLICY), (b"cache-control", b"no-cache"))
_CLIENT_CLOSED_REQUEST = 499
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
_KEY_MISSING = "This service asks for an API key. Expected: Authorization: Bearer KEY, or X-API-Key: KEY."
_log = logging.getLogger("ray.serve")


class RequestMiddleware:
    """Checks API keys, adds security headers, answers unexpected exceptions, counts requests.

    Args:
        app: The ASGI application.
        metrics: Where requests are counted.
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
        # Read before routing, which changes it. Without the application's `route_prefix`.
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        started, status = time.monotonic(), 0

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_safe_headers(path)]
            await send(message)

        try:
            if self._is_allowed(scope, path):
                await self._app(scope, receive, send_safely)
            else:
                refusal = JSONResponse({"error": _KEY_MISSING}, 401, {"www-authenticate": "Bearer"})
                await refusal(scope, receive, send_safely)
        except ClientDisconnect:
            pass
        except Exception:
            # The details go to the log only.
            _log.exception("A request failed unexpectedly.")
            if not status:
                line = "Internal error. The service's log has the details."
                await JSONResponse({"error": line}, 500)(scope, receive, send_safely)
        finally:
            # A route's template and a known method: no text of a client becomes a metric's label.
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            # Without a response the client has gone, or Serve has cancelled the request.
            status = status or _CLIENT_CLOSED_REQUEST
            self._metrics.request(method, route, status, time.monotonic() - started)

    def _is_allowed(self, scope: Scope, path: str) -> bool:
        if self._key_digest is None or _OPEN_PATHS.fullmatch(path):
            return True
        headers = Headers(scope=scope)
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            key = headers.get("x-api-key", "")
        # Digests have equal lengths, so the comparison takes the same time for every key.
        return hmac.compare_digest(_digest(key.strip()), self._key_digest)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _safe_headers(path: str) -> tuple[tuple[bytes, bytes], ...]:
    if path.startswith(("/v1/", "/v2")):
        return _API_HEADERS
    return _DOCS_HEADERS if path.startswith(("/docs", "/redoc")) else _PAGE_HEADERS
