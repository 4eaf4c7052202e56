"""A Pawcast service as its client sees it: who answers, and what it says of some photos."""

from __future__ import annotations

import asyncio
import email.utils
import hashlib
import json
import math
import secrets
import ssl
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import httpx

from pawcast.client.retry import TransientError, retrying
from pawcast.errors import ImageError, ServiceError, UsageError

# What a server or a gateway says while it starts, stops, is replaced or has enough to do. Ray Serve's proxy answers
# 404 as long as the application isn't there yet.
_PASSING = {404, 408, 425, 429, 500, 502, 503, 504}
_TOO_LARGE = 413
_CONNECT_SECONDS = 5.0
_ONE_PHOTO_SECONDS = 60.0


class ServedModel(NamedTuple):
    """Who answers: `name@version`, its two classes, and the identity of its files, empty if it doesn't tell."""

    model: str
    classes: list[str]
    weights: str


class PhotoResult(NamedTuple):
    """What the service says of one photo: the probability of class 1, or why there is none."""

    score: float | None
    error: str | None


class ModelChangedError(ServiceError):
    """Another model answers than at first; `what` is its name."""


class ServiceClient:
    """A connection to a service; use as an asynchronous context manager.

    Args:
        url: Such as `http://127.0.0.1:8000`.
        key: Sent as a bearer token, if given.
        timeout: Seconds without a byte after which a request counts as lost.
        connections: Most at once.

    Raises:
        ServiceError: If the address is none.
        UsageError: If the key can't be sent as a header. The line doesn't show it.
    """

    def __init__(self, url: str, key: str | None = None, timeout: float = 60, connections: int = 1) -> None:
        self.url = url.rstrip("/")
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise UsageError("The API key can't be sent", expected="letters, digits and marks of ASCII without a space")
        try:
            address = httpx.URL(self.url)
            if address.scheme not in ("http", "https") or not address.host or (address.port or 0) > 65_535:
                raise httpx.InvalidURL("not an address such as http://127.0.0.1:8000")
            self._http = httpx.AsyncClient(
                base_url=self.url,
                # To read whom to trust takes longer than many a request.
                verify=address.scheme == "https" and _trusted(),
                timeout=httpx.Timeout(timeout, connect=min(_CONNECT_SECONDS, timeout)),
                limits=httpx.Limits(max_connections=connections),
                headers={"authorization": f"Bearer {key}"} if key else {},
            )
        except httpx.InvalidURL as error:
            raise self._silent(error) from None

    async def __aenter__(self) -> ServiceClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()

    async def identify(self) -> ServedModel:
        """Ask who answers.

        Raises:
            PassingError: If nobody does, or has no model; perhaps not yet.
            ServiceError: If it is no Pawcast service.
        """
        try:
            response = await self._http.get("/v1/model")
        except httpx.RequestError as error:
            raise self._silent(error, TransientError) from None
        if response.status_code == 503:
            raise TransientError(f"The server at {self.url} has no model", received=_error(response))
        self._refuse_stranger(response)
        try:
            about = response.json()
            low, high = map(str, about["classes"])
            files = json.dumps(about.get("files"), sort_keys=True) if about.get("files") else ""
            weights = hashlib.sha256(files.encode()).hexdigest() if files else ""
            return ServedModel(f"{about['model']}@{about['version']}", [low, high], weights)
        except (ValueError, KeyError, TypeError, AttributeError):
            kind = TransientError if response.status_code in _PASSING else ServiceError
            raise kind(
                f"No Pawcast service answers at {self.url}",
                received=f"HTTP {response.status_code} to GET /v1/model",
                fix="correct --url",
            ) from None

    async def classify(self, server: ServedModel, photos: Sequence[bytes]) -> list[PhotoResult]:
        """Send some photos in one request, or in several if the server finds that too large.

        Raises:
            PassingError: If they might as well be sent again.
            ModelChangedError: If another model answers than `server`.
            ServiceError: If the server refuses them, or answers what makes no sense.
        """
        form, content_type = encode_form(photos)
        response = await self._post(form, content_type)
        if response.status_code == _TOO_LARGE:
            if len(photos) == 1:
                return [PhotoResult(None, "larger than the server takes")]
            middle = len(photos) // 2
            return [
                answer for half in (photos[:middle], photos[middle:]) for answer in await self.classify(server, half)
            ]
        found = self._found(response)
        if found["model"] != server.model:
            raise ModelChangedError(str(found["model"]))
        try:
            if [item["id"] for item in found["predictions"]] != [str(i) for i in range(len(photos))]:
                raise ValueError
            return [_answer(item, server.classes) for item in found["predictions"]]
        except (ValueError, KeyError, TypeError):
            raise ServiceError(f"The server's answer at {self.url} doesn't match what was asked") from None

    async def classify_one(self, photo: bytes) -> dict[str, Any]:
        """Send one photo as the body; return the service's answer to it. Raises as `classify`, and `ImageError`."""
        response = await self._post(photo, "application/octet-stream")
        found = self._found(response)
        prediction: dict[str, Any] = found["predictions"][0]
        if error := prediction.get("error"):
            raise ImageError(error)
        return {"model": found["model"], **prediction}

    async def _post(self, body: bytes, content_type: str) -> httpx.Response:
        try:
            response = await self._http.post("/v1/classify", content=body, headers={"content-type": content_type})
        except httpx.RequestError as error:
            raise TransientError(f"{type(error).__name__} {error}".strip()) from None
        self._refuse_stranger(response)
        if response.status_code in _PASSING:
            failure = TransientError(f"HTTP {response.status_code}: {_error(response)}")
            failure.retry_after = _retry_after(response)
            raise failure
        return response

    def _found(self, response: httpx.Response) -> dict[str, Any]:
        """Return the predictions of an answer, which with 422 are errors throughout."""
        try:
            answer: dict[str, Any] = response.json()
            if response.status_code in (200, 422) and answer["predictions"] and answer["model"]:
                return answer
        except (ValueError, KeyError, TypeError):
            pass
        raise ServiceError(f"The server at {self.url} refused the photos", received=_error(response))

    def _refuse_stranger(self, response: httpx.Response) -> None:
        if response.status_code in (401, 403):
            raise ServiceError(
                f"The server at {self.url} asks for a key, or another one",
                received=_error(response),
                fix="set PAWCAST_API_KEY",
            )

    def _silent(self, error: Exception, kind: type[ServiceError] = ServiceError) -> ServiceError:
        return kind(
            "No server answers", received=f"{self.url} ({error or type(error).__name__})",
            fix="start it with `serve deploy serve/config.yaml`, or correct --url",
        )  # fmt: skip


