"""The HTTP surface: `v1`, `v2`, health and docs. Every failure is `{"error": "one line"}` with a fitting status."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

import pawcast
from pawcast.errors import BusyError, PawcastError, ServiceError, StoreError

from .io.body import BodyReader
from .middleware import RequestMiddleware
from .routes import oip, v1
from .routes.page import add_page
from .service import Service

_BUSY_SECONDS, _NO_MODEL_SECONDS = "1", "5"
_DESCRIPTION = """Classifies photos. `POST /v1/classify` takes one photo as the body, or many as a multipart form.

`/v2` is the [Open Inference Protocol](https://github.com/kserve/open-inference-protocol) with its binary extension, for
`tritonclient` and others. Nothing that a request names is ever fetched: photos come in the request."""


def create_api(service: Service, key: str | None = None) -> FastAPI:
    """Return the ASGI application for a service. The service starts, if it hasn't, and stops with it.

    Args:
        service: What answers.
        key: The API key that requests must bring; none if None.
    """

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    api = FastAPIOffline(
        title="Pawcast", version=pawcast.__version__, description=_DESCRIPTION, lifespan=lifespan,
        redirect_slashes=False,
    )  # fmt: skip
    intake = BodyReader(service.limits)
    api.include_router(v1.router(service, intake))
    # Starlette and Ray both try routes in their order; photos shall come before the docs.
    api.router.routes.insert(0, api.router.routes.pop())
    api.include_router(oip.router(service, intake))

    @api.get("/healthz", tags=["health"])
    async def health() -> dict[str, str]:
        """Return 200 while the process lives, with or without a model."""
        return {"status": "alive"}

    @api.get("/readyz", tags=["health"], responses={503: v1.FAILURES[503]})
    async def ready() -> dict[str, str]:
        """Return 200 once a model is loaded and warm."""
        return {"status": "ready", "model": (await service.version()).name}

    add_page(api, service, intake)
    _document_key(api)
    _handle_errors(api)
    api.add_middleware(RequestMiddleware, metrics=service.metrics, key=key)
    return api


def _document_key(api: FastAPI) -> None:
    """Give the docs their "Authorize". FastAPI's own way is a dependency, and would cost every request its time."""
    made = api.openapi
    bearer = {"type": "http", "scheme": "bearer", "description": "The API key, if the service asks for one."}

    def openapi() -> dict[str, Any]:
        schema = made()
        schema["components"]["securitySchemes"] = {"key": bearer}
        for path, operations in schema["paths"].items():
            if path.startswith(("/v1", "/v2")):
                for operation in operations.values():
                    operation["security"] = [{"key": []}]
        return schema

    api.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _handle_errors(api: FastAPI) -> None:
    @api.exception_handler(PawcastError)
    async def known(request: Request, error: PawcastError) -> JSONResponse:
        if isinstance(error, BusyError):
            return _failure(429, str(error), {"retry-after": _BUSY_SECONDS})
        if isinstance(error, ServiceError | StoreError):
            # To this service's own callers, a missing model is a service that isn't ready.
            return _failure(503, str(error), {"retry-after": _NO_MODEL_SECONDS})
        return _failure(error.http_status, str(error))

    @api.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        line = error.detail
        if error.status_code == 404 and line == "Not Found":
            line = f"There is nothing at {request.url.path}; GET /docs shows what there is."
        elif error.status_code == 405:
            line = f"{request.method} isn't for {request.url.path}."
        return _failure(error.status_code, line, error.headers)

    @api.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return _failure(400, "; ".join(item["msg"] for item in error.errors()))


def _failure(status: int, line: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"error": line}, status, headers=headers)
