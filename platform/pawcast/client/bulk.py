"""Bulk prediction over HTTP: every photo of a source sent once, one row for each, in the photos' order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import httpx

from pawcast import sources
from pawcast.errors import ImageError, ServiceError
from pawcast.sources import Photo

BATCH = 64
CONNECTIONS = 4
# A server that restarts takes about half a minute with TensorFlow; these add up to a good minute.
_ATTEMPTS, _FIRST_PAUSE, _LONGEST_PAUSE = 10, 0.5, 15.0
_TIMEOUT = httpx.Timeout(60, connect=5)
_PASSING = {408, 425, 429, 500, 502, 503, 504}

Progress = Callable[[int, int], None]


class Row(NamedTuple):
    """One photo's answer: `score`, the probability of class 1, or the reason why there is none."""

    id: str
    member: str
    score: float | None
    error: str | None


class Bulk(NamedTuple):
    """All answers, in the photos' natural order, and the model that gave them."""

    model: str
    classes: list[str]
    rows: list[Row]


class _Server(NamedTuple):
    model: str
    classes: list[str]


def predict(source: str, url: str, progress: Progress = lambda done, total: None) -> Bulk:
    """Send every photo of a zip or folder to a Pawcast service.

    At most `BATCH` x `CONNECTIONS` photos are in memory, whatever the source's size. Dropped connections and
    passing refusals (429, 5xx) are tried again after a growing pause.

    Args:
        source: A zip or a folder.
        url: The service, such as `http://127.0.0.1:8000`.
        progress: Called with photos done and in all.

    Returns:
        One row for each photo. A photo that the service can't decode has an error instead of a score.

    Raises:
        NotFoundError, DataError: If the source isn't there or holds no photo.
        ServiceError: If nothing answers at the address, if it has no model, if the model changes on the
            way, or if an answer makes no sense.
    """
    return asyncio.run(_predict(sources.scan(source), source, url.rstrip("/"), progress))


def classify(data: bytes, url: str) -> dict[str, Any]:
    """Send one photo to a Pawcast service; return its answer, as `/v1/classify` gives it, with the model's name.

    Raises:
        ImageError: If the service can't decode the photo.
        ServiceError: As for `predict`.
    """

    async def send() -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=url.rstrip("/"), timeout=_TIMEOUT) as http:
            await _server(http)
            headers = {"content-type": "application/octet-stream"}
            response = await _post(http, content=data, headers=headers)
            if response.status_code == 422:
                raise ImageError(response.json()["predictions"][0]["error"])
            answer = _answer(http, response)
            prediction: dict[str, Any] = answer["predictions"][0]
            return {"model": answer["model"], **prediction}

    return asyncio.run(send())


async def _predict(photos: Sequence[Photo], source: str, url: str, progress: Progress) -> Bulk:
    rows: dict[int, Row] = {}
    # Reading is in order and one batch at a time, by whichever connection is free.
    reading = asyncio.Lock()
    coming = iter(enumerate(photos))
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT) as http:
        server = await _server(http)

        async def work() -> None:
            while True:
                async with reading:
                    batch = list(islice(coming, BATCH))
                    if not batch:
                        return
                    data = await asyncio.to_thread(_read, source, [photo for _, photo in batch])
                answers = await _send(http, server, [photo for _, photo in batch], data)
                for (index, photo), row in zip(batch, answers, strict=True):
                    rows[index] = Row(photo.id, photo.member, *row)
                progress(len(rows), len(photos))

        progress(0, len(photos))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(CONNECTIONS):
                    group.create_task(work())
        except* ServiceError as failures:
            raise failures.exceptions[0] from None
    return Bulk(server.model, server.classes, [rows[index] for index in range(len(photos))])


def _read(source: str, photos: Sequence[Photo]) -> list[bytes | ImageError]:
    return list(sources.read(source, photos))


async def _server(http: httpx.AsyncClient) -> _Server:
    """Ask the service who it is, once: a wrong address should say so at once, not after all retries."""
    try:
        response = await http.get("/v1/model")
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise ServiceError(
            "No server answers", received=f"{http.base_url} ({error or type(error).__name__})",
            fix="start it with `serve deploy serve/config.yaml`, or correct --url",
        ) from None  # fmt: skip
    if response.status_code == 503:
        raise ServiceError(f"The server at {http.base_url} has no model", received=_error(response))
    try:
        version = response.json()
        return _Server(f"{version['model']}@{version['version']}", version["classes"])
    except (ValueError, KeyError, TypeError):
        raise ServiceError(
            f"No Pawcast service answers at {http.base_url}",
            received=f"HTTP {response.status_code} to GET /v1/model",
            fix="correct --url",
        ) from None


async def _send(
    http: httpx.AsyncClient, server: _Server, photos: Sequence[Photo], data: Sequence[bytes | ImageError]
) -> list[tuple[float | None, str | None]]:
    """Return (score, error) for each photo of a batch."""
    readable = [item for item in data if not isinstance(item, ImageError)]
    answers: Iterator[dict[str, Any]] = iter(())
    if readable:
        files = [("photo", (f"{i}", item)) for i, item in enumerate(readable)]
        answer = _answer(http, await _post(http, files=files))
        if answer["model"] != server.model:
            raise ServiceError(
                "The model changed during the run", received=answer["model"], expected=server.model,
                fix="run it again, so that one model predicts all photos",
            )  # fmt: skip
        if [item["id"] for item in answer["predictions"]] != [name for _, (name, _) in files]:
            raise ServiceError(f"The server's answer doesn't match what {photos[0].id} and its neighbours asked")
        answers = iter(answer["predictions"])
    results: list[tuple[float | None, str | None]] = []
    for item in data:
        if isinstance(item, ImageError):
            results.append((None, item.what))
            continue
        found = next(answers)
        results.append((found["scores"][server.classes[1]], None) if "scores" in found else (None, found["error"]))
    return results


async def _post(http: httpx.AsyncClient, **options: Any) -> httpx.Response:
    """Post to `/v1/classify` until the answer isn't a passing failure; return it."""
    pause = _FIRST_PAUSE
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            response = await http.post("/v1/classify", **options)
            if response.status_code not in _PASSING:
                return response
            failure = _error(response)
        except httpx.TransportError as error:
            failure = f"{type(error).__name__}: {error}"
        if attempt < _ATTEMPTS:
            # Jitter, so that connections which failed together don't come back together.
            await asyncio.sleep(random.uniform(pause / 2, pause))
            pause = min(2 * pause, _LONGEST_PAUSE)
    raise ServiceError(f"The server at {http.base_url} stopped answering", received=failure)


def _answer(http: httpx.AsyncClient, response: httpx.Response) -> dict[str, Any]:
    """Return the predictions of an answer, which with 422 are errors throughout."""
    try:
        answer: dict[str, Any] = response.json()
        if response.status_code in (200, 422) and answer["predictions"] is not None:
            return answer
    except (ValueError, KeyError, TypeError):
        pass
    raise ServiceError(f"The server at {http.base_url} refused the photos", received=_error(response))


def _error(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"
