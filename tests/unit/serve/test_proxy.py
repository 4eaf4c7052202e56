"""The proxy's middleware: a request waits for a slow replica, but not for one that isn't there."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.responses import PlainTextResponse

from pawcast_serve import proxy


def ask(monkeypatch: pytest.MonkeyPatch, seconds: float, has_replica: bool | Exception) -> httpx.Response:
    """Send a request that takes some seconds through the middleware."""

    async def app(scope, receive, send):
        await asyncio.sleep(seconds)
        await PlainTextResponse("late")(scope, receive, send)

    def check() -> bool:
        if isinstance(has_replica, Exception):
            raise has_replica
        return has_replica

    async def run() -> httpx.Response:
        (entry,) = proxy.middleware()
        transport = httpx.ASGITransport(entry.cls(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await asyncio.wait_for(http.get("/"), 20)

    monkeypatch.setattr(proxy, "_CHECK_SECONDS", 0.05)
    monkeypatch.setattr(proxy, "_has_running_replica", check)
    return asyncio.run(run())


@pytest.mark.parametrize(
    ("seconds", "has_replica"), [(0, False), (0.2, True), (0.2, RuntimeError("the controller is away"))]
)
def test_a_request_waits_for_a_replica_that_runs(monkeypatch, seconds, has_replica):
    assert ask(monkeypatch, seconds, has_replica).text == "late"


def test_without_a_replica_a_request_gets_a_503_with_json_and_retry_after(monkeypatch):
    response = ask(monkeypatch, 600, False)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert response.json()["error"].startswith("No replica of the service is ready")
