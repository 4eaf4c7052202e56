"""New versions go live beside running requests; those that can't be loaded leave the old one answering."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import httpx
import pytest

from pawcast import registry
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import predict_scores
from pawcast.registry import WEIGHTS
from pawcast.store import Store, open_store
from pawcast_serve.service import Service
from tests.support.files import encode
from tests.support.served import MODEL, client, publish


@pytest.fixture
def store(tmp_path) -> Store:
    place = open_store(str(tmp_path))
    publish(place, seed=1)
    return place


async def until(http: httpx.AsyncClient, condition: Any) -> dict[str, Any]:
    for _ in range(600):
        found = (await http.get("/v1/model")).json()
        if condition(found):
            return found
        await asyncio.sleep(0.05)
    pytest.fail(f"never came: {found}")


def test_a_promoted_version_goes_live_with_no_failed_and_no_mixed_answer(store, picture):
    photo = encode(picture, "JPEG")

    async def scenario() -> list[httpx.Response]:
        responses: list[httpx.Response] = []
        async with client(Service(store, MODEL, check_seconds=0.1)) as http:
            going = True

            async def work() -> None:
                files = [("photo", (f"{i}.jpg", photo)) for i in range(70)]
                while going:
                    responses.append(await http.post("/v1/classify", files=files))

            workers = [asyncio.create_task(work()) for _ in range(3)]
            await until(http, lambda found: len(responses) > 3)
            await asyncio.to_thread(publish, store, 2)
            found = await until(http, lambda found: found["version"] == 2)
            assert found["pending_error"] is None
            before = len(responses)
            await until(http, lambda found: len(responses) > before + 3)
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
        found = [item["scores"]["dog"] for item in answer["predictions"]]
        assert set(found) == {expected[answer["model"]]}


def test_the_collector_leaves_alone_what_stays_but_takes_what_was_replaced(store):
    async def scenario() -> None:
        service = Service(store, MODEL, check_seconds=0.05)
        async with client(service) as http:
            # At once: the first request needn't wait for it.
            assert gc.get_freeze_count()
            old = weakref.ref((await service.engine()).network)
            gc.unfreeze()
            await asyncio.to_thread(publish, store, 2)
            await until(http, lambda found: found["version"] == 2)
            await settled()
            assert old() is None

    async def settled() -> None:
        for _ in range(600):
            if gc.get_freeze_count():
                return
            await asyncio.sleep(0.05)
        pytest.fail("never came")

    gc.unfreeze()
    try:
        asyncio.run(scenario())
    finally:
        gc.unfreeze()


def test_a_version_that_fails_to_load_leaves_the_old_one_and_says_so(store, tmp_path, picture, caplog):
    async def scenario() -> None:
        async with client(Service(store, MODEL, check_seconds=0.05)) as http:
            for seed, spoil in ((2, changed), (3, nonsense)):
                version = await asyncio.to_thread(spoil, store, tmp_path, seed)
                found = await until(http, lambda found: found["pending_error"])
                assert version.name in found["pending_error"]
                assert found["version"] == 1
                answer = await http.post("/v1/classify", content=encode(picture, "JPEG"))
                assert answer.json()["model"] == "pets@1"
                registry.move_ref(store, "pets", "production", 1)
                await until(http, lambda found: found["pending_error"] is None)
            registry.move_ref(store, "pets", "production", (await asyncio.to_thread(publish, store, 4)).version)
            await until(http, lambda found: found["version"] == 4)

    asyncio.run(scenario())
    assert "pets@1 goes on answering" in caplog.text


def changed(store: Store, folder: Any, seed: int) -> registry.ModelVersion:
    """A version whose weights don't match their hash."""
    version = publish(store, seed)
    (folder / "models" / "pets" / "files" / version.files[WEIGHTS].sha256).write_bytes(b"other")
    return version


def nonsense(store: Store, folder: Any, seed: int) -> registry.ModelVersion:
    """A version of which only Keras could tell that it is none."""
    return publish(store, data=b"no weights at all")


def test_a_store_that_goes_away_is_said_and_the_model_goes_on_answering(store, tmp_path):
    async def scenario() -> None:
        async with client(Service(store, MODEL, check_seconds=0.05)) as http:
            (tmp_path / "models").rename(tmp_path / "elsewhere")
            found = await until(http, lambda found: found["pending_error"])
            assert (found["version"], (await http.get("/readyz")).status_code) == (1, 200)
            (tmp_path / "elsewhere").rename(tmp_path / "models")
            await until(http, lambda found: found["pending_error"] is None)

    asyncio.run(scenario())


def test_a_model_that_comes_later_is_found(tmp_path):
    async def scenario() -> dict[str, Any]:
        store = open_store(str(tmp_path))
        async with client(Service(store, MODEL, check_seconds=0.05)) as http:
            assert (await http.get("/readyz")).status_code == 503
            await asyncio.to_thread(publish, store)
            return await until(http, lambda found: found.get("version") == 1)

    found = asyncio.run(scenario())
    assert found["dataset_sha256"] == "0" * 64
    assert found["metrics"] == {"val_acc": 0.5}
    assert found["engine"]["device"] in ("CPU", "GPU")
    assert found["ref"] == MODEL
