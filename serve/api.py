"""The HTTP surface. Every answer is JSON; every failure is `{"error": "one line"}` with a fitting status."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

import pawcast
from pawcast.errors import BusyError, ImageError, PawcastError, ServiceError
from pawcast.images import MAX_BYTES
from pawcast.inference.predictor import Prediction

from .page import add_page
from .service import Service

MAX_BODY = 64 * 2**20
MAX_PHOTOS = 256
_BINARY = ("image/", "application/octet-stream")


class Classified(BaseModel):
    """One photo's answer: either `label`, `probability` and `scores`, or `error`."""

    id: str = Field(description="the file's name as it was sent, or `photo`")
    label: str | None = Field(default=None, examples=["dog"])
    probability: float | None = Field(default=None, description="of the label", examples=[0.973])
    scores: dict[str, float] | None = Field(default=None, examples=[{"cat": 0.027, "dog": 0.973}])
    error: str | None = None


class Answer(BaseModel):
    """Predictions in the order of the photos, and who made them."""

    model: str = Field(examples=["catdog@3"])
    predictions: list[Classified]


class Failure(BaseModel):
    """What went wrong, in one line."""

    error: str


_FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"model": Failure, "description": "No photo, too many photos, or a malformed form"},
    413: {"model": Failure, "description": f"Body over {MAX_BODY >> 20} MiB"},
    415: {"model": Failure, "description": "Neither an image nor a multipart form"},
    422: {
        "model": Failure,
        "description": "No photo could be decoded; the body holds each one's error as well",
    },
    429: {"model": Failure, "description": "Busy; see Retry-After"},
    503: {"model": Failure, "description": "No model; see Retry-After"},
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"photo": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
        },
    }
}


def create_api(service: Service) -> FastAPI:
    """Return the ASGI application for a service."""
    api = FastAPIOffline(
        title="Pawcast",
        version=pawcast.__version__,
        description="Classifies photos. Send one as the body, or many as a multipart form.",
    )

    @api.post(
        "/v1/classify",
        response_model_exclude_none=True,
        response_model=Answer,
        responses=_FAILURES,
        openapi_extra=_BODY,
    )
    async def classify(
        request: Request, content_type: Annotated[str, Header()] = "application/octet-stream"
    ) -> Answer | JSONResponse:
        """Classify one photo (the body) or up to 256 (a multipart form with any field names).

        In a form, a photo that can't be decoded gets an `error` of its own and its neighbours an answer.
        """
        if content_type.startswith("multipart/form-data"):
            photos = await _form(request)
        elif content_type.startswith(_BINARY):
            photos = [("photo", b"".join([chunk async for chunk in _limited(request)]))]
        else:
            raise HTTPException(415, f"Send an image or multipart/form-data, not {content_type}.")
        found = await service.classify([data for _, data in photos])
        version = await service.version()
        answer = Answer(
            model=version.name,
            predictions=[_classified(name, item) for (name, _), item in zip(photos, found, strict=True)],
        )
        if all(isinstance(item, ImageError) for item in found):
            line = f"{photos[0][0]} can't be used: {found[0]}"
            content = {"error": line, **answer.model_dump(exclude_none=True)}
            return JSONResponse(content, 422)
        return answer

    @api.get("/v1/model", responses={503: _FAILURES[503]})
    async def model() -> dict[str, Any]:
        """Return the version that answers: its metrics, classes, preprocessing, dataset and recipe."""
        return (await service.version()).model_dump(exclude={"architecture"})

    @api.get("/healthz")
    async def health() -> dict[str, str]:
        """Return 200 while the process lives, with or without a model."""
        return {"status": "alive"}

    @api.get("/readyz", responses={503: _FAILURES[503]})
    async def ready() -> dict[str, str]:
        """Return 200 once a model is loaded and warm."""
        return {"status": "ready", "model": (await service.version()).name}

    add_page(api, service)
    _handle_errors(api)
    return api


def _handle_errors(api: FastAPI) -> None:
    @api.exception_handler(PawcastError)
    async def known(request: Request, error: PawcastError) -> JSONResponse:
        # To this service's own callers, a missing model is a service that isn't ready.
        status = error.http_status if isinstance(error, BusyError) or not isinstance(error, ServiceError) else 503
        return _failure(status, str(error), retry=status in (429, 503))

    @api.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return _failure(error.status_code, error.detail)

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _failure(400, "; ".join(item["msg"] for item in error.errors()))


def _failure(status: int, line: str, retry: bool = False) -> JSONResponse:
    return JSONResponse({"error": line}, status, headers={"retry-after": "1"} if retry else None)


def _classified(name: str, item: Prediction | ImageError) -> Classified:
    if isinstance(item, ImageError):
        return Classified(id=name, error=item.what)
    return Classified(id=name, **item._asdict())


async def _limited(request: Request) -> AsyncGenerator[bytes, None]:
    """Stream the body, and stop reading where it gets too large: neither uvicorn nor Serve has a limit."""
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > MAX_BODY:
            raise HTTPException(413, f"The body is larger than {MAX_BODY >> 20} MiB; send fewer photos at once.")
        yield chunk


async def _form(request: Request) -> list[tuple[str, bytes | ImageError]]:
    """Read a multipart form's files as (file name, bytes)."""
    parser = MultiPartParser(request.headers, _limited(request), max_files=MAX_PHOTOS, max_fields=MAX_PHOTOS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(400, f"The form can't be read: {error.message}") from None
    photos: list[tuple[str, bytes | ImageError]] = []
    try:
        for _, part in form.multi_items():
            if isinstance(part, str):
                continue
            too_large = (part.size or 0) > MAX_BYTES
            data = ImageError(f"larger than {MAX_BYTES >> 20} MiB") if too_large else await part.read()
            photos.append((part.filename or "photo", data))
    finally:
        await form.close()
    if not photos:
        raise HTTPException(400, "The form holds no photo. Expected: at least one file field.")
    return photos
