"""The deployment: `serve deploy serve/config.yaml`, or `serve run pawcast_serve.app:app`.

Ray reads the type of `app`'s argument, so annotations must not become text here.
"""

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, PositiveFloat
from ray import serve
from ray.serve import Application

from pawcast.core.settings import api_key, served_model, store_uri
from pawcast.store import open_store

from .api import create_api
from .limits import ServiceLimits
from .model_manager import CHECK_SECONDS
from .service import Service

_NAME = "classifier"


class Arguments(BaseModel):
    """What `args` in `config.yaml`, or `key=value` after `serve run`, may say."""

    model_config = ConfigDict(extra="forbid")
    store: str | None = None
    model: str | None = None
    limits: ServiceLimits = ServiceLimits()
    check_seconds: PositiveFloat = CHECK_SECONDS


def app(arguments: Arguments) -> Application:
    """Build the application.

    Args:
        arguments: The store, else `PAWCAST_STORE`; the model, else `PAWCAST_MODEL`, else catdog@production;
            limits of a replica; seconds between two looks at where the model's ref points.
    """
    uri, model = store_uri(arguments.store), arguments.model or served_model()

    class Classifier:
        """A replica. It is ready when its model is loaded and warm."""

        async def __init__(self) -> None:  # type: ignore[misc]  # Ray awaits it
            self.service = Service(open_store(uri), model, arguments.limits, arguments.check_seconds)
            # Here rather than when the application starts, since Ray shows the reason only for what fails here.
            await self.service.start(_alone)

        def __serve_build_asgi_app__(self) -> FastAPI:
            # The key is read on the replica, from its own environment: what `app` knows, Ray writes down.
            return create_api(self.service, api_key())

        def check_health(self) -> None:
            self.service.check_health()

    return serve.deployment(serve.ingress()(Classifier), name=_NAME).bind()


def _alone() -> bool:
    """Whether no other replica of this application answers."""
    here = serve.get_replica_context().app_name
    found = serve.status().applications.get(here)
    deployment = found.deployments.get(_NAME) if found else None
    return deployment is None or not deployment.replica_states.get("RUNNING", 0)
