"""The limits of a replica: what exceeds them is refused, and what was accepted is answered."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import ValidationError

from pawcast_serve.api import create_api
from pawcast_serve.classifier import Classifier
from pawcast_serve.io.oip_codec import HEADER_LENGTH
from pawcast_serve.limits import ServiceLimits
from tests.support.oip import binary_request, json_request
from tests.support.served import IMAGE_HEADERS, MODEL, ask, form, http_client, post, running, send_chunks

SIZE = 3 * 2**20
"""Bytes of a hostile body."""


def test_unknown_or_impossible_limits_are_refused():
    for wrong in ({"photo": 1}, {"photos": 0}, {"receive_seconds": 0}):
        with pytest.raises(ValidationError):
            ServiceLimits.model_validate(wrong)


@pytest.mark.parametrize("limits", [{"waiting_photos": 3}, {"requests": 1}, {"held_bytes": 60_000}])
def test_requests_beyond_a_limit_get_a_429_and_the_others_are_answered(model_store, photo, limits):
    async def scenario(http: httpx.AsyncClient) -> list[httpx.Response]:
        large = photo + b"0" * 20_000
        return await asyncio.gather(*(http.post("/v1/classify", files=form(large, large)) for _ in range(3)))

    responses = ask(model_store, scenario, **limits)
    assert sorted(response.status_code for response in responses) == [200, 429, 429]
    for response in responses:
        if response.status_code == 429:
            assert response.headers["retry-after"] == "1"
            assert response.json()["error"].startswith("The server is busy")


def test_a_body_of_unknown_length_is_refused_as_soon_as_it_is_too_large(model_store):
    sent = 0

    async def chunks():
        nonlocal sent
        for _ in range(1_000):
            sent += 1_024
            yield b"0" * 1_024

    response = post(model_store, content=chunks(), headers=IMAGE_HEADERS, limits={"body_bytes": 8_192})
    assert response.status_code == 413
    assert sent < 20_000


def test_a_slow_client_gets_a_408_and_is_disconnected(model_store):
    async def scenario() -> tuple[list[dict[str, Any]], int]:
        classifier = Classifier(model_store, MODEL, ServiceLimits(receive_seconds=0.3))
        async with running(create_api(classifier)) as api:
            sent = await send_chunks(api, [b"a", b"b"], then=asyncio.Event().wait)
            async with http_client(api) as http:
                return sent, (await http.get("/readyz")).status_code

    (start, body), ready = asyncio.run(scenario())
    assert start["status"] == 408
    assert (b"connection", b"close") in start["headers"]
    assert b"0.3 s" in body["body"]
    assert ready == 200


async def start_idle_bodies(api: FastAPI, count: int, size: int = 1) -> list[asyncio.Task[list[dict[str, Any]]]]:
    """Start requests that send some bytes and then nothing; return when all of them are idle."""
    waiting = asyncio.Semaphore(0)

    async def idle() -> None:
        waiting.release()
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(send_chunks(api, [b"0" * size], then=idle)) for _ in range(count)]
    for _ in tasks:
        await waiting.acquire()
    return tasks


def statuses(tasks: list[asyncio.Task[list[dict[str, Any]]]]) -> list[int]:
    """The statuses of the requests that have ended; the others are cancelled."""
    for task in tasks:
        task.cancel()
    return [task.result()[0]["status"] for task in tasks if task.done()]


def test_requests_that_send_a_byte_and_wait_do_not_lock_others_out(model_store, photo):
    async def scenario() -> tuple[list[int], list[int]]:
        classifier = Classifier(model_store, MODEL, ServiceLimits(requests=2, arriving=8))
        async with running(create_api(classifier)) as api, http_client(api) as http:
            idle = await start_idle_bodies(api, 8)
            answers = [await http.post("/v1/classify", content=photo, headers=IMAGE_HEADERS) for _ in range(3)]
            await asyncio.sleep(0)
            return [answer.status_code for answer in answers], statuses(idle)

    answers, dropped = asyncio.run(scenario())
    assert answers == [200] * 3
    # Only the first request had to make room for itself: the place is free again after it.
    assert dropped == [408]


def test_the_body_that_has_been_idle_longest_is_dropped_first(model_store):
    async def scenario() -> list[bool]:
        classifier = Classifier(model_store, MODEL, ServiceLimits(arriving=3))
        async with running(create_api(classifier)) as api:
            tasks = []
            for _ in range(5):
                tasks += await start_idle_bodies(api, 1)
            await asyncio.wait(tasks[:2], timeout=10)
            done = [task.done() for task in tasks]
            assert statuses(tasks) == [408, 408]
            assert tasks[0].result()[1]["body"].startswith(b'{"error":"The body came too slowly')
            return done

    assert asyncio.run(scenario()) == [True, True, False, False, False]


def test_idle_bodies_make_room_in_memory(model_store, photo, monkeypatch):
    monkeypatch.setattr("pawcast_serve.io.body._IDLE_SECONDS", 0.0)

    async def scenario() -> tuple[httpx.Response, list[int]]:
        classifier = Classifier(model_store, MODEL, ServiceLimits(held_bytes=2_000_000))
        async with running(create_api(classifier)) as api, http_client(api) as http:
            idle = await start_idle_bodies(api, 3, size=600_000)
            content = photo + b"0" * 700_000
            return await http.post("/v1/classify", content=content, headers=IMAGE_HEADERS), statuses(idle)

    response, dropped = asyncio.run(scenario())
    assert response.status_code == 200
    assert dropped == [408]


def test_a_client_that_disconnects_gives_back_its_request_and_memory(model_store, photo):
    async def scenario() -> httpx.Response:
        classifier = Classifier(model_store, MODEL, ServiceLimits(requests=1, held_bytes=2_000_000))
        async with running(create_api(classifier)) as api:
            assert await send_chunks(api, [b"0" * 1_500_000], then=lambda: asyncio.sleep(0)) == []
            async with http_client(api) as http:
                return await http.post("/v1/classify", content=photo + b"0" * 1_500_000, headers=IMAGE_HEADERS)

    assert asyncio.run(scenario()).status_code == 200


def hostile_requests() -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Yield path, body and headers of requests that make a parser work as hard as it can."""
    infer = "/v2/models/pets/infer"

    for items, tensor in (
        ("[]", {}),
        ('""', {}),
        ("{}", {}),
        ("1", {"shape": [1, 2, 2, 3], "datatype": "UINT8"}),
        ("[[1]]", {"shape": [1, 2, 2, 3], "datatype": "FP32"}),
        ("1" * 4_000, {"shape": [1, 2, 2, 3], "datatype": "UINT8"}),
    ):
        body = json.dumps(json_request(data=[0], **tensor)).replace("[0]", f"[{repeat(items)}]")
        yield infer, body.encode(), {}
    image, output = json.dumps(json_request(data=[""])["inputs"])[1:-1], json.dumps({"name": "label"})
    for body in (
        members(inputs=f"[{repeat(image)}]"),
        members(inputs=f"[{image}]", outputs=f"[{repeat(output)}]"),
        members(inputs=f"[{image}]", parameters=members(x=f"[{repeat('[]')}]")),
        members(inputs=f"[{image}]").replace("[1]", f"[{repeat('1')}]"),
        members(inputs=f"[{image}]").replace("[1]", f"[{'1' * SIZE}]"),
        "[" * SIZE,
    ):
        yield infer, body.encode(), {}
        yield infer, gzip.compress(body.encode()), {"content-encoding": "gzip"}
    for tensor in ({}, {"shape": [256]}, {"shape": [255, 64, 64, 3], "datatype": "UINT8"}):
        body, header = binary_request(bytes(256 * 64 * 64 * 3), **tensor)
        yield infer, body, {HEADER_LENGTH: header}
        yield infer, gzip.compress(bytes(2**26) + body), {HEADER_LENGTH: header, "content-encoding": "gzip"}
    part = b"--x\r\nContent-Disposition: form-data; name=a; filename=b\r\n"
    form_type = {"content-type": "multipart/form-data; boundary=x"}
    for body in (
        bytes(SIZE),
        part + b"\r\n" + b"\r\n--y" * (SIZE // 5),
        (part + b"\r\n\r\n") * (SIZE // len(part)),
        (part.replace(b"; filename=b", b"") + b"\r\n\r\n") * (SIZE // len(part)),
        part + b"a: b\r\n" * (SIZE // 6),
        part + b"a: " + b"b" * SIZE,
        (part.replace(b"\r\n", b"; filename*=" * 330 + b"\r\n") + b"\r\n\r\n") * 200,
        (part.replace(b"\r\n", b"; a=b" * 700 + b"\r\n") + b"\r\n\r\n") * 200,
    ):
        yield "/v1/classify", body, form_type
    for path in ("/v1/classify", "/v1/explain"):
        yield path, bytes(SIZE), IMAGE_HEADERS
        for headers in ({**IMAGE_HEADERS, "content-encoding": "gzip"}, {**form_type, "content-encoding": "gzip"}):
            yield path, gzip.compress(bytes(2**26)), headers
            yield path, gzip.compress(b"") * 10_000, headers
        yield path, zlib.compress(bytes(2**26)), {**IMAGE_HEADERS, "content-encoding": "deflate"}


def members(**values: str) -> str:
    return "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"


def repeat(item: str) -> str:
    return ",".join([item] * (SIZE // (len(item) + 1)))


def test_no_request_costs_much_more_processor_time_than_its_bytes(model_store):
    """A few milliseconds, and at most half a second for each megabyte that the client sends."""

    async def scenario(http: httpx.AsyncClient) -> int:
        count = 0
        for path, body, headers in hostile_requests():
            started = time.process_time()
            response = await http.post(path, content=chunks(body), headers=headers)
            seconds = time.process_time() - started
            assert 400 <= response.status_code < 500, (path, body[:100], response.text[:200])
            assert seconds < 0.2 + 0.5e-6 * len(body), (path, body[:100], headers, response.text[:200])
            count += 1
        return count

    async def chunks(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 2**16):
            yield body[start : start + 2**16]

    assert ask(model_store, scenario) > 40
