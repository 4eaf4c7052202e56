"""The JSON of `/v1` and of errors, with the examples that the API docs show."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class PhotoPrediction(BaseModel):
    """One photo's result: either `label`, `probability` and `scores`, or `error`."""

    id: str = Field(description="the file's name as it was sent, or `photo`")
    label: str | None = Field(default=None, examples=["dog"])
    probability: float | None = Field(default=None, description="of the label", examples=[0.973])
    scores: dict[str, float] | None = Field(default=None, examples=[{"cat": 0.027, "dog": 0.973}])
    error: str | None = None


class Timings(BaseModel):
    """Where a request's time went, in milliseconds."""

    receive: float = Field(description="to receive the body")
    decode: float = Field(description="to decode the photos, summed over threads; part of `wait` and `inference`")
    wait: float = Field(description="until the engine began with the first photo")
    inference: float = Field(description="from then until the engine had finished the last photo")
    total: float


class ClassifyResponse(BaseModel):
    """The predictions in the order of the photos, and the one version that made all of them."""

    model: str = Field(examples=["catdog@3"])
    predictions: list[PhotoPrediction]
    timings: Timings


class ErrorResponse(BaseModel):
    """What went wrong, in one line."""

    error: str


class UnusableResponse(ClassifyResponse, ErrorResponse):
    """A response without any prediction: one error for the request, and one for each photo."""


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

_PREDICTION = {"label": "dog", "probability": 0.973, "scores": {"cat": 0.027, "dog": 0.973}}
_TIMINGS = {"receive": 1.2, "decode": 3.4, "wait": 3.6, "inference": 6.1, "total": 11.0}


def _classified(*predictions: dict[str, Any]) -> dict[str, Any]:
    return {"value": {"model": "catdog@3", "predictions": predictions, "timings": _TIMINGS}}


CLASSIFY_EXAMPLES = {
    "one photo": _classified({"id": "photo", **_PREDICTION}),
    "a form with an unusable photo": _classified(
        {"id": "a.jpg", **_PREDICTION}, {"id": "b.jpg", "error": "can't be decoded (truncated)"}
    ),
}
BINARY = {"schema": {"type": "string", "format": "binary"}}
