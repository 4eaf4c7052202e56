"""`GET /` and `/static/…`: the web page. Its files are plain HTML, CSS and JavaScript in `web/`."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse

WEB = Path(__file__).parents[1] / "web"


def router() -> APIRouter:
    """Return the route of the page. `api.py` mounts its other files."""
    routes = APIRouter()

    @routes.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(WEB / "index.html")

    return routes
