"""The client of one Pawcast service: the model that it serves, and its predictions."""

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

# Statuses of a server or gateway that starts, stops, is replaced or is busy. Ray Serve's proxy
# answers 404 until the application is deployed.
_TRANSIENT_STATUSES = {404, 408, 425, 429, 500, 502, 503, 504}
_TOO_LARGE = 413
_CONNECT_SECONDS = 5.0
_ONE_PHOTO_SECONDS = 60.0


class ServedModel(NamedTuple):
    """The model that a service serves.

    Attributes:
        model: `name@version`.
        classes: Its two classes.
        weights: A digest of the model's files; empty if the service doesn't tell.
    """

    model: str
    classes: list[str]
    weights: str


class PhotoResult(NamedTuple):
    """The service's answer for one photo.

    Attributes:
        score: The probability of class 1, in [0, 1], or None.
        error: Why there is no score, or None.
    """

    score: float | None
    error: str | None


class ModelChangedError(ServiceError):
    """Another model answers than at first; `what` is its name."""


class ServiceClient:
    """The client of one service. Use it as an asynchronous context manager.

    Args:
        url: Such as `http://127.0.0.1:8000`.
        key: Sent as a bearer token, if given.
        timeout: Seconds without a byte after which a request counts as lost.
        connections: Requests at once, at most.

    Raises:
        ServiceError: If the address is no HTTP address.
        UsageError: If the key can't be sent as a header. The message doesn't show the key.
    """

    def __init__(self, url: str, key: str | None = None, timeout: float = 60, connections: int = 1) -> None:
        self.url = url.rstrip("/")
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise UsageError("The API key can't be sent", expected="printable ASCII characters without a space")
        try:
            address = httpx.URL(self.url)
            if address.scheme not in ("http", "https") or not address.host or (address.port or 0) > 65_535:
                raise httpx.InvalidURL("not an address such as http://127.0.0.1:8000")
            self._http = httpx.AsyncClient(
                base_url=self.url,
                # Reading the certificate authorities takes longer than many a request.
                verify=address.scheme == "https" and _tls_context(),
                timeout=httpx.Timeout(timeout, connect=min(_CONNECT_SECONDS, timeout)),
                limits=httpx.Limits(max_connections=connections),
                headers={"authorization": f"Bearer {key}"} if key else {},
            )
        except httpx.InvalidURL as error:
            raise self._unreachable(error) from None

    async def __aenter__(self) -> ServiceClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()

    async def identify(self) -> ServedModel:
        """Return the model that the service serves.

        Raises:
            TransientError: If nothing answers, or no model is loaded. Both may pass.
            ServiceError: If it is no Pawcast service.
        """
        try:
            response = await self._http.get("/v1/model")
        except httpx.RequestError as error:
            raise self._unreachable(error, TransientError) from None
        if response.status_code == 503:
            raise TransientError(f"The server at {self.url} has no model", received=_error_of(response))
        self._check_key(response)
        try:
            model = response.json()
            class_0, class_1 = map(str, model["classes"])
            files = model.get("files")
            weights = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest() if files else ""
            return ServedModel(f"{model['model']}@{model['version']}", [class_0, class_1], weights)
        except (ValueError, KeyError, TypeError, AttributeError):
            kind = TransientError if response.status_code in _TRANSIENT_STATUSES else ServiceError
            raise kind(
                f"No Pawcast service answers at {self.url}",
                received=f"HTTP {response.status_code} to GET /v1/model",
                fix="correct --url",
            ) from None

    async def classify(self, server: ServedModel, photos: Sequence[bytes]) -> list[PhotoResult]:
        """Send photos in one request, or in several if the server finds one request too large.

        Args:
            server: The model that must answer.
            photos: Encoded photos.

        Raises:
            TransientError: If the same request may succeed later.
            ModelChangedError: If another model answers than `server`.
            ServiceError: If the server refuses the photos, or its answer makes no sense.
        """
        response = await self._post(*encode_form(photos))
        if response.status_code == _TOO_LARGE:
            if len(photos) == 1:
                return [PhotoResult(None, "larger than the server takes")]
            middle = len(photos) // 2
            return [
                result for half in (photos[:middle], photos[middle:]) for result in await self.classify(server, half)
            ]
        answer = self._predictions(response)
        if answer["model"] != server.model:
            raise ModelChangedError(str(answer["model"]))
        try:
            if [item["id"] for item in answer["predictions"]] != [str(i) for i in range(len(photos))]:
                raise ValueError
            return [_result(item, server.classes) for item in answer["predictions"]]
        except (ValueError, KeyError, TypeError):
            raise ServiceError(f"The server's answer at {self.url} doesn't match what was asked") from None

    async def classify_one(self, photo: bytes) -> dict[str, Any]:
        """Send one photo as the body; return its prediction and the model's name.

        Raises:
            ImageError: If the service can't decode the photo.
            TransientError, ServiceError: As `classify`.
        """
        answer = self._predictions(await self._post(photo, "application/octet-stream"))
        prediction: dict[str, Any] = answer["predictions"][0]
        if error := prediction.get("error"):
            raise ImageError(error)
        return {"model": answer["model"], **prediction}

    async def _post(self, body: bytes, content_type: str) -> httpx.Response:
        try:
            response = await self._http.post("/v1/classify", content=body, headers={"content-type": content_type})
        except httpx.RequestError as error:
            raise TransientError(f"{type(error).__name__} {error}".strip()) from None
        self._check_key(response)
        if response.status_code in _TRANSIENT_STATUSES:
            failure = TransientError(f"HTTP {response.status_code}: {_error_of(response)}")
            failure.retry_after = _retry_after(response)
            raise failure
        return response

    def _predictions(self, response: httpx.Response) -> dict[str, Any]:
        """Return the body of an answer with predictions; with 422 each of them is an error."""
        try:
            answer: dict[str, Any] = response.json()
            if response.status_code in (200, 422) and answer["predictions"] and answer["model"]:
                return answer
        except (ValueError, KeyError, TypeError):
            pass
        raise ServiceError(f"The server at {self.url} refused the photos", received=_error_of(response))

    def _check_key(self, response: httpx.Response) -> None:
        if response.status_code in (401, 403):
            raise ServiceError(
                f"The server at {self.url} asks for an API key, or for another one",
                received=_error_of(response),
                fix="set PAWCAST_API_KEY",
            )

    def _unreachable(self, error: Exception, kind: type[ServiceError] = ServiceError) -> ServiceError:
        return kind(
            "No server answers",
            received=f"{self.url} ({error or type(error).__name__})",
            fix="start it with `serve deploy serve/config.yaml`, or correct --url",
        )


