"""The deployment: `serve deploy serve/config.yaml`, or `serve run pawcast_serve.app:app`.

Ray reads the type of `app`'s argument, so annotations must not become text here.
"""

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application

from pawcast.settings import served_model, store_uri
from pawcast.store import open_store

from .api import create_api
from .service import Service


class Arguments(BaseModel):
    """What `args` in `config.yaml`, or `key=value` after `serve run`, may say."""

    model_config = ConfigDict(extra="forbid")
    store: str | None = None
    model: str | None = None


def app(arguments: Arguments) -> Application:
    """Build the application.

    Args:
        arguments: The store, else `PAWCAST_STORE`; the model, else `PAWCAST_MODEL`, else catdog@production.
    """
    uri, model = store_uri(arguments.store), arguments.model or served_model()

    def build() -> FastAPI:
        return create_api(Service(open_store(uri), model))

    return serve.deployment(serve.ingress(build)(), name="classifier").bind()
