"""The HTTP API: every route is registered here. An error is `{"error": "one line"}`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Depends, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

import pawcast
from pawcast.errors import BusyError, PawcastError, ServiceError, StoreError

from .classifier import Classifier
from .io.body import BodyReader
from .middleware import RequestMiddleware
from .routes import explain, health, oip, v1

_WEB = Path(__file__).with_name("web")
_BUSY_RETRY_SECONDS, _NO_MODEL_RETRY_SECONDS = "1", "5"
_DESCRIPTION = """Classifies photos. `POST /v1/classify` takes one photo as the body, or many as a multipart form.

`/v2` is the [Open Inference Protocol](https://github.com/kserve/open-inference-protocol) with its binary extension, for
`tritonclient` and other clients. The service fetches nothing from other servers: photos come in the request."""


def create_api(classifier: Classifier, key: str | None = None) -> FastAPI:
    """Return the ASGI application. It starts and stops the classifier.

    Args:
        classifier: Classifies the photos.
        key: The API key that requests must bring; None for no key.
    """

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        await classifier.start()
        yield
        await classifier.stop()

    api = FastAPIOffline(
        title="Pawcast",
        version=pawcast.__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    _register_routes(api, classifier)
    _register_error_handlers(api)
    api.add_middleware(RequestMiddleware, metrics=classifier.metrics, key=key)
    return api


def _register_routes(api: FastAPI, classifier: Classifier) -> None:
    body_reader, manager = BodyReader(classifier.limits), classifier.manager
    # For the docs' "Authorize" button only: the middleware checks the key.
    key = HTTPBearer(scheme_name="key", description="The API key, if the service has one.", auto_error=False)
    key_docs = [Depends(key)]
    # Starlette and Ray try routes in order. `/v1/classify` comes first, and FastAPI's docs, which
    # are registered already, come last.
    docs = api.router.routes.copy()
    api.router.routes.clear()
    api.include_router(v1.router(classifier, body_reader), dependencies=key_docs)  # /v1/classify, /v1/model
    api.include_router(explain.router(manager, body_reader), dependencies=key_docs)  # /v1/explain
    api.include_router(oip.router(classifier, body_reader), dependencies=key_docs)  # /v2/…
    api.include_router(health.router(manager))  # /healthz, /readyz
    api.add_route("/", _page)
    api.mount("/static", StaticFiles(directory=_WEB), name="static")  # the page's files
    api.router.routes.extend(docs)  # /docs, /redoc, /openapi.json


def _register_error_handlers(api: FastAPI) -> None:
    @api.exception_handler(PawcastError)
    async def known_error(request: Request, error: PawcastError) -> JSONResponse:
        status, headers = error.http_status, {}
        if isinstance(error, ServiceError | StoreError):
            # For this service's clients, a missing model or store means: not ready.
            status = 429 if isinstance(error, BusyError) else 503
            headers = {"retry-after": _BUSY_RETRY_SECONDS if status == 429 else _NO_MODEL_RETRY_SECONDS}
        return _error_response(status, str(error), headers)

    @api.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        line = error.detail
        if line == "Not Found":
            line = f"There is nothing at {request.url.path}; GET /docs lists the API."
        elif line == "Method Not Allowed":
            line = f"{request.method} isn't allowed for {request.url.path}."
        return _error_response(error.status_code, line, error.headers)


async def _page(request: Request) -> FileResponse:
    return FileResponse(_WEB / "index.html")


def _error_response(status: int, line: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": line}, status, headers=headers)
