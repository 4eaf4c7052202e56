"""The page for people at `/`: plain HTML, CSS and JavaScript from the package, nothing from elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from ..io.body import BodyReader
from ..service import Service
from .explain import explain_router

WEB = Path(__file__).parents[1] / "web"
# Asked each time, answered with 304: a new version of the service is never shown with an old script. What else the
# page needs for its safety every answer has (`gate`).
_CACHING = {"cache-control": "no-cache"}


class _Files(StaticFiles):
    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_CACHING)
        return response


def add_page(api: FastAPI, service: Service, intake: BodyReader) -> None:
    """Add the page, its files below `/static`, and what it asks for beside `/v1/classify` and `/v1/model`."""
    api.include_router(explain_router(service, intake))
    api.mount("/static", _Files(directory=WEB), name="static")

    @api.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(WEB / "index.html", headers=_CACHING)
