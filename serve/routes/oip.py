"""`/v2`: the Open Inference Protocol. `serve/io/oip_codec.py` reads and writes its bodies."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

import pawcast
from pawcast.errors import DataError, ImageError, NotFoundError, PawcastError
from pawcast.inference.predictor import Prediction

from ..classifier import Classifier, ClassifyResult
from ..io import oip_codec
from ..io.body import BodyReader
from ..model_manager import LoadedModel, ModelManager
from .schemas import BINARY, ERRORS, UNKNOWN_MODEL

_REQUEST_EXAMPLE = {
    "id": "1",
    "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["/9j/4AAQSkZJRg… (base64)"]}],
}
_RESPONSE_EXAMPLE = {
    "model_name": "catdog",
    "model_version": "3",
    "id": "1",
    "outputs": [
        {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["dog"]},
        {"name": "probability", "datatype": "FP32", "shape": [1], "data": [0.973]},
        {"name": "scores", "datatype": "FP32", "shape": [1, 2], "data": [0.027, 0.973]},
    ],
}
_INFER_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": {"type": "object"}, "example": _REQUEST_EXAMPLE},
        "application/octet-stream": BINARY,
    },
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": _RESPONSE_EXAMPLE}, "application/octet-stream": BINARY}},
    **ERRORS,
    404: UNKNOWN_MODEL,
    422: {**ERRORS[422], "description": "A photo can't be decoded: a tensor can't hold its error"},
}


def router(classifier: Classifier, body_reader: BodyReader) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v2", tags=["v2, Open Inference Protocol"])
    manager = classifier.manager

    @routes.get("")
    @routes.get("/", include_in_schema=False)
    async def server() -> dict[str, Any]:
        """Return the server's name and the protocol extensions that it has."""
        return {"name": "pawcast", "version": pawcast.__version__, "extensions": ["binary_tensor_data"]}

    @routes.get("/health/live")
    async def live() -> dict[str, bool]:
        """Return 200 while the process runs."""
        return {"live": True}

    @routes.get("/health/ready", responses={503: ERRORS[503]})
    async def ready() -> JSONResponse:
        """Return 200 once a model is loaded and warm."""
        try:
            _ = manager.loaded
        except PawcastError as error:
            return JSONResponse({"ready": False, "live": True, "error": str(error)}, 503, {"retry-after": "5"})
        return JSONResponse({"ready": True, "live": True})

    @routes.get("/models/{name}", responses=_RESPONSES)
    @routes.get("/models/{name}/versions/{version}", include_in_schema=False)
    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        """Return the model's input and outputs.

        `image` may also be UINT8 or FP32 pixels of shape [n, h, w, 3].
        """
        served = _find_model(manager, name, version).version
        scores_shape = [-1, len(served.classes)]
        return {
            "name": served.model,
            "versions": [str(served.version)],
            "platform": "keras",
            "inputs": [{"name": oip_codec.INPUT_NAME, "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "probability", "datatype": "FP32", "shape": [-1]},
                {"name": "scores", "datatype": "FP32", "shape": scores_shape, "parameters": {"labels": served.classes}},
            ],
        }

    @routes.get("/models/{name}/ready", responses=_RESPONSES)
    @routes.get("/models/{name}/versions/{version}/ready", include_in_schema=False)
    async def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
        """Return 200 if this model, and this version if one is given, is loaded."""
        return {"name": _find_model(manager, name, version).version.model, "ready": True}

    @routes.post("/models/{name}/infer", responses=_RESPONSES, openapi_extra={"requestBody": _INFER_BODY})
    @routes.post("/models/{name}/versions/{version}/infer", include_in_schema=False)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        """Classify encoded photos (BYTES) or pixels (UINT8, FP32), sent as JSON or as binary data.

        With `Inference-Header-Content-Length: 0`, the body is one encoded photo.
        """
        model = _find_model(manager, name, version)
        with body_reader.receive(request) as body:
            inference_request = await asyncio.to_thread(
                oip_codec.parse_request,
                await body.read(),
                request.headers.get(oip_codec.HEADER_LENGTH),
                classifier.limits.photos,
                classifier.limits.json_bytes,
            )
            result = await classifier.classify(inference_request.photos, model)
        served = {"model_name": result.version.model, "model_version": str(result.version.version)}
        content, headers = oip_codec.encode_response(served, _output_tensors(result), inference_request)
        return Response(content, headers=headers)

    return routes


def _find_model(manager: ModelManager, name: str, version: str | None) -> LoadedModel:
    """Return the loaded model if it has this name and version; else raise `NotFoundError`."""
    if name != manager.name:
        raise NotFoundError("Unknown model", received=repr(name[:100]), expected=manager.name)
    loaded = manager.loaded
    if version not in (None, "", str(loaded.version.version)):
        raise NotFoundError(
            f"This version of {name} isn't loaded", received=repr(version[:100]), expected=loaded.version.version
        )
    return loaded


def _output_tensors(result: ClassifyResult) -> list[oip_codec.OutputTensor]:
    predictions: list[Prediction] = []
    for number, prediction in enumerate(result.predictions, start=1):
        if isinstance(prediction, ImageError):
            raise DataError(f"Photo {number} of {len(result.predictions)} can't be used", received=prediction.what)
        predictions.append(prediction)
    scores = [[prediction.scores[label] for label in result.version.classes] for prediction in predictions]
    return [
        oip_codec.OutputTensor("label", [prediction.label for prediction in predictions]),
        oip_codec.OutputTensor("probability", np.array([item.probability for item in predictions], np.float32)),
        oip_codec.OutputTensor("scores", np.array(scores, np.float32)),
    ]
