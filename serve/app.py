"""The Ray Serve deployment: `serve deploy serve/config.yaml`, or `serve run pawcast_serve.app:app`.

No `from __future__ import annotations` here: Ray reads the type of `app`'s argument.
"""

from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat
from ray import serve
from ray.serve import Application

from pawcast.core.settings import served_model, store_uri
from pawcast.store import open_store

from .api import create_api
from .classifier import Classifier
from .keys import read_api_keys
from .limits import ServiceLimits
from .model_manager import CHECK_SECONDS

_DEPLOYMENT = "classifier"


class Arguments(BaseModel):
    """`args` in `config.yaml`, or `key=value` after `serve run`.

    Attributes:
        store: The store's URI; `PAWCAST_STORE` if None.
        model: `name@ref`; `PAWCAST_MODEL` if None, else `catdog@production`.
        limits: The limits of one replica.
        check_seconds: Seconds between two look-ups of the model's ref.
        api_key_file: A file of API keys, one a line, in place of `PAWCAST_API_KEY`. Each node has
            it. It is read again every few seconds.
        allow_origins: Origins whose pages may call the API (CORS): `https://pets.example`, or `*`.
    """

    model_config = ConfigDict(extra="forbid")
    store: str | None = None
    model: str | None = None
    limits: ServiceLimits = ServiceLimits()
    check_seconds: PositiveFloat = CHECK_SECONDS
    api_key_file: Path | None = None
    allow_origins: list[Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]] = []


def app(arguments: Arguments) -> Application:
    """Build the application from its arguments.

    Raises:
        PawcastError: If an API key can't be read or is too short; Ray refuses the deployment then.
    """
    read_keys = partial(read_api_keys, arguments.api_key_file)
    read_keys()
    uri, model = store_uri(arguments.store), arguments.model or served_model()

    class Replica:
        """Ready once its model is loaded and warm."""

        async def __init__(self) -> None:  # type: ignore[misc]  # Ray awaits it
            self.classifier = Classifier(open_store(uri), model, arguments.limits, arguments.check_seconds)
            # Started here and not in the ASGI lifespan, because Ray reports errors of a
            # constructor.
            await self.classifier.start(_is_only_replica)

        def __serve_build_asgi_app__(self) -> FastAPI:
            # Keys are read in the replica, since Ray stores what `app` puts into the deployment.
            return create_api(self.classifier, read_keys, arguments.allow_origins)

        def check_health(self) -> None:
            self.classifier.manager.check_health()

    return serve.deployment(serve.ingress()(Replica), name=_DEPLOYMENT).bind()


def _is_only_replica() -> bool:
    """Return whether no replica of this application is running yet."""
    application = serve.status().applications.get(serve.get_replica_context().app_name)
    deployment = application.deployments.get(_DEPLOYMENT) if application else None
    return deployment is None or not deployment.replica_states.get("RUNNING", 0)
