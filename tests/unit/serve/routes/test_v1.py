"""`/v1`, the gate and the limits, over ASGI with a real small network."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.routing import Match

from pawcast.errors import NotFoundError
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import predict_scores
from pawcast.recipes import resolve
from pawcast.store import Store, open_store
from pawcast.vision import preprocess
from pawcast_serve.api import create_api
from pawcast_serve.limits import ServiceLimits
from pawcast_serve.service import Service
from tests.support.files import encode
from tests.support.served import ACCEPTED, MODEL, client, over, publish, started

KEY = "a key of sixteen and more"
Scenario = Callable[[httpx.AsyncClient], Awaitable[Any]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    place = open_store(str(tmp_path_factory.mktemp("store")))
    publish(place)
    return place


@pytest.fixture
def photo(picture: np.ndarray) -> bytes:
    return encode(picture, "JPEG")


def ask(store: Store, scenario: Scenario, key: str | None = None, **limits: float) -> Any:
    async def run() -> Any:
        async with client(Service(store, MODEL, ServiceLimits(**limits)), key) as http:
            return await scenario(http)

    return asyncio.run(run())


def post(store: Store, *, key: str | None = None, limits: dict[str, float] | None = None, **request: Any) -> Any:
    return ask(store, lambda http: http.post("/v1/classify", **request), key, **(limits or {}))


def form(*photos: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("photo", (f"{number}.jpg", data)) for number, data in enumerate(photos)]


def test_a_photo_is_answered_as_in_process_with_version_and_timings(store, photo):
    response = post(store, content=photo, headers=ACCEPTED)
    assert response.status_code == 200
    answer = response.json()
    assert answer["model"] == "pets@1"
    (found,) = answer["predictions"]
    (expected,) = predict_scores(Engine.load(store, MODEL), [photo])
    assert found["scores"]["dog"] == expected
    assert found["probability"] == max(found["scores"].values()) == found["scores"][found["label"]]
    timings = answer["timings"]
    assert set(timings) == {"receive", "decode", "wait", "inference", "total"}
    assert timings["total"] + 0.1 >= timings["receive"] + timings["wait"] + timings["inference"] > 0
    assert timings["wait"] + 0.1 >= timings["decode"] > 0


def test_a_photo_is_reduced_to_the_detail_that_its_version_asks_for(tmp_path, picture):
    store = open_store(str(tmp_path))
    publish(store, recipe=resolve("smoke", ["image_size=32", "eval_downscale=16"]))
    response = post(store, content=encode(picture), headers={"content-type": "image/png"})
    (found,) = response.json()["predictions"]
    engine = Engine.load(store, MODEL)
    soft, sharp = preprocess.resize(preprocess.resize(picture, 16), 32), preprocess.resize(picture, 32)
    assert found["scores"]["dog"] == engine.predict(soft[None])[0] != engine.predict(sharp[None])[0]


def test_a_bad_photo_never_fails_its_neighbours(store, photo, picture):
    png = encode(picture[::-1], "PNG")
    response = post(store, files=form(photo, b"junk", b"", photo[:300], png))
    assert response.status_code == 200
    first, *bad, last = response.json()["predictions"]
    assert [item["id"] for item in (first, *bad, last)] == [f"{i}.jpg" for i in range(5)]
    assert all(set(item) == {"id", "error"} for item in bad)
    assert set(first) == set(last) == {"id", "label", "probability", "scores"}
    expected = list(predict_scores(Engine.load(store, MODEL), [photo, png]))
    assert [first["scores"]["dog"], last["scores"]["dog"]] == expected


def test_only_bad_photos_are_422_with_each_reason(store):
    response = post(store, files=form(b"junk", b""))
    assert response.status_code == 422
    assert response.json()["error"].startswith("0.jpg can't be used")
    assert [item["error"] for item in response.json()["predictions"]][1] == "empty file"


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, {"content": b"junk", "headers": {"content-type": "multipart/form-data; boundary=x"}}),
        (400, {"content": b"junk", "headers": {"content-type": "multipart/form-data"}}),
        (400, {"data": {"photo": "text"}, "files": {}, "headers": {"content-type": "multipart/form-data"}}),
        (400, {"files": form(*[b"x"] * 5)}),
        (400, {"content": b"junk", "headers": {**ACCEPTED, "content-encoding": "gzip"}}),
        (400, {"content": gzip.compress(b"x" * 99)[:20], "headers": {**ACCEPTED, "content-encoding": "gzip"}}),
        (413, {"content": b"0" * 9_000, "headers": ACCEPTED}),
        (413, {"content": zlib.compress(b"0" * 9_000), "headers": {**ACCEPTED, "content-encoding": "deflate"}}),
        (413, {"files": form(b"0" * 9_000)}),
        (415, {"content": b"{}", "headers": {"content-type": "application/json"}}),
        (415, {"content": b"x", "headers": {**ACCEPTED, "content-encoding": "br"}}),
        (422, {"content": b"", "headers": ACCEPTED}),
    ],
)
def test_what_is_wrong_is_said_in_one_line(store, status, request_):
    response = post(store, limits={"body_bytes": 8_192, "photos": 4}, **request_)
    assert response.status_code == status, response.text
    assert response.json()["error"].count("\n") == 0
    assert response.headers["x-content-type-options"] == "nosniff"


def test_a_compressed_body_is_inflated(store, photo):
    for coding, data in (("gzip", gzip.compress(photo)), ("deflate", zlib.compress(photo))):
        assert post(store, content=data, headers={**ACCEPTED, "content-encoding": coding}).status_code == 200


def test_a_body_of_unknown_length_is_stopped_where_it_gets_too_large(store):
    sent = 0

    async def chunks():
        nonlocal sent
        for _ in range(1_000):
            sent += 1_024
            yield b"0" * 1_024

    response = post(store, content=chunks(), headers=ACCEPTED, limits={"body_bytes": 8_192})
    assert response.status_code == 413
    assert sent < 20_000


def test_unknown_paths_and_methods(store):
    async def scenario(http: httpx.AsyncClient) -> list[httpx.Response]:
        return [await http.get("/nowhere"), await http.get("/v1/classify/"), await http.get("/v1/classify")]

    missing, slash, method = ask(store, scenario)
    assert (missing.status_code, slash.status_code, method.status_code) == (404, 404, 405)
    assert method.headers["allow"] == "POST"
    assert all(response.json()["error"] for response in (missing, slash, method))


def test_photos_come_before_all_other_routes(store):
    first = create_api(Service(store, MODEL)).routes[0]
    match, _ = first.matches({"type": "http", "method": "POST", "path": "/v1/classify", "root_path": ""})
    assert match is Match.FULL


def test_a_slow_client_gets_a_408_and_is_let_go(store):
    async def scenario() -> tuple[list[dict[str, Any]], int]:
        service = Service(store, MODEL, ServiceLimits(receive_seconds=0.3))
        async with started(create_api(service)) as api:
            sent = await raw(api, [b"a", b"b"], then=asyncio.Event().wait)
            async with over(api) as http:
                return sent, (await http.get("/readyz")).status_code

    (start, body), ready = asyncio.run(scenario())
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]
    assert b"0.3 s" in body["body"]
    assert ready == 200


async def raw(api, chunks: list[bytes], then: Callable[[], Awaitable[Any]]) -> list[dict[str, Any]]:
    """Send chunks of a body that goes on, then whatever `then` waits for."""
    coming = iter(chunks)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if (chunk := next(coming, None)) is not None:
            return {"type": "http.request", "body": chunk, "more_body": True}
        await then()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/classify", "raw_path": b"/v1/classify", "query_string": b"",
        "headers": [(b"content-type", b"image/jpeg")], "http_version": "1.1", "scheme": "http", "root_path": "",
        "client": ("test", 1), "server": ("test", 80), "asgi": {"version": "3.0"},
    }  # fmt: skip
    await api(scope, receive, send)
    return sent


def test_a_client_that_leaves_gives_back_what_it_held(store, photo):
    async def scenario() -> httpx.Response:
        service = Service(store, MODEL, ServiceLimits(requests=1, held_bytes=2_000_000))
        async with started(create_api(service)) as api:

            async def leave() -> None:
                await asyncio.sleep(0)

            assert await raw(api, [b"0" * 1_500_000], then=leave) == []
            async with over(api) as http:
                return await http.post("/v1/classify", content=photo + b"0" * 1_500_000, headers=ACCEPTED)

    assert asyncio.run(scenario()).status_code == 200


@pytest.mark.parametrize("limits", [{"waiting_photos": 3}, {"requests": 1}, {"held_bytes": 60_000}])
def test_what_comes_on_top_gets_a_429_and_the_accepted_are_answered(store, photo, limits):
    async def scenario(http: httpx.AsyncClient) -> list[httpx.Response]:
        large = photo + b"0" * 20_000
        return await asyncio.gather(*(http.post("/v1/classify", files=form(large, large)) for _ in range(3)))

    responses = ask(store, scenario, **limits)
    assert sorted(response.status_code for response in responses) == [200, 429, 429]
    for response in responses:
        if response.status_code == 429:
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"].startswith("The server is busy")


def test_a_decoder_that_breaks_fails_its_request_alone(store, photo, monkeypatch):
    async def scenario() -> None:
        service = Service(store, MODEL)
        await service.start()
        with monkeypatch.context() as broken:
            broken.setattr(service.rollout.loaded.batcher, "_decode", lambda photo: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                await service.classify([photo, photo])
        assert service._taken == 0
        assert len((await service.classify([photo])).predictions) == 1
        await service.stop()

    asyncio.run(scenario())


def test_without_a_model_it_is_503_and_alive(tmp_path, photo):
    async def scenario(http: httpx.AsyncClient) -> list[httpx.Response]:
        paths = ("/readyz", "/v1/model", "/v2/health/ready", "/v2/models/pets", "/healthz", "/v2/health/live")
        return [await http.post("/v1/classify", content=photo), *[await http.get(path) for path in paths]]

    responses = ask(open_store(str(tmp_path)), scenario)
    assert [response.status_code for response in responses] == [503] * 5 + [200] * 2
    assert all("train" in response.json()["error"] and response.headers["retry-after"] for response in responses[:5])


def test_beside_others_a_replica_without_a_model_does_not_start(tmp_path):
    service = Service(open_store(str(tmp_path)), MODEL)
    with pytest.raises(NotFoundError, match="Unknown model"):
        asyncio.run(service.start(alone=lambda: False))


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
def test_the_api_key(store, photo, headers, status):
    response = post(store, key=KEY, content=photo, headers={**ACCEPTED, **headers})
    assert response.status_code == status
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"
        assert KEY not in response.text


def test_with_a_key_only_probes_and_docs_are_open(store):
    async def scenario(http: httpx.AsyncClient) -> dict[str, int]:
        api = http._transport.app  # type: ignore[attr-defined]
        paths = [path for route in api.routes if (path := getattr(route, "path", None))] + list(api.openapi()["paths"])
        paths += ["/v2/", "/v2/models/pets", "/static-x", "/x"]
        return {path: (await http.get(path)).status_code for path in paths if "{" not in path}

    found = ask(store, scenario, key=KEY)
    opened = {path for path, status in found.items() if status != 401}
    assert opened == {
        "/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/openapi.json", "/docs", "/redoc",
        "/docs/oauth2-redirect", "/static-offline-docs",
    }  # fmt: skip


def test_with_a_key_health_is_open_below_a_prefix_too(store):
    async def run() -> list[int]:
        async with started(create_api(Service(store, MODEL), KEY)) as api:
            transport = httpx.ASGITransport(api, root_path="/pawcast")
            async with httpx.AsyncClient(transport=transport, base_url="http://test/pawcast") as http:
                return [(await http.get(path)).status_code for path in ("/healthz", "/v1/model")]

    assert asyncio.run(run()) == [200, 401]


def test_headers_let_the_docs_and_a_page_of_our_own_work(store):
    async def scenario(http: httpx.AsyncClient) -> list[httpx.Response]:
        return [await http.get(path) for path in ("/v1/model", "/docs", "/static-offline-docs/swagger-ui.css")]

    model, docs, style = ask(store, scenario)
    assert "default-src 'self'; img-src 'self' blob: data:" in model.headers["content-security-policy"]
    assert "unsafe-inline" not in model.headers["content-security-policy"]
    assert model.headers["cache-control"] == "no-store"
    assert "<script>" in docs.text
    assert "script-src 'self' 'unsafe-inline'" in docs.headers["content-security-policy"]
    assert style.status_code == 200
    for response in (model, docs, style):
        assert response.headers["x-frame-options"] == "DENY"
        assert "http://" not in response.text.replace("http://www.w3.org", "")


def test_the_docs_have_examples_for_every_status(store):
    async def scenario(http: httpx.AsyncClient) -> dict[str, Any]:
        return (await http.get("/openapi.json")).json()

    paths = ask(store, scenario)["paths"]
    for path in ("/v1/classify", "/v2/models/{name}/infer"):
        responses = paths[path]["post"]["responses"]
        assert {"200", "400", "401", "408", "413", "415", "422", "429", "503"} <= set(responses)
        for status, response in responses.items():
            content = response["content"]["application/json"]
            assert content.get("example") or content.get("examples"), (path, status)


def test_the_docs_ask_for_the_key_and_say_what_comes(store):
    async def scenario(http: httpx.AsyncClient) -> dict[str, Any]:
        return (await http.get("/openapi.json")).json()

    schema = ask(store, scenario)
    (scheme,) = schema["components"]["securitySchemes"]
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            assert operation.get("security") == ([{scheme: []}] if path.startswith("/v") else None), path
    answered = schema["paths"]["/v1/classify"]["post"]["responses"]["200"]["content"]["application/json"]
    assert answered["schema"] == {"$ref": "#/components/schemas/ClassifyResponse"}
    assert set(schema["components"]["schemas"]["ClassifyResponse"]["properties"]) == {"model", "predictions", "timings"}


def test_what_nobody_expected_is_a_500_without_details(store, photo, monkeypatch):
    def broken(*arguments: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("pawcast_serve.service.to_prediction", broken)
    response = post(store, content=photo, headers=ACCEPTED)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["error"]


def test_metrics_know_routes_by_their_template_and_not_by_what_was_sent(store, photo, monkeypatch):
    counted: list[tuple[object, ...]] = []
    monkeypatch.setattr("pawcast_serve.metrics.Metrics.request", lambda self, *facts: counted.append(facts[:3]))

    async def scenario(http: httpx.AsyncClient) -> None:
        await http.post("/v1/classify", content=photo)
        await http.get("/v2/models/anything")
        await http.get("/v1/classify")
        await http.request("ODD", "/anything")
        await http.request("ODD", "/v1/classify")

    ask(store, scenario)
    assert counted == [
        ("POST", "/v1/classify", 200), ("GET", "/v2/models/{name}", 404), ("GET", "/v1/classify", 405),
        ("other", "other", 404), ("other", "/v1/classify", 405),
    ]  # fmt: skip
