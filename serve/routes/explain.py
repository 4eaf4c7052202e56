"""`POST /v1/explain`: which region of a photo decided, as a picture to lay over it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Header, Request, Response
from starlette.exceptions import HTTPException

from pawcast.errors import BusyError
from pawcast.inference.engine import Engine
from pawcast.inference.explain import Explainer, heatmap_png
from pawcast.inference.predictor import Prediction

from ..io.body import BodyReader
from ..service import Service

MAX_WAITING = 16


class ExplainQueue:
    """Explains one photo at a time, in a thread of its own: classification never waits for a place in line.

    Args:
        service: Whose model to explain.
        max_waiting: Most photos at once, the one being explained among them; beyond that callers are turned away.
    """

    def __init__(self, service: Service, max_waiting: int = MAX_WAITING) -> None:
        self._service, self._max_waiting = service, max_waiting
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explain")
        self._waiting = 0
        self._saliency: tuple[Engine, Explainer] | None = None

    async def explain(self, data: bytes) -> tuple[str, Prediction, bytes]:
        """Return the model's `name@version`, its prediction, and a PNG of the photo's aspect to lay over it.

        Raises:
            ImageError: If the photo can't be read.
            BusyError: If too many wait already.
            ServiceError: If there is no model.
        """
        engine = await self._service.engine()
        if self._waiting >= self._max_waiting:
            raise BusyError(
                "The server is busy explaining",
                received=f"{self._waiting} photos waiting",
                expected=f"at most {self._max_waiting}",
                fix="try again in a second",
            )
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, engine, data)
        finally:
            self._waiting -= 1

    def _work(self, engine: Engine, data: bytes) -> tuple[str, Prediction, bytes]:
        if self._saliency is None or self._saliency[0] is not engine:
            self._saliency = (engine, Explainer(engine))
        prediction, heat = self._saliency[1].explain(data)
        return engine.version.name, prediction, heatmap_png(heat)


def explain_router(service: Service, intake: BodyReader) -> APIRouter:
    """Return the route. Failures are the application's, as for `/v1/classify`."""
    router, explainer = APIRouter(), ExplainQueue(service)
    picture = {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
    body = {"required": True, "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}

    @router.post(
        "/v1/explain",
        response_class=Response,
        responses={200: {**picture, "description": "RGBA, to be laid over the photo; the label in `pawcast-label`"}},
        openapi_extra={"requestBody": body},
    )
    async def explain(
        request: Request, content_type: Annotated[str, Header()] = "application/octet-stream"
    ) -> Response:
        """Show which region of one photo (the body) decided: a PNG of its aspect, clear where nothing did.

        The headers say what it explains: `pawcast-label` (percent-encoded UTF-8), `pawcast-probability` and
        `pawcast-model`.
        """
        if not content_type.startswith(("image/", "application/octet-stream")):
            raise HTTPException(415, f"Send an image, not {content_type}.")
        with intake.receive(request) as incoming:
            model, prediction, png = await explainer.explain(await incoming.whole())
        headers = {
            "pawcast-model": model,
            "pawcast-label": quote(prediction.label),
            "pawcast-probability": f"{prediction.probability:.6f}",
            "cache-control": "no-store",
        }
        return Response(png, media_type="image/png", headers=headers)

    return router
