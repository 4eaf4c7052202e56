"""The client of one Pawcast service: the model that it serves, and its predictions."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import math
import secrets
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import httpx

from pawcast.client.retry import TransientError, retrying
from pawcast.errors import ConflictError, ImageError, ServiceError, UsageError
from pawcast.inference.predictor import to_prediction

# Statuses of a server or gateway that starts, stops, is replaced or is busy. Ray Serve's proxy
# answers 404 until the application is deployed.
_TRANSIENT_STATUSES = {404, 408, 425, 429, 500, 502, 503, 504}
_TOO_LARGE = 413
_CONNECT_SECONDS = 5.0
START_SECONDS = 30.0
"""How long a client waits for a server that answers, but isn't ready, before its first photo."""


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
            self._proxy = _proxy(address)
            if address.scheme not in ("http", "https") or not address.host or (address.port or 0) > 65_535:
                raise httpx.InvalidURL("not an address such as http://127.0.0.1:8000")
            self._http = httpx.AsyncClient(
                base_url=self.url,
                # Without TLS, no certificate authorities need be read.
                verify=address.scheme == "https",
                timeout=httpx.Timeout(timeout, connect=min(_CONNECT_SECONDS, timeout)),
                limits=httpx.Limits(max_connections=connections),
                headers={"authorization": f"Bearer {key}"} if key else {},
                trust_env=bool(self._proxy),
            )
        except httpx.InvalidURL as error:
            raise self._unreachable(error) from None

    async def __aenter__(self) -> ServiceClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()

    async def wait_until_ready(
        self,
        patience: float,
        on_failure: Callable[[TransientError], None] = lambda failure: None,
        may_be_down: bool = False,
    ) -> ServedModel:
        """Return the model that the service serves.

        Args:
            patience: Seconds to wait for a server that isn't ready.
            on_failure: Called with each failure that is retried.
            may_be_down: Whether to wait for a server that can't be reached as well.

        Raises:
            ServiceError: If nothing answers, if the service has no model, or if it is no Pawcast
                service.
        """
        try:
            async with retrying(patience, on_failure) as retrier:
                return await retrier.call(self._identify, may_be_down)
        except TransientError as failure:
            raise ServiceError(
                f"The server at {self.url} isn't ready",
                received=failure.what,
                expected=f"a model within {patience:g} s",
                fix="see its /readyz, have a model trained and promoted, or correct --url",
            ) from None

    async def _identify(self, may_be_down: bool) -> ServedModel:
        try:
            response = await self._send("GET", "/v1/model")
        except TransientError as failure:
            if isinstance(failure.__cause__, httpx.ConnectError) and not may_be_down:
                raise self._unreachable(failure.__cause__) from None
            raise
        try:
            model = response.json()
            class_0, class_1 = map(str, model["classes"])
            files = model.get("files")
            weights = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest() if files else ""
            return ServedModel(f"{model['model']}@{model['version']}", [class_0, class_1], weights)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ServiceError(
                f"No Pawcast service answers at {self.url}",
                received=f"HTTP {response.status_code} to GET /v1/model{self._proxy}",
                fix="correct --url",
            ) from None

    async def classify(self, server: ServedModel, photos: Sequence[bytes]) -> list[float | ImageError]:
        """Send photos in one request, or in several if the server finds one request too large.

        Args:
            server: The model that must answer.
            photos: Encoded photos.

        Returns:
            For each photo the probability of class 1, in [0, 1], or why there is none.

        Raises:
            TransientError: If the same request may succeed later.
            ConflictError: If another model answers than `server`.
            ServiceError: If the server refuses the photos, or its answer makes no sense.
        """
        body, content_type = encode_form(photos)
        response = await self._send("POST", "/v1/classify", content=body, headers={"content-type": content_type})
        if response.status_code == _TOO_LARGE:
            if len(photos) == 1:
                return [ImageError("larger than the server takes")]
            middle = len(photos) // 2
            return await self.classify(server, photos[:middle]) + await self.classify(server, photos[middle:])
        try:
            answer = response.json()
            model, items = str(answer["model"]), answer["predictions"]
            if model == server.model:
                if [item["id"] for item in items] != [str(i) for i in range(len(photos))]:
                    raise ValueError
                return [_result(item, server.classes) for item in items]
        except (ValueError, KeyError, TypeError):
            raise ServiceError(
                f"The server at {self.url} doesn't answer with predictions",
                received=f"HTTP {response.status_code}: {_error_of(response)}{self._proxy}",
            ) from None
        raise ConflictError(
            "The model changed during the run",
            received=model,
            expected=server.model,
            fix=f"add --fresh to have {model} predict all photos, or go on once {server.model} is back",
        )

    async def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            response = await self._http.request(method, path, **options)
        except httpx.RequestError as error:
            raise TransientError(f"{type(error).__name__} {error}".strip() + self._proxy) from error
        if response.status_code in (401, 403):
            raise ServiceError(
                f"The server at {self.url} asks for an API key, or for another one",
                received=f"{_error_of(response)}{self._proxy}",
                fix="set PAWCAST_API_KEY",
            )
        if response.status_code in _TRANSIENT_STATUSES:
            failure = TransientError(f"HTTP {response.status_code}: {_error_of(response)}{self._proxy}")
            failure.retry_after = _retry_after(response)
            raise failure
        return response

    def _unreachable(self, error: Exception) -> ServiceError:
        return ServiceError(
            "No server answers",
            received=f"{self.url} ({error or type(error).__name__}){self._proxy}",
            fix="start it with `serve deploy serve/config.yaml`, or correct --url",
        )


def classify(photo: bytes, url: str, key: str | None = None) -> dict[str, Any]:
    """Send one photo to a Pawcast service; return its prediction and the model's name.

    The result has the keys `model`, `label`, `probability` and `scores`, as in `/v1/classify`.

    Raises:
        ImageError: If the service can't decode the photo.
        ServiceError: If nothing answers at the address, or if the service has no model or stays
            busy for half a minute.
    """

    async def send() -> dict[str, Any]:
        async with ServiceClient(url, key) as service:
            server = await service.wait_until_ready(START_SECONDS)
            async with retrying(START_SECONDS) as retrier:
                (score,) = await retrier.call(service.classify, server, [photo])
        if isinstance(score, ImageError):
            raise score
        return {"model": server.model, **to_prediction(score, server.classes)._asdict()}

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


def _proxy(address: httpx.URL) -> str:
    """Return what a message says of the proxy that the environment names for an address, or ""."""
    try:
        is_loopback = ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        is_loopback = address.host == "localhost"
    proxies = urllib.request.getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if not proxy or is_loopback or urllib.request.proxy_bypass(address.host):
        return ""
    without_password = proxy.rpartition("@")[2]
    return f", through the proxy {without_password}; set NO_PROXY={address.host} to go around it"


def _result(item: dict[str, Any], classes: Sequence[str]) -> float | ImageError:
    if "scores" not in item:
        return ImageError(" ".join(str(item["error"]).split()) or "refused")
    score = float(item["scores"][classes[1]])
    if not (math.isfinite(score) and 0 <= score <= 1):
        raise ValueError(score)
    return score


def _error_of(response: httpx.Response) -> str:
    try:
        return " ".join(str(response.json()["error"]).split())
    except (ValueError, KeyError, TypeError):
        return "no error in JSON"


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds that `Retry-After` asks for; 0 for a date or anything else."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else 0.0
