"""For probes: `/healthz` and `/readyz`, and the same in the Open Inference Protocol."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from pawcast.errors import PawcastError

from ..model_manager import ModelManager
from .schemas import ERRORS


def router(manager: ModelManager) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(tags=["health"])

    @routes.get("/healthz")
    async def health() -> dict[str, str]:
        """Return 200 while the process runs, with or without a model."""
        return {"status": "alive"}

    @routes.get("/readyz", responses={503: ERRORS[503]})
    async def ready() -> dict[str, str]:
        """Return 200 once a model is loaded and warm."""
        return {"status": "ready", "model": manager.loaded.version.name}

    @routes.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        """Return 200 while the process runs."""
        return {"live": True}

    @routes.get("/v2/health/ready", responses={503: ERRORS[503]})
    async def model_server_ready() -> JSONResponse:
        """Return 200 once a model is loaded and warm."""
        try:
            _ = manager.loaded
        except PawcastError as error:
            return JSONResponse({"ready": False, "live": True, "error": str(error)}, 503, {"retry-after": "5"})
        return JSONResponse({"ready": True, "live": True})

    return routes