def classify(photo: bytes, url: str, key: str | None = None) -> dict[str, Any]:
    """Send one photo to a Pawcast service; return its prediction and the model's name.

    The result has the keys `model`, `label`, `probability` and `scores`, as in `/v1/classify`.

    Raises:
        ImageError: If the service can't decode the photo.
        ServiceError: If nothing answers at the address, if the service has no model, or if it stays
            busy for a minute.
    """

    async def send() -> dict[str, Any]:
        async with ServiceClient(url, key) as service:
            # A wrong address must be reported at once.
            await service.identify()
            async with retrying(_ONE_PHOTO_SECONDS) as retrier:
                return await retrier.call(service.classify_one, photo)

    return asyncio.run(send())


def encode_form(photos: Sequence[bytes]) -> tuple[bytes, str]:
    """Return a multipart form and its content type. Each photo is a file named by its index.

    httpx's own encoder takes five times as long.

    Source: https://www.rfc-editor.org/rfc/rfc7578
    """
    boundary = secrets.token_hex(16)
    parts: list[bytes] = []
    for i, photo in enumerate(photos):
        disposition = f'Content-Disposition: form-data; name="photo"; filename="{i}"'
        header = f"--{boundary}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n"
        parts += (header.encode(), photo, b"\r\n")
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


@lru_cache
def _tls_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _result(item: dict[str, Any], classes: Sequence[str]) -> PhotoResult:
    if "scores" not in item:
        return PhotoResult(None, " ".join(str(item["error"]).split()) or "refused")
    score = float(item["scores"][classes[1]])
    if not (math.isfinite(score) and 0 <= score <= 1):
        raise ValueError(score)
    return PhotoResult(score, None)


def _error_of(response: httpx.Response) -> str:
    try:
        return " ".join(str(response.json()["error"]).split())
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that `Retry-After` asks for, as a number or a date; None if it is invalid.

    Source: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    text = response.headers.get("retry-after", "").strip()
    try:
        seconds = (
            float(text) if text[:1].isdigit() else email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        )
    except (ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < math.inf else None
