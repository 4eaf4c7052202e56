"""`/v2`: the Open Inference Protocol. `serve/io/oip_codec.py` reads and writes its bodies."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

import pawcast
from pawcast.errors import DataError, ImageError, NotFoundError

from ..classifier import Classifier, ClassifyResult
from ..io import oip_codec
from ..io.body import BodyReader
from ..model_manager import LoadedModel, ModelManager
from .schemas import BINARY, ERRORS, UNKNOWN_MODEL, DirectRoute

# A PNG of one pixel.
_PHOTO = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
_INPUT_EXAMPLE = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [_PHOTO]}
_OUTPUT_EXAMPLES = [
    {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["dog"]},
    {"name": "probability", "datatype": "FP32", "shape": [1], "data": [0.973]},
    {"name": "scores", "datatype": "FP32", "shape": [1, 2], "data": [0.027, 0.973]},
]
_INFER_CONTENT = {
    "application/json": {"schema": {"type": "object"}, "example": {"id": "1", "inputs": [_INPUT_EXAMPLE]}},
    "application/octet-stream": BINARY,
}
_INFER_BODY = {"requestBody": {"required": True, "content": _INFER_CONTENT}}
_NAME = {"parameters": [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]}
_INFER_EXAMPLE = {"model_name": "catdog", "model_version": "3", "id": "1", "outputs": _OUTPUT_EXAMPLES}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": _INFER_EXAMPLE}, "application/octet-stream": BINARY}},
    **ERRORS,
    404: UNKNOWN_MODEL,
    422: {**ERRORS[422], "description": "A photo can't be decoded: a tensor can't hold its error"},
}
_METADATA_RESPONSES: dict[int | str, dict[str, Any]] = {401: ERRORS[401], 404: UNKNOWN_MODEL, 503: ERRORS[503]}


def router(classifier: Classifier, body_reader: BodyReader) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v2", tags=["v2, Open Inference Protocol"], route_class=DirectRoute)
    manager = classifier.manager

    @routes.get("", responses={401: ERRORS[401]})
    @routes.get("/", include_in_schema=False)
    async def server(request: Request) -> Response:
        """Return the server's name and the protocol extensions that it has."""
        return JSONResponse({"name": "pawcast", "version": pawcast.__version__, "extensions": ["binary_tensor_data"]})

    @routes.get("/models/{name}", responses=_METADATA_RESPONSES, openapi_extra=_NAME)
    @routes.get("/models/{name}/versions/{version}", include_in_schema=False)
    async def metadata(request: Request) -> Response:
        """Return the model's input and outputs.

        `image` may also be UINT8 or FP32 pixels of shape [n, h, w, 3].
        """
        served = _find_model(manager, request).version
        scores_shape, labels = [-1, len(served.classes)], {"labels": served.classes}
        content = {
            "name": served.model,
            "versions": [str(served.version)],
            "platform": "keras",
            "inputs": [{"name": oip_codec.INPUT_NAME, "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "probability", "datatype": "FP32", "shape": [-1]},
                {"name": "scores", "datatype": "FP32", "shape": scores_shape, "parameters": labels},
            ],
        }
        return JSONResponse(content)

    @routes.get("/models/{name}/ready", responses=_METADATA_RESPONSES, openapi_extra=_NAME)
    @routes.get("/models/{name}/versions/{version}/ready", include_in_schema=False)
    async def model_ready(request: Request) -> Response:
        """Return 200 if this model, and this version if one is given, is loaded."""
        return JSONResponse({"name": _find_model(manager, request).version.model, "ready": True})

    @routes.post("/models/{name}/infer", responses=_RESPONSES, openapi_extra={**_NAME, **_INFER_BODY})
    @routes.post("/models/{name}/versions/{version}/infer", include_in_schema=False)
    async def infer(request: Request) -> Response:
        """Classify encoded photos (BYTES) or pixels (UINT8, FP32), sent as JSON or as binary data.

        With `Inference-Header-Content-Length: 0`, the body is one encoded photo.
        """
        model, limits = _find_model(manager, request), classifier.limits
        header_length = request.headers.get(oip_codec.HEADER_LENGTH)
        with body_reader.receive(request) as body:
            content = await body.read()
            arguments = content, header_length, limits.photos, limits.json_bytes
            inference_request = await asyncio.to_thread(oip_codec.parse_request, *arguments)
            result = await classifier.classify(inference_request.photos, model)
        served = {"model_name": result.version.model, "model_version": str(result.version.version)}
        content, headers = oip_codec.encode_response(served, _output_tensors(result), inference_request)
        return Response(content, headers=headers)

    return routes


def _find_model(manager: ModelManager, request: Request) -> LoadedModel:
    """Return the loaded model if it has the path's name and version; else raise `NotFoundError`."""
    name, version = request.path_params["name"], request.path_params.get("version", "")
    if name != manager.name:
        raise NotFoundError("Unknown model", received=repr(name[:100]), expected=manager.name)
    loaded = manager.loaded
    number = loaded.version.version
    if version not in ("", str(number)):
        raise NotFoundError(f"This version of {name} isn't loaded", received=repr(version[:100]), expected=number)
    return loaded


def _output_tensors(result: ClassifyResult) -> oip_codec.OutputTensors:
    labels, probabilities, scores = [], [], []
    for number, prediction in enumerate(result.predictions, start=1):
        if isinstance(prediction, ImageError):
            raise DataError(f"Photo {number} of {len(result.predictions)} can't be used", received=prediction.what)
        labels.append(prediction.label)
        probabilities.append(prediction.probability)
        scores.append([prediction.scores[label] for label in result.version.classes])
    return {
        "label": labels,
        "probability": np.array(probabilities, np.float32),
        "scores": np.array(scores, np.float32),
    }
