"""New versions go live under load; if one can't be loaded, the old one keeps answering."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import httpx
import numpy as np
import pytest

from pawcast import registry
from pawcast.errors import ServiceError
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import predict_scores
from pawcast.registry import WEIGHTS
from pawcast.store import Store, open_store
from pawcast_serve.classifier import Classifier
from pawcast_serve.model_manager import ModelManager
from tests.support.files import encode
from tests.support.served import MODEL, client, publish


@pytest.fixture
def store(tmp_path) -> Store:
    store = open_store(str(tmp_path))
    publish(store, seed=1)
    return store


async def until(http: httpx.AsyncClient, condition: Any) -> dict[str, Any]:
    """Poll `/v1/model` until the condition holds; return the response's JSON."""
    for _ in range(600):
        model = (await http.get("/v1/model")).json()
        if condition(model):
            return model
        await asyncio.sleep(0.05)
    pytest.fail(f"the condition never held: {model}")


def test_a_promoted_version_goes_live_without_a_failed_or_mixed_response(store, picture):
    photo = encode(picture, "JPEG")

    async def scenario() -> list[httpx.Response]:
        responses: list[httpx.Response] = []
        async with client(Classifier(store, MODEL, check_seconds=0.1)) as http:
            going = True

            async def work() -> None:
                files = [("photo", (f"{i}.jpg", photo)) for i in range(70)]
                while going:
                    responses.append(await http.post("/v1/classify", files=files))

            workers = [asyncio.create_task(work()) for _ in range(3)]
            await until(http, lambda model: len(responses) > 3)
            await asyncio.to_thread(publish, store, 2)
            model = await until(http, lambda model: model["version"] == 2)
            assert model["pending_error"] is None
            before = len(responses)
            await until(http, lambda model: len(responses) > before + 3)
            going = False
            await asyncio.gather(*workers)
        return responses

    responses = asyncio.run(scenario())
    assert {response.status_code for response in responses} == {200}
    answers = [response.json() for response in responses]
    assert {answer["model"] for answer in answers} == {"pets@1", "pets@2"}
    expected = {name: next(predict_scores(Engine.load(store, name), [photo])) for name in ("pets@1", "pets@2")}
    assert abs(expected["pets@1"] - expected["pets@2"]) > 1e-4
    for answer in answers:
        scores = {item["scores"]["dog"] for item in answer["predictions"]}
        assert scores == {expected[answer["model"]]}


def test_garbage_collection_skips_the_model_but_frees_a_replaced_one(store):
    async def scenario() -> None:
        classifier = Classifier(store, MODEL, check_seconds=0.05)
        async with client(classifier) as http:
            # Before the first request, so that it needn't wait for a collection.
            assert gc.get_freeze_count()
            old = weakref.ref(classifier.manager.loaded.engine.network)
            gc.unfreeze()
            await asyncio.to_thread(publish, store, 2)
            await until(http, lambda model: model["version"] == 2)
            await settled()
            assert old() is None

    async def settled() -> None:
        for _ in range(600):
            if gc.get_freeze_count():
                return
            await asyncio.sleep(0.05)
        pytest.fail("objects were never frozen")

    gc.unfreeze()
    try:
        asyncio.run(scenario())
    finally:
        gc.unfreeze()


def test_a_version_that_fails_to_load_leaves_the_old_one_and_is_reported(store, tmp_path, picture, caplog):
    async def scenario() -> None:
        async with client(Classifier(store, MODEL, check_seconds=0.05)) as http:
            for seed, spoil in ((2, changed_weights), (3, invalid_weights)):
                version = await asyncio.to_thread(spoil, store, tmp_path, seed)
                model = await until(http, lambda model: model["pending_error"])
                assert version.name in model["pending_error"]
                assert model["version"] == 1
                response = await http.post("/v1/classify", content=encode(picture, "JPEG"))
                assert response.json()["model"] == "pets@1"
                registry.move_ref(store, "pets", "production", 1)
                await until(http, lambda model: model["pending_error"] is None)
            registry.move_ref(store, "pets", "production", (await asyncio.to_thread(publish, store, 4)).version)
            await until(http, lambda model: model["version"] == 4)

    asyncio.run(scenario())
    assert "pets@1 keeps answering" in caplog.text


def changed_weights(store: Store, folder: Any, seed: int) -> registry.ModelVersion:
    """A version whose weights don't match their hash."""
    version = publish(store, seed)
    (folder / "models" / "pets" / "files" / version.files[WEIGHTS].sha256).write_bytes(b"other")
    return version


def invalid_weights(store: Store, folder: Any, seed: int) -> registry.ModelVersion:
    """A version whose weights file has the right hash but can't be read."""
    return publish(store, data=b"no weights at all")


def test_a_store_that_goes_away_is_reported_and_the_model_keeps_answering(store, tmp_path):
    async def scenario() -> None:
        async with client(Classifier(store, MODEL, check_seconds=0.05)) as http:
            (tmp_path / "models").rename(tmp_path / "elsewhere")
            model = await until(http, lambda model: model["pending_error"])
            assert (model["version"], (await http.get("/readyz")).status_code) == (1, 200)
            (tmp_path / "elsewhere").rename(tmp_path / "models")
            await until(http, lambda model: model["pending_error"] is None)

    asyncio.run(scenario())


def test_a_model_that_is_promoted_later_is_loaded(tmp_path):
    async def scenario() -> dict[str, Any]:
        store = open_store(str(tmp_path))
        async with client(Classifier(store, MODEL, check_seconds=0.05)) as http:
            assert (await http.get("/readyz")).status_code == 503
            await asyncio.to_thread(publish, store)
            return await until(http, lambda model: model.get("version") == 1)

    model = asyncio.run(scenario())
    assert model["dataset_sha256"] == "0" * 64
    assert model["metrics"] == {"val_acc": 0.5}
    assert model["engine"]["device"] in ("CPU", "GPU")
    assert model["ref"] == MODEL


def test_a_replaced_model_answers_what_began_with_it(store):
    async def scenario() -> None:
        manager = ModelManager(store, MODEL)
        await manager.start()
        old = manager.loaded
        await asyncio.to_thread(publish, store, 2)
        await manager.refresh()
        new = manager.loaded
        assert (old.version.version, new.version.version) == (1, 2)
        pending = old.batcher.submit([np.zeros((8, 8, 3), np.uint8)])
        await pending.done
        assert 0 <= pending.results[0] <= 1
        await manager.stop()
        with pytest.raises(ServiceError, match="no model"):
            _ = manager.loaded

    asyncio.run(scenario())
