"""A service in this process: real, small, untrained Keras networks in a folder store, behind the ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

import httpx
from fastapi import FastAPI

from pawcast import registry
from pawcast.recipes import resolve
from pawcast.recipes.schema import Recipe
from pawcast.registry import WEIGHTS, ModelVersion, Parity
from pawcast.runtime.devices import Precision
from pawcast.store import Store
from pawcast.vision.preprocess import Preprocessing
from pawcast_serve.api import create_api
from pawcast_serve.service import Service

MODEL = "pets@production"
_RECIPE = resolve("smoke", ["image_size=32"])
ACCEPTED = {"content-type": "image/jpeg"}


@cache
def weights(seed: int, recipe: Recipe = _RECIPE) -> bytes:
    """Weights that another seed's predictions differ from."""
    from pawcast.runtime.tensorflow import configure_tensorflow

    configure_tensorflow(2)
    import keras

    from pawcast.models import build
    from pawcast.models import weights as files

    keras.utils.set_random_seed(seed)
    return files.dump(build.build_model(recipe))


def publish(
    store: Store, seed: int = 1, data: bytes | None = None, model: str = "pets", recipe: Recipe = _RECIPE
) -> ModelVersion:
    """Register a version and point `production` at it."""
    content = weights(seed, recipe) if data is None else data
    version = registry.register(
        store, model, {WEIGHTS: content}, run="r", created="2026-01-01T00:00:00Z",
        code="0", recipe=recipe, dataset="pets", dataset_sha256="0" * 64, classes=["cat", "dog"],
        preprocessing=Preprocessing(image_size=recipe.image_size, eval_downscale=recipe.eval_downscale), metrics={"val_acc": 0.5},
        architecture="",
    )  # fmt: skip
    registry.move_ref(store, model, "production", version.version)
    return version


def version(image_size: int = 32, mirror: bool = False, parity: dict[Precision, Parity] | None = None) -> ModelVersion:
    """The record of a version that no store has, for a network of the test's own."""
    return ModelVersion(
        model="pets", version=1, run="r", created="2026-01-01T00:00:00Z", code="0", recipe=_RECIPE, dataset="pets",
        dataset_sha256="0" * 64, classes=["cat", "dog"], metrics={}, architecture="", files={}, parity=parity,
        preprocessing=Preprocessing(image_size=image_size, mirror=mirror),
    )  # fmt: skip


@asynccontextmanager
async def client(service: Service, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a started service."""
    async with started(create_api(service, key)) as api, over(api) as http:
        yield http


@asynccontextmanager
async def started(api: FastAPI) -> AsyncIterator[FastAPI]:
    async with api.router.lifespan_context(api):
        yield api


def over(api: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test", timeout=60)
