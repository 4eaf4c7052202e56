"""`POST /v1/classify` and `GET /v1/model`."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from pawcast.errors import ImageError
from pawcast.inference.predictor import Prediction

from ..classifier import Classifier
from ..io.body import BodyReader, FormFile, RequestBody
from .schemas import BINARY, ERRORS, PHOTO, ClassifyResponse, DirectRoute, PhotoPrediction, Timings

IMAGE_TYPES = ("image/", "application/octet-stream")
_FILES = {"type": "array", "items": BINARY["schema"], "minItems": 1, "maxItems": 256}
_FORM = {
    "schema": {"type": "object", "properties": {"photo": _FILES}, "required": ["photo"]},
    "encoding": {"photo": {"contentType": "image/*"}},
}
_CLASSIFY_BODY = {"required": True, "content": {**PHOTO, "multipart/form-data": _FORM}}


def router(classifier: Classifier, body_reader: BodyReader) -> APIRouter:
    """Return the routes."""
    routes, manager = APIRouter(prefix="/v1", tags=["v1"]), classifier.manager

    async def classify(request: Request) -> Response:
        """Classify one photo (the body) or up to 256 (a multipart form with any field names).

        In a form, a photo that can't be decoded gets an `error`; the other photos are classified.
        """
        started = time.monotonic()
        with body_reader.receive(request) as body:
            photos = await _photos(request, body)
            received = time.monotonic()
            result = await classifier.classify([photo.content for photo in photos])
        seconds = {"receive": received - started, **result.seconds, "total": time.monotonic() - started}
        response = ClassifyResponse(
            model=result.version.name,
            predictions=list(map(_photo_prediction, photos, result.predictions)),
            timings=Timings(**{name: round(1000 * value, 2) for name, value in seconds.items()}),
        )
        if all(isinstance(prediction, ImageError) for prediction in result.predictions):
            response.error = f"{photos[0].name} can't be used: {result.predictions[0]}"
        status = 422 if response.error else 200
        return Response(response.model_dump_json(exclude_none=True), status, media_type="application/json")

    routes.add_api_route(
        "/classify",
        classify,
        methods=["POST"],
        responses={200: {"model": ClassifyResponse}, **ERRORS},
        openapi_extra={"requestBody": _CLASSIFY_BODY},
        route_class_override=DirectRoute,
    )

    @routes.get("/model", responses={401: ERRORS[401], 503: ERRORS[503]})
    async def model() -> dict[str, Any]:
        """Return the version that answers: metrics, classes, dataset, recipe, engine and more.

        `pending_error` says why the version that `ref` points at doesn't answer; null if it does.
        """
        loaded, error = manager.loaded, manager.pending_error
        return {
            **loaded.version.model_dump(exclude={"architecture"}),
            "engine": loaded.engine.info,
            "ref": manager.ref,
            "pending_error": str(error) if error else None,
        }

    return routes


async def _photos(request: Request, body: RequestBody) -> list[FormFile]:
    content_type = request.headers.get("content-type", "application/octet-stream")
    if content_type.lower().startswith("multipart/form-data"):
        return await body.files()
    if content_type.lower().startswith(IMAGE_TYPES):
        return [FormFile("photo", await body.read())]
    raise HTTPException(415, f"Send an image or multipart/form-data, not {content_type}.")


def _photo_prediction(photo: FormFile, prediction: Prediction | ImageError) -> PhotoPrediction:
    if isinstance(prediction, ImageError):
        return PhotoPrediction(id=photo.name, error=prediction.what)
    return PhotoPrediction(id=photo.name, **prediction._asdict())
