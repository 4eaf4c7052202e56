"""`/v1`: photos in, one answer for each, and what the model is that answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from pawcast.errors import ImageError
from pawcast.inference.predictor import Prediction

from ..io.body import BodyReader
from ..service import Service

_BINARY = ("image/", "application/octet-stream")


class PhotoPrediction(BaseModel):
    """One photo's answer: either `label`, `probability` and `scores`, or `error`."""

    id: str = Field(description="the file's name as it was sent, or `photo`")
    label: str | None = Field(default=None, examples=["dog"])
    probability: float | None = Field(default=None, description="of the label", examples=[0.973])
    scores: dict[str, float] | None = Field(default=None, examples=[{"cat": 0.027, "dog": 0.973}])
    error: str | None = None


class Timings(BaseModel):
    """Where a request's time went, in milliseconds."""

    receive: float = Field(description="until the body was there")
    decode: float = Field(description="spent decoding by all threads, within `wait` and `inference`")
    wait: float = Field(description="until the network took the first of them")
    inference: float = Field(description="until the last was done")
    total: float


class ClassifyResponse(BaseModel):
    """Predictions in the order of the photos, and the one version that made all of them."""

    model: str = Field(examples=["catdog@3"])
    predictions: list[PhotoPrediction]
    timings: Timings


class ErrorResponse(BaseModel):
    """What went wrong, in one line."""

    error: str


class UnusableResponse(ClassifyResponse, ErrorResponse):
    """An answer without a prediction: why, in one line, and for each photo."""


def _failure(description: str, example: str) -> dict[str, Any]:
    return {
        "model": ErrorResponse,
        "description": description,
        "content": {"application/json": {"example": {"error": example}}},
    }


FAILURES: dict[int | str, dict[str, Any]] = {
    400: _failure("No photo, too many photos, or a malformed body", "The form holds no photo. Expected: at least …"),
    401: _failure("No API key or a wrong one", "This service asks for an API key. …"),
    408: _failure("The body took too long to arrive", "The body didn't arrive within 60 s; send less at once."),
    413: _failure("The body is too large", "The body is larger than 64 MiB; send fewer photos."),
    415: _failure("Neither an image nor a multipart form", "Send an image or multipart/form-data, not text/plain."),
    422: _failure("No photo could be decoded; each one's error is there as well", "a.jpg can't be used: truncated."),
    429: _failure("Busy; see Retry-After", "The server is busy. Received: …"),
    503: _failure("No model; see Retry-After", "The service has no model catdog@production. …"),
}
_PREDICTED = {"label": "dog", "probability": 0.973, "scores": {"cat": 0.027, "dog": 0.973}}
_TIMINGS = {"receive": 1.2, "decode": 3.4, "wait": 3.6, "inference": 6.1, "total": 11.0}
_EXAMPLES = {
    "one photo": {"id": "photo", **_PREDICTED},
    "a form with a bad photo": [{"id": "a.jpg", **_PREDICTED}, {"id": "b.jpg", "error": "truncated"}],
}
_ANSWERED = {
    "content": {
        "application/json": {
            "examples": {
                name: {
                    "value": {
                        "model": "catdog@3",
                        "predictions": shown if isinstance(shown, list) else [shown],
                        "timings": _TIMINGS,
                    }
                }
                for name, shown in _EXAMPLES.items()
            }
        }
    }
}
_FILE = {"type": "string", "format": "binary"}
_FORM = {"type": "object", "properties": {"photo": {"type": "array", "items": _FILE}}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"image/jpeg": {"schema": _FILE}, "multipart/form-data": {"schema": _FORM}},
    }
}


class _Direct(APIRoute):
    """A route whose function takes the request and makes the answer: what FastAPI has for others would only take time.

    https://fastapi.tiangolo.com/how-to/custom-request-and-route/
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


def router(service: Service, intake: BodyReader) -> APIRouter:
    """Return the routes of a service."""
    routes = APIRouter(prefix="/v1", tags=["v1"])

    async def classify(request: Request) -> Response:
        """Classify one photo (the body) or up to 256 (a multipart form with any field names).

        In a form, a photo that can't be decoded gets an `error` of its own and its neighbours an answer.
        """
        started = time.monotonic()
        content_type = request.headers.get("content-type", "application/octet-stream")
        kind = content_type.lower()
        with intake.receive(request) as incoming:
            if kind.startswith("multipart/form-data"):
                photos = await incoming.photos()
            elif kind.startswith(_BINARY):
                photos = [("photo", await incoming.whole())]
            else:
                raise HTTPException(415, f"Send an image or multipart/form-data, not {content_type}.")
            received = time.monotonic()
            found = await service.classify([data for _, data in photos])
        timings = {
            "receive": received - started, "decode": found.decode, "wait": found.wait,
            "inference": found.inference, "total": time.monotonic() - started,
        }  # fmt: skip
        facts: dict[str, Any] = {
            "model": found.version.name,
            "predictions": [_answered(name, item) for (name, _), item in zip(photos, found.predictions, strict=True)],
            "timings": Timings(**{name: round(1000 * seconds, 2) for name, seconds in timings.items()}),
        }
        if all(isinstance(item, ImageError) for item in found.predictions):
            line = f"{photos[0][0]} can't be used: {found.predictions[0]}"
            return _written(UnusableResponse(error=line, **facts), 422)
        return _written(ClassifyResponse(**facts))

    routes.add_api_route(
        "/classify", classify, methods=["POST"], responses={200: {"model": ClassifyResponse, **_ANSWERED}, **FAILURES},
        openapi_extra=_BODY, route_class_override=_Direct,
    )  # fmt: skip

    @routes.get("/model", responses={401: FAILURES[401], 503: FAILURES[503]})
    async def model() -> dict[str, Any]:
        """Return the version that answers: its metrics, classes, preprocessing, dataset and its digest, recipe, engine.

        `pending_error` says why the version that should answer doesn't, and is null if all is well.
        """
        loaded, failure = service.rollout.loaded, service.rollout.failure
        return {
            **loaded.version.model_dump(exclude={"architecture"}),
            "engine": loaded.engine.info,
            "ref": service.rollout.model,
            "pending_error": str(failure) if failure else None,
        }

    return routes


def _written(answer: ClassifyResponse, status: int = 200) -> Response:
    return Response(answer.model_dump_json(exclude_none=True), status, media_type="application/json")


def _answered(name: str, item: Prediction | ImageError) -> PhotoPrediction:
    if isinstance(item, ImageError):
        return PhotoPrediction(id=name, error=item.what)
    return PhotoPrediction(id=name, **item._asdict())
