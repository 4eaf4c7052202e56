"""The HTTP API as a whole: order of routes, unknown paths, responses without a model, API docs."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from starlette.routing import Match

from pawcast.store import open_store
from pawcast_serve.api import create_api
from pawcast_serve.classifier import Classifier
from tests.support.served import MODEL, ask, http_client, running


def schema_of(store, key: str | None = None) -> dict[str, Any]:
    async def scenario(http: httpx.AsyncClient) -> dict[str, Any]:
        return (await http.get("/openapi.json")).json()

    schema: dict[str, Any] = ask(store, scenario, key)
    return schema


def test_classify_is_the_first_of_all_routes(model_store):
    first = create_api(Classifier(model_store, MODEL)).routes[0]
    match, _ = first.matches({"type": "http", "method": "POST", "path": "/v1/classify", "root_path": ""})
    assert match is Match.FULL


def test_unknown_paths_and_wrong_methods(model_store):
    async def scenario(http: httpx.AsyncClient) -> list[httpx.Response]:
        return [await http.get("/nowhere"), await http.get("/v1/classify/"), await http.get("/v1/classify")]

    missing, slash, method = ask(model_store, scenario)
    assert (missing.status_code, slash.status_code, method.status_code) == (404, 404, 405)
    assert method.headers["allow"] == "POST"
    assert all(response.json()["error"] for response in (missing, slash, method))


def test_without_a_model_requests_get_a_503_and_the_process_is_alive(tmp_path, photo):
    async def scenario(http: httpx.AsyncClient) -> list[httpx.Response]:
        paths = ("/readyz", "/v1/model", "/v2/health/ready", "/v2/models/pets", "/healthz", "/v2/health/live")
        explain = await http.post("/v1/explain", content=photo)
        return [await http.post("/v1/classify", content=photo), explain, *[await http.get(path) for path in paths]]

    responses = ask(open_store(str(tmp_path)), scenario)
    assert [response.status_code for response in responses] == [503] * 6 + [200] * 2
    for response in responses[:6]:
        assert "pawcast train" in response.json()["error"]
        assert response.headers["retry-after"]


def test_the_docs_have_an_example_of_every_error(model_store):
    paths = schema_of(model_store)["paths"]
    for path in ("/v1/classify", "/v1/explain", "/v2/models/{name}/infer"):
        responses = paths[path]["post"]["responses"]
        assert {"200", "400", "401", "408", "413", "415", "422", "429", "503"} <= set(responses)
        for status, response in responses.items():
            if status != "200":
                assert response["content"]["application/json"]["example"]["error"], (path, status)


def test_the_docs_ask_for_the_key_and_describe_the_response(model_store):
    schema = schema_of(model_store, "a key of sixteen characters")
    (scheme,) = schema["components"]["securitySchemes"]
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            needs_key = path.startswith("/v") and "/health/" not in path
            assert operation.get("security") == ([{scheme: []}] if needs_key else None), path
    response = schema["paths"]["/v1/classify"]["post"]["responses"]["200"]["content"]["application/json"]
    assert response["schema"] == {"$ref": "#/components/schemas/ClassifyResponse"}
    properties = set(schema["components"]["schemas"]["ClassifyResponse"]["properties"])
    assert properties == {"error", "model", "predictions", "timings"}


def test_the_pages_files_are_revalidated_and_nothing_else_is_served(model_store):
    async def scenario(http: httpx.AsyncClient) -> list[httpx.Response]:
        script = await http.get("/static/app.js")
        unchanged = await http.get("/static/app.js", headers={"if-none-match": script.headers["etag"]})
        return [await http.get("/"), script, unchanged, await http.get("/static/..%2fapi.py")]

    page, script, unchanged, outside = ask(model_store, scenario)
    assert [response.status_code for response in (page, script, unchanged, outside)] == [200, 200, 304, 404]
    for response in (page, script):
        assert response.headers["cache-control"] == "no-cache"
        assert "unsafe-inline" not in response.headers["content-security-policy"]


@pytest.mark.parametrize("page", ["/docs", "/redoc", "/"])
def test_the_pages_work_behind_a_prefix_that_a_proxy_removes(model_store, page):
    """All links are relative and lead to files of the service, whatever the prefix is."""

    async def scenario(http: httpx.AsyncClient) -> dict[str, int]:
        text = (await http.get(page)).text
        links = re.findall(r'(?:(?:src|href|spec-url)=|url: )["\']([^"\']+)', text)
        return {link: (await http.get(urljoin(f"http://test{page}", link))).status_code for link in links}

    statuses = ask(model_store, scenario)
    assert len(statuses) >= 3
    assert set(statuses.values()) == {200}, statuses
    assert not any(link.startswith(("/", "http")) for link in statuses)


def test_pages_of_allowed_origins_may_call_the_api(model_store, photo):
    origin = {"origin": "https://pets.example"}
    wanted = {"access-control-request-method": "POST", "access-control-request-headers": "x-api-key,content-type"}

    async def ask_from(*allowed: str) -> list[httpx.Response]:
        api = create_api(Classifier(model_store, MODEL), lambda: ["a key of sixteen and more"], allowed)
        async with running(api), http_client(api) as http:
            return [
                await http.options("/v1/classify", headers={**origin, **wanted}),
                await http.post("/v1/classify", content=photo, headers=origin),
            ]

    preflight, refused = asyncio.run(ask_from("https://pets.example"))
    assert (preflight.status_code, refused.status_code) == (200, 401)
    for response in (preflight, refused):
        assert response.headers["access-control-allow-origin"] == "https://pets.example"
    for allowed in ((), ("https://other.example",)):
        for response in asyncio.run(ask_from(*allowed)):
            assert "access-control-allow-origin" not in response.headers
