"""Middleware of Serve's HTTP proxy: no request waits long for a replica that isn't there.

Serve would let a request wait until there is a replica, which takes a minute if the only one was
killed. Its proxy also takes over from HAProxy when that has no replica. The configurations name
`middleware` in `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`, for the controller and so for the
proxies that it starts.
"""

from __future__ import annotations

import asyncio
import time

from ray import serve
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CHECK_SECONDS = 1.0
_LINE = "No replica of the service is ready: it is starting, or being replaced. Try again later."


def middleware() -> list[Middleware]:
    """Return what Serve adds to its proxy."""
    return [Middleware(NoReplicaMiddleware)]


class NoReplicaMiddleware:
    """Answers 503 with `Retry-After` for a request that waits while no replica runs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._checked_at, self._has_replica = 0.0, True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_answered = False

        async def note_answer(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        request = asyncio.ensure_future(self._app(scope, receive, note_answer))
        try:
            while not (await asyncio.wait([request], timeout=_CHECK_SECONDS))[0]:
                if not is_answered and not await self._check():
                    await JSONResponse({"error": _LINE}, 503, {"retry-after": "5"})(scope, receive, send)
                    return
            await request
        finally:
            request.cancel()

    async def _check(self) -> bool:
        """Return whether a replica runs, as Serve's controller said at most a second ago."""
        if time.monotonic() - self._checked_at > _CHECK_SECONDS:
            self._checked_at = time.monotonic()
            try:
                self._has_replica = await asyncio.wait_for(asyncio.to_thread(_has_running_replica), _CHECK_SECONDS)
            except Exception:
                # Without its controller, Serve's replicas still answer.
                self._has_replica = True
        return self._has_replica


def _has_running_replica() -> bool:
    deployments = [
        deployment
        for application in serve.status().applications.values()
        for deployment in application.deployments.values()
    ]
    return any(deployment.replica_states.get("RUNNING", 0) for deployment in deployments)
