"""`/v2`: the Open Inference Protocol, for clients that know it and not us; bodies are in `tensors`."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

import pawcast
from pawcast.errors import DataError, ImageError, NotFoundError, PawcastError
from pawcast.inference.predictor import Prediction

from ..io import oip_codec
from ..io.body import BodyReader
from ..model_manager import LoadedModel
from ..service import ClassifyResult, Service
from .v1 import FAILURES

_EXTENSIONS = ["binary_tensor_data"]
_READY = {"ready": True, "live": True}
_ASKED = {
    "id": "1",
    "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["/9j/4AAQSkZJRg… (base64)"]}],
}
_TOLD = {
    "model_name": "catdog",
    "model_version": "3",
    "id": "1",
    "outputs": [
        {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["dog"]},
        {"name": "probability", "datatype": "FP32", "shape": [1], "data": [0.973]},
        {"name": "scores", "datatype": "FP32", "shape": [1, 2], "data": [0.027, 0.973]},
    ],
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object"}, "example": _ASKED},
            "application/octet-stream": _BINARY,
        },
    }
}
_UNKNOWN: dict[str, Any] = {**FAILURES[503], "description": "No model or version of this name"}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": _TOLD}, "application/octet-stream": _BINARY}},
    **FAILURES,
    404: {
        **_UNKNOWN,
        "content": {"application/json": {"example": {"error": "Unknown model. Received: 'dogs'. Expected: catdog."}}},
    },
    422: {**FAILURES[422], "description": "A photo can't be decoded; a tensor has no place for its error"},
}


def router(service: Service, intake: BodyReader) -> APIRouter:
    """Return the routes of a service."""
    routes = APIRouter(prefix="/v2", tags=["v2, Open Inference Protocol"])

    @routes.get("")
    @routes.get("/", include_in_schema=False)
    async def server() -> dict[str, Any]:
        """Name the server and its extensions of the protocol."""
        return {"name": "pawcast", "version": pawcast.__version__, "extensions": _EXTENSIONS}

    @routes.get("/health/live")
    async def live() -> dict[str, bool]:
        """Return 200 while the process lives."""
        return {"live": True}

    @routes.get("/health/ready", responses={503: FAILURES[503]})
    async def ready() -> JSONResponse:
        """Return 200 once a model is loaded and warm."""
        try:
            await service.version()
        except PawcastError as error:
            return JSONResponse({"ready": False, "live": True, "error": str(error)}, 503, {"retry-after": "5"})
        return JSONResponse(_READY)

    @routes.get("/models/{name}", responses=_RESPONSES)
    @routes.get("/models/{name}/versions/{version}", include_in_schema=False)
    async def metadata(name: str, version: str | None = None) -> dict[str, Any]:
        """Name the model's input and outputs. `image` may be UINT8 or FP32 [n, h, w, 3] as well."""
        found = _model(service, name, version).version
        classes = len(found.classes)
        return {
            "name": found.model,
            "versions": [str(found.version)],
            "platform": "keras",
            "inputs": [{"name": oip_codec.INPUT, "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "probability", "datatype": "FP32", "shape": [-1]},
                {"name": "scores", "datatype": "FP32", "shape": [-1, classes], "parameters": {"labels": found.classes}},
            ],
        }

    @routes.get("/models/{name}/ready", responses=_RESPONSES)
    @routes.get("/models/{name}/versions/{version}/ready", include_in_schema=False)
    async def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
        """Return 200 if this is the model, and the version, that answers."""
        return {"name": _model(service, name, version).version.model, "ready": True}

    @routes.post("/models/{name}/infer", responses=_RESPONSES, openapi_extra=_BODY)
    @routes.post("/models/{name}/versions/{version}/infer", include_in_schema=False)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        """Classify encoded photos (BYTES) or pixels (UINT8, FP32), sent as JSON or binary.

        With `Inference-Header-Content-Length: 0` the body is one encoded photo.
        """
        loaded = _model(service, name, version)
        with intake.receive(request) as incoming:
            body = await incoming.whole()
            header = request.headers.get(oip_codec.HEADER)
            limits = service.limits
            asked = await asyncio.to_thread(oip_codec.parse_request, body, header, limits.photos, limits.json_bytes)
            del body
            found = await service.classify(asked.photos, loaded)
        facts = {"model_name": found.version.model, "model_version": str(found.version.version)}
        content, headers = oip_codec.encode_response(facts, _outputs(found), asked)
        return Response(content, headers=headers)

    return routes


def _model(service: Service, name: str, version: str | None) -> LoadedModel:
    """Return what answers, if it is the model and version of this name."""
    if name != service.name:
        raise NotFoundError("Unknown model", received=repr(name[:100]), expected=service.name)
    loaded = service.rollout.loaded
    if version not in (None, "", str(loaded.version.version)):
        raise NotFoundError(
            f"This version of {name} isn't loaded", received=repr(version[:100]), expected=loaded.version.version,
        )  # fmt: skip
    return loaded


def _outputs(found: ClassifyResult) -> list[oip_codec.Output]:
    good: list[Prediction] = []
    for number, item in enumerate(found.predictions, start=1):
        if isinstance(item, ImageError):
            raise DataError(f"Photo {number} of {len(found.predictions)} can't be used", received=item.what)
        good.append(item)
    scores = [[item.scores[name] for name in found.version.classes] for item in good]
    return [
        oip_codec.Output("label", [item.label for item in good]),
        oip_codec.Output("probability", np.array([item.probability for item in good], np.float32)),
        oip_codec.Output("scores", np.array(scores, np.float32)),
    ]
