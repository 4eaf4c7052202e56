"""`GET /healthz` and `GET /readyz`, for probes."""

from __future__ import annotations

from fastapi import APIRouter

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

    return routes