def classify(photo: bytes, url: str, key: str | None = None) -> dict[str, Any]:
    """Send one photo to a Pawcast service; return its answer, as `/v1/classify` gives it, with the model's name.

    Raises:
        ImageError: If the service can't decode the photo.
        ServiceError: If nothing answers at the address, if it has no model, or stops answering.
    """

    async def send() -> dict[str, Any]:
        async with ServiceClient(url, key) as service:
            # A wrong address says so at once.
            await service.identify()
            async with retrying(_ONE_PHOTO_SECONDS) as retrier:
                return await retrier.call(service.classify_one, photo)

    return asyncio.run(send())


def encode_form(photos: Sequence[bytes]) -> tuple[bytes, str]:
    """Return a multipart form and its type: each photo a file named by its index. httpx takes five times as long.

    Source: https://www.rfc-editor.org/rfc/rfc7578
    """
    boundary = secrets.token_hex(16)
    parts: list[bytes] = []
    for i, photo in enumerate(photos):
        named = f'Content-Disposition: form-data; name="photo"; filename="{i}"'
        parts += (f"--{boundary}\r\n{named}\r\nContent-Type: application/octet-stream\r\n\r\n".encode(), photo, b"\r\n")
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


@lru_cache
def _trusted() -> ssl.SSLContext:
    """Whom to trust in TLS."""
    return httpx.create_ssl_context()


def _answer(item: dict[str, Any], classes: Sequence[str]) -> PhotoResult:
    if "scores" not in item:
        return PhotoResult(None, " ".join(str(item["error"]).split()) or "refused")
    score = float(item["scores"][classes[1]])
    if not (math.isfinite(score) and 0 <= score <= 1):
        raise ValueError(score)
    return PhotoResult(score, None)


def _error(response: httpx.Response) -> str:
    try:
        return " ".join(str(response.json()["error"]).split())
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds from now that `Retry-After` names, by number or date; None without one that makes sense."""
    text = response.headers.get("retry-after", "").strip()
    try:
        seconds = (
            float(text) if text[:1].isdigit() else email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        )
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < math.inf else None
