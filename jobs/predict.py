"""Classify one photo, with or without a running service."""

from pathlib import Path
from typing import Annotated

import typer

from pawcast.core import command
from pawcast.core.command import ModelOption, Result, StoreOption
from pawcast.core.settings import DEFAULT_MODEL, api_key
from pawcast.errors import ImageError, NotFoundError


def main(
    photo: Annotated[Path, typer.Argument(help="A JPEG, PNG, WebP, BMP, GIF or TIFF.")],
    model: ModelOption = DEFAULT_MODEL,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Ask this service, not a model loaded here.")] = None,
    store_uri: StoreOption = None,
) -> tuple[Result, str]:
    """Classify one photo, with or without a running service.

    PAWCAST_API_KEY, if set, is sent to the service as a bearer token.

    Example: pawcast predict cat.jpg --model catdog@latest
    """
    import pawcast
    from pawcast.client import service_client

    try:
        data = photo.read_bytes()
    except OSError as error:
        raise NotFoundError(f"{photo} can't be read", received=error.strerror, expected="a picture") from None
    if url:
        try:
            answer = service_client.classify(data, url, api_key())
        except ImageError as error:
            raise ImageError(f"{photo} can't be used", received=error.what) from None
    else:
        loaded = pawcast.load_model(model, store=store_uri)
        answer = {"model": loaded.name, **loaded.predict(photo)[0]._asdict()}
    result = {"photo": str(photo), **{key: answer[key] for key in ("model", "label", "probability", "scores")}}
    return result, f"{photo}: {result['label']} {result['probability']:.1%} ({result['model']})"


if __name__ == "__main__":
    command.run(main)
