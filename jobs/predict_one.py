"""Classify one picture with the saved model, in this process or by a running service."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pawcast.client import service_client
from pawcast.core import console
from pawcast.core.console import Result, StoreOption
from pawcast.core.settings import DEFAULT_MODEL, api_key, store_uri
from pawcast.errors import ImageError, NotFoundError


def main(
    photo: Annotated[Path, typer.Argument(help="Any JPEG, PNG, WebP, BMP, GIF or TIFF.")],
    url: Annotated[str | None, typer.Option(help="A running service; without it the model is loaded here.")] = None,
    model: Annotated[str, typer.Option(help="MODEL@REF to load here.")] = DEFAULT_MODEL,
    store: StoreOption = None,
) -> tuple[Result, str]:
    """Classify one picture with the saved model, in this process or by a running service."""
    try:
        data = photo.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{photo} can't be read", received=error.strerror, expected="a picture") from None
    try:
        answer = service_client.classify(data, url, api_key()) if url else predict_here(data, model, store)
    except ImageError as error:
        raise ImageError(f"{photo} can't be used", received=error.what) from None
    result = {
        "photo": str(photo),
        **{key: answer[key] for key in ("model", "label", "probability", "scores")},
    }
    return result, f"{photo}: {result['label']} {result['probability']:.1%} ({result['model']})"


def predict_here(data: bytes, model: str, store: str | None) -> dict[str, Any]:
    """Load the model in this process and predict one photo."""
    # TensorFlow takes seconds to import; with a server it isn't needed.
    from pawcast.inference.engine import Engine
    from pawcast.inference.predictor import predict_scores, to_prediction
    from pawcast.store import open_store

    engine = Engine.load(open_store(store_uri(store)), model)
    (score,) = predict_scores(engine, [data])
    if isinstance(score, ImageError):
        raise score
    return {"model": engine.version.name, **to_prediction(score, engine.version.classes)._asdict()}


if __name__ == "__main__":
    console.run(main)
