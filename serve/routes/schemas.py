"""The JSON of `/v1` and of errors, with the examples that the API docs show."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

BINARY = {"schema": {"type": "string", "format": "binary"}}
PHOTO = dict.fromkeys(("image/jpeg", "image/png", "image/webp", "image/gif"), BINARY)
"""The media types of a photo in the docs. Others are accepted too."""


class DirectRoute(APIRoute):
    """A route whose function takes the request and returns the response.

    It skips FastAPI's dependency injection and response validation, which cost time in each
    request. https://fastapi.tiangolo.com/how-to/custom-request-and-route/
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


class PhotoPrediction(BaseModel):
    """One photo's result: either `label`, `probability` and `scores`, or `error`."""

    id: str = Field(description="the file's name as it was sent, or `photo`", examples=["a.jpg"])
    label: str | None = Field(default=None, examples=["dog"])
    probability: float | None = Field(default=None, description="of the label", examples=[0.973])
    scores: dict[str, float] | None = Field(default=None, examples=[{"cat": 0.027, "dog": 0.973}])
    error: str | None = Field(default=None, description="why there is no prediction")


class Timings(BaseModel):
    """Where a request's time went, in milliseconds."""

    receive: float = Field(description="to receive the body")
    decode: float = Field(description="to decode the photos, summed over threads; part of `wait` and `inference`")
    wait: float = Field(description="until the engine began with the first photo")
    inference: float = Field(description="from then until the engine had finished the last photo")
    total: float


class ErrorResponse(BaseModel):
    """What went wrong, in one line."""

    error: str


class ClassifyResponse(BaseModel):
    """The predictions in the order of the photos, and the one version that made all of them."""

    error: str | None = Field(default=None, description="only if there is no prediction at all (422)")
    model: str = Field(examples=["catdog@3"])
    predictions: list[PhotoPrediction]
    timings: Timings


def _error(description: str, example: str) -> dict[str, Any]:
    content = {"application/json": {"example": {"error": example}}}
    return {"model": ErrorResponse, "description": description, "content": content}


ERRORS: dict[int | str, dict[str, Any]] = {
    400: _error("No photo, too many photos, or a malformed body", "The form can't be read: Unexpected end."),
    401: _error("No API key, or a wrong one", "This service asks for an API key. Expected: …"),
    408: _error("The body took too long to arrive", "The body didn't arrive within 60 s; send less at once."),
    413: _error("The body is too large", "The body is larger than 64 MiB; send fewer photos."),
    415: _error("Neither an image nor a multipart form", "Send an image or multipart/form-data, not text/plain."),
    422: _error("No usable photo; `predictions` has the error of each", "a.jpg can't be used: empty file."),
    429: _error("Busy; `Retry-After` says when to try again", "The server is busy. Fix: try again in a second."),
    503: _error("No model; `Retry-After` says when to try again", "The service has no model catdog@production. Fix: …"),
}
UNKNOWN_MODEL = _error("No model or version of this name", "Unknown model. Received: 'dogs'. Expected: catdog.")
