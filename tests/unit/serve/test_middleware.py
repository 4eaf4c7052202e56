"""The middleware: API key, security headers, last-resort 500, request metrics."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from pawcast_serve.api import create_api
from pawcast_serve.classifier import Classifier
from tests.support.served import IMAGE_HEADERS, MODEL, ask, post, running, send_chunks

KEY = "a key of sixteen and more"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": f"Bearer {KEY}x"}, 401),
        ({"authorization": f"Basic {KEY}"}, 401),
        ({"x-api-key": ""}, 401),
        ({"authorization": f"Bearer {KEY}"}, 200),
        ({"authorization": f"bearer {KEY}"}, 200),
        ({"x-api-key": KEY}, 200),
    ],
)
def test_the_api_key(model_store, photo, headers, status):
    response = post(model_store, key=KEY, content=photo, headers={**IMAGE_HEADERS, **headers})
    assert response.status_code == status
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"
        assert KEY not in response.text


def test_with_a_key_only_probes_docs_and_page_are_open(model_store):
    async def scenario(http: httpx.AsyncClient) -> dict[str, int]:
        api = http._transport.app  # type: ignore[attr-defined]
        paths = [path for route in api.routes if (path := getattr(route, "path", None))] + list(api.openapi()["paths"])
        paths += ["/", "/static/app.js", "/v2/", "/v2/models/pets", "/static-x", "/x"]
        return {path: (await http.get(path)).status_code for path in paths if "{" not in path}

    statuses = ask(model_store, scenario, key=KEY)
    open_paths = {path for path, status in statuses.items() if status != 401}
    assert open_paths == {
        "/",
        "/static/app.js",
        "/healthz",
        "/readyz",
        "/v2/health/live",
        "/v2/health/ready",
        "/openapi.json",
        "/docs",
        "/redoc",
        "/static-offline-docs",
    }


def test_with_a_key_health_is_open_below_a_route_prefix_too(model_store):
    async def run() -> list[int]:
        async with running(create_api(Classifier(model_store, MODEL), lambda: [KEY])) as api:
            transport = httpx.ASGITransport(api, root_path="/pawcast")
            async with httpx.AsyncClient(transport=transport, base_url="http://test/pawcast") as http:
                return [(await http.get(path)).status_code for path in ("/healthz", "/v1/model")]

    assert asyncio.run(run()) == [200, 401]


def test_every_response_has_safe_headers_and_the_docs_still_work(model_store):
    async def scenario(http: httpx.AsyncClient) -> list[httpx.Response]:
        return [await http.get(path) for path in ("/v1/model", "/docs", "/static-offline-docs/swagger-ui.css")]

    model, docs, style = ask(model_store, scenario)
    assert "default-src 'self'; img-src 'self' blob: data:" in model.headers["content-security-policy"]
    assert "unsafe-inline" not in model.headers["content-security-policy"]
    assert model.headers["cache-control"] == "no-store"
    assert "<script>" in docs.text
    assert "script-src 'self' 'unsafe-inline'" in docs.headers["content-security-policy"]
    assert style.status_code == 200
    for response in (model, docs, style):
        assert response.headers["x-frame-options"] == "DENY"
        assert "http://" not in response.text.replace("http://www.w3.org", "")


def test_head_is_answered_as_get_without_a_body(model_store):
    async def scenario(http: httpx.AsyncClient) -> list[tuple[httpx.Response, httpx.Response]]:
        api = http._transport.app  # type: ignore[attr-defined]
        paths = [path for path, operations in api.openapi()["paths"].items() if "get" in operations and "{" not in path]
        paths += ["/", "/docs", "/redoc", "/static/app.js", "/openapi.json", "/v2/models/pets", "/v1/classify", "/x"]
        return [(await http.get(path), await http.head(path)) for path in paths]

    pairs = ask(model_store, scenario)
    assert len(pairs) > 10
    for get, head in pairs:
        assert head.status_code == get.status_code
        assert {**head.headers, "date": ""} == {**get.headers, "date": ""}
        assert get.content
        assert head.content == b""


def test_an_unexpected_exception_is_a_500_without_details(model_store, photo, monkeypatch):
    def broken(*arguments: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("pawcast_serve.classifier.to_prediction", broken)
    response = post(model_store, content=photo, headers=IMAGE_HEADERS)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["error"]


def test_metrics_have_a_routes_template_and_no_text_of_the_client(model_store, photo, monkeypatch):
    requests: list[tuple[object, ...]] = []
    monkeypatch.setattr("pawcast_serve.metrics.Metrics.request", lambda self, *values: requests.append(values[:3]))

    async def scenario(http: httpx.AsyncClient) -> None:
        await http.post("/v1/classify", content=photo)
        await http.get("/v2/models/anything")
        await http.get("/v1/classify")
        await http.request("ODD", "/anything")
        await http.request("ODD", "/v1/classify")
        await http.get("/healthz")

    ask(model_store, scenario)
    assert requests == [
        ("POST", "/v1/classify", 200),
        ("GET", "/v2/models/{name}", 404),
        ("GET", "/v1/classify", 405),
        ("other", "other", 404),
        ("other", "/v1/classify", 405),
        ("GET", "/healthz", 200),
    ]


def test_a_client_that_disconnects_is_counted_as_499(model_store, monkeypatch):
    requests: list[tuple[object, ...]] = []
    monkeypatch.setattr("pawcast_serve.metrics.Metrics.request", lambda self, *values: requests.append(values[:3]))

    async def scenario() -> None:
        async with running(create_api(Classifier(model_store, MODEL))) as api:
            await send_chunks(api, [b"a"], then=lambda: asyncio.sleep(0))

    asyncio.run(scenario())
    assert requests == [("POST", "/v1/classify", 499)]
