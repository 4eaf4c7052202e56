"""`POST /v1/explain`: a heat map of the regions that decided, to lay over the photo."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from pawcast.inference.engine import Engine
from pawcast.inference.explain import Explainer, heatmap_png
from pawcast.inference.predictor import Prediction

from ..io.body import BodyReader
from ..limits import busy
from ..model_manager import ModelManager
from .schemas import BINARY, ERRORS, PHOTO, DirectRoute
from .v1 import IMAGE_TYPES

MAX_WAITING = 16


class ExplainQueue:
    """Explains one photo at a time in a thread of its own, so that classification never waits.

    Args:
        manager: The owner of the model.
        max_waiting: Most photos at once, including the one being explained.
    """

    def __init__(self, manager: ModelManager, max_waiting: int = MAX_WAITING) -> None:
        self._manager, self._max_waiting = manager, max_waiting
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._waiting = 0
        self._explainer: tuple[Engine, Explainer] | None = None

    async def explain(self, photo: bytes) -> tuple[str, Prediction, bytes]:
        """Return the model's `name@version`, its prediction, and the heat map as PNG.

        Raises:
            ImageError: If the photo can't be read.
            BusyError: If too many photos are waiting.
            ServiceError: If no model is loaded.
        """
        engine = self._manager.loaded.engine
        if self._waiting >= self._max_waiting:
            raise busy(f"{self._waiting} photos waiting for a heat map", f"at most {self._max_waiting}")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._explain, engine, photo)
        finally:
            self._waiting -= 1

    def _explain(self, engine: Engine, photo: bytes) -> tuple[str, Prediction, bytes]:
        if self._explainer is None or self._explainer[0] is not engine:
            self._explainer = (engine, Explainer(engine))
        prediction, heat = self._explainer[1].explain(photo)
        return engine.version.name, prediction, heatmap_png(heat)


def router(manager: ModelManager, body_reader: BodyReader) -> APIRouter:
    """Return the route."""
    routes, queue = APIRouter(prefix="/v1", tags=["v1"], route_class=DirectRoute), ExplainQueue(manager)

    @routes.post(
        "/explain",
        response_class=Response,
        responses={200: {"content": {"image/png": BINARY}, "description": "RGBA, to lay over the photo"}, **ERRORS},
        openapi_extra={"requestBody": {"required": True, "content": PHOTO}},
    )
    async def explain(request: Request) -> Response:
        """Show which regions of one photo (the body) decided: a PNG, transparent where none did.

        The PNG has the photo's aspect ratio. The headers `pawcast-label` (percent-encoded UTF-8),
        `pawcast-probability` and `pawcast-model` hold the prediction that it explains.
        """
        content_type = request.headers.get("content-type", "application/octet-stream")
        if not content_type.lower().startswith(IMAGE_TYPES):
            raise HTTPException(415, f"Send an image, not {content_type}.")
        with body_reader.receive(request) as body:
            model, prediction, png = await queue.explain(await body.read())
        headers = {
            "pawcast-model": model,
            "pawcast-label": quote(prediction.label),
            "pawcast-probability": f"{prediction.probability:.6f}",
        }
        return Response(png, media_type="image/png", headers=headers)

    return routes
