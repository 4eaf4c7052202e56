"""ASGI middleware around every request: API key, security headers, last-resort 500, metrics."""

from __future__ import annotations

import logging
import re
import time

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .keys import ApiKeys
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
        keys: The API keys of which requests must bring one, except for health, API docs and the
            web page.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, keys: ApiKeys) -> None:
        self._app, self._metrics, self._keys = app, metrics, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Read before routing, which changes it. Without the application's `route_prefix`.
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        started, status = time.monotonic(), 0
        is_head = scope["method"] == "HEAD"
        inner = {**scope, "method": "GET"} if is_head else scope

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_safe_headers(path)]
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            if _OPEN_PATHS.fullmatch(path) or self._keys.accept(Headers(scope=scope)):
                await self._app(inner, receive, send_safely)
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
            route = getattr(inner.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            # Without a response the client has gone, or Serve has cancelled the request.
            status = status or _CLIENT_CLOSED_REQUEST
            self._metrics.request(method, route, status, time.monotonic() - started)


def _safe_headers(path: str) -> tuple[tuple[bytes, bytes], ...]:
    if path.startswith(("/v1/", "/v2")):
        return _API_HEADERS
    return _DOCS_HEADERS if path.startswith(("/docs", "/redoc")) else _PAGE_HEADERS
