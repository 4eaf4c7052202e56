"""The service in this process: small untrained Keras networks in a folder store, ASGI, no Ray."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from pawcast import registry
from pawcast.recipes import resolve
from pawcast.recipes.schema import Recipe
from pawcast.registry import WEIGHTS, ModelVersion, Parity
from pawcast.runtime.devices import Precision
from pawcast.store import Store
from pawcast.vision.preprocess import Preprocessing
from pawcast_serve.api import create_api
from pawcast_serve.classifier import Classifier
from pawcast_serve.limits import ServiceLimits
from tests.support.services import free_port, wait_for

MODEL = "pets@production"
IMAGE_HEADERS = {"content-type": "image/jpeg"}
_RECIPE = resolve("smoke", ["image_size=32"])

Scenario = Callable[[httpx.AsyncClient], Awaitable[Any]]


@cache
def weights(seed: int, recipe: Recipe = _RECIPE) -> bytes:
    """Return the content of a weights file. Another seed gives other predictions."""
    from pawcast.runtime.tensorflow import configure_tensorflow

    configure_tensorflow(2)
    import keras

    from pawcast.models import build
    from pawcast.models import weights as weights_file

    keras.utils.set_random_seed(seed)
    return weights_file.dump(build.build_model(recipe))


def publish(
    store: Store, seed: int = 1, data: bytes | None = None, model: str = "pets", recipe: Recipe = _RECIPE
) -> ModelVersion:
    """Register a version and point `production` at it."""
    content = weights(seed, recipe) if data is None else data
    version = registry.register(
        store,
        model,
        {WEIGHTS: content},
        run="r",
        created="2026-01-01T00:00:00Z",
        code="0",
        recipe=recipe,
        dataset="pets",
        dataset_sha256="0" * 64,
        classes=["cat", "dog"],
        preprocessing=Preprocessing(image_size=recipe.image_size, eval_downscale=recipe.eval_downscale),
        metrics={"val_acc": 0.5},
        architecture="",
    )
    registry.move_ref(store, model, "production", version.version)
    return version


def version(image_size: int = 32, mirror: bool = False, parity: dict[Precision, Parity] | None = None) -> ModelVersion:
    """Return the record of a version that no store has, for a network that the test builds."""
    return ModelVersion(
        model="pets",
        version=1,
        run="r",
        created="2026-01-01T00:00:00Z",
        code="0",
        recipe=_RECIPE,
        dataset="pets",
        dataset_sha256="0" * 64,
        classes=["cat", "dog"],
        metrics={},
        architecture="",
        files={},
        parity=parity,
        preprocessing=Preprocessing(image_size=image_size, mirror=mirror),
    )


@asynccontextmanager
async def client(classifier: Classifier, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Run a service; yield an HTTP client of it."""
    async with running(create_api(classifier, lambda: [key] if key else [])) as api, http_client(api) as http:
        yield http


@asynccontextmanager
async def running(api: FastAPI) -> AsyncIterator[FastAPI]:
    """Start an ASGI application, and stop it when the block ends."""
    async with api.router.lifespan_context(api):
        yield api


def http_client(api: FastAPI) -> httpx.AsyncClient:
    """Return an HTTP client of a running ASGI application."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test", timeout=60)


@contextmanager
def serving(classifier: Classifier, key: str | None = None) -> Iterator[str]:
    """Run a service in a thread, over HTTP; yield its address once it is ready."""
    port = free_port()
    api = create_api(classifier, lambda: [key] if key else [])
    server = uvicorn.Server(uvicorn.Config(api, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started, 60)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def ask(store: Store, scenario: Scenario, key: str | None = None, **limits: float) -> Any:
    """Run a service with some limits; return what a scenario, given an HTTP client, returns."""

    async def run() -> Any:
        async with client(Classifier(store, MODEL, ServiceLimits(**limits)), key) as http:
            return await scenario(http)

    return asyncio.run(run())


def post(
    store: Store, *, key: str | None = None, limits: dict[str, float] | None = None, **request: Any
) -> httpx.Response:
    """Run a service; return its response to one `POST /v1/classify`."""
    response: httpx.Response = ask(store, lambda http: http.post("/v1/classify", **request), key, **(limits or {}))
    return response


def form(*photos: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    """Return httpx's `files` for a multipart form with photos `0.jpg`, `1.jpg`, …"""
    return [("photo", (f"{number}.jpg", data)) for number, data in enumerate(photos)]


async def send_chunks(api: FastAPI, chunks: list[bytes], then: Callable[[], Awaitable[Any]]) -> list[dict[str, Any]]:
    """Send a body that never ends to `/v1/classify` of an ASGI application.

    Args:
        api: The running application.
        chunks: The first chunks of the body.
        then: Awaited after them; then the client disconnects.

    Returns:
        The ASGI messages of the response.
    """
    remaining = iter(chunks)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if (chunk := next(remaining, None)) is not None:
            return {"type": "http.request", "body": chunk, "more_body": True}
        await then()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/classify",
        "raw_path": b"/v1/classify",
        "query_string": b"",
        "headers": [(b"content-type", b"image/jpeg")],
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "client": ("test", 1),
        "server": ("test", 80),
        "asgi": {"version": "3.0"},
    }
    await api(scope, receive, send)
    return sent
