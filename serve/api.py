"""The HTTP API: every route is registered here. An error is `{"error": "one line"}`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Depends, FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

import pawcast
from pawcast.errors import BusyError, PawcastError, ServiceError, StoreError

from .classifier import Classifier
from .io.body import BodyReader
from .io.oip_codec import HEADER_LENGTH
from .keys import ApiKeys
from .middleware import RequestMiddleware
from .routes import explain, health, oip, v1

_WEB = Path(__file__).with_name("web")
_BUSY_RETRY_SECONDS, _NO_MODEL_RETRY_SECONDS = "1", "5"
_DESCRIPTION = """Classifies photos. `POST /v1/classify` takes one photo as the body, or many as a multipart form.

`/v2` is the [Open Inference Protocol](https://github.com/kserve/open-inference-protocol) with its binary extension, for
`tritonclient` and other clients. The service fetches nothing from other servers: photos come in the request."""


def create_api(
    classifier: Classifier, read_keys: Callable[[], list[str]] = list, allow_origins: Sequence[str] = ()
) -> FastAPI:
    """Return the ASGI application. It starts and stops the classifier.

    Args:
        classifier: Classifies the photos.
        read_keys: Returns the API keys of which requests must bring one; none for no key. Called
            again every few seconds.
        allow_origins: Origins such as `https://pets.example` whose pages may call the API (CORS).

    Raises:
        PawcastError: That of `read_keys`.
    """
    keys = ApiKeys(read_keys)

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        await classifier.start()
        following = asyncio.create_task(keys.follow())
        yield
        following.cancel()
        await classifier.stop()

    api = FastAPI(
        title="Pawcast",
        version=pawcast.__version__,
        description=_DESCRIPTION,
        # Relative, as are the links of the docs, because a proxy in front may add a prefix.
        servers=[{"url": "."}],
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    _register_routes(api, classifier, needs_key=bool(read_keys()))
    _register_error_handlers(api)
    api.add_middleware(RequestMiddleware, metrics=classifier.metrics, keys=keys)
    if allow_origins:
        api.add_middleware(
            CORSMiddleware,
            allow_origins=allow_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["authorization", "content-encoding", "content-type", "x-api-key", HEADER_LENGTH],
            expose_headers=["pawcast-label", "pawcast-model", "pawcast-probability", "retry-after", HEADER_LENGTH],
        )
    return api


def _register_routes(api: FastAPI, classifier: Classifier, needs_key: bool) -> None:
    body_reader, manager = BodyReader(classifier.limits), classifier.manager
    # For the docs' "Authorize" button only: the middleware checks the key.
    key = HTTPBearer(scheme_name="key", description="The API key", auto_error=False)
    key_docs = [Depends(key)] if needs_key else []
    # Starlette and Ray try routes in order. `/v1/classify` comes first, and `/openapi.json`, which
    # FastAPI has registered already, last.
    openapi = api.router.routes.copy()
    api.router.routes.clear()
    api.include_router(v1.router(classifier, body_reader), dependencies=key_docs)  # /v1/classify, /v1/model
    api.include_router(explain.router(manager, body_reader), dependencies=key_docs)  # /v1/explain
    api.include_router(oip.router(classifier, body_reader), dependencies=key_docs)  # /v2, /v2/models/…
    api.include_router(health.router(manager))  # /healthz, /readyz, /v2/health/…
    api.add_route("/", _page)
    api.mount("/static", StaticFiles(directory=_WEB), name="static")  # the page's files
    api.add_route("/docs", _swagger)
    api.add_route("/redoc", _redoc)
    api.mount("/static-offline-docs", StaticFiles(packages=[("fastapi_offline", "static")]), name="docs")
    api.router.routes.extend(openapi)


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


async def _swagger(request: Request) -> HTMLResponse:
    return get_swagger_ui_html(
        openapi_url="openapi.json",
        title="Pawcast: API",
        swagger_js_url="static-offline-docs/swagger-ui-bundle.js",
        swagger_css_url="static-offline-docs/swagger-ui.css",
        swagger_favicon_url="static/icon.svg",
    )


async def _redoc(request: Request) -> HTMLResponse:
    return get_redoc_html(
        openapi_url="openapi.json",
        title="Pawcast: API",
        redoc_js_url="static-offline-docs/redoc.standalone.js",
        redoc_favicon_url="static/icon.svg",
        with_google_fonts=False,
    )


def _error_response(status: int, line: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": line}, status, headers=headers)
