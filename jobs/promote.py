"""Point a model's ref at a version: `promote.py catdog latest production`."""

from typing import Annotated

import typer

from pawcast import registry
from pawcast.core import console
from pawcast.core.console import Result, StoreOption
from pawcast.core.settings import store_uri
from pawcast.store import open_store


def main(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[str, typer.Argument(help="A version's number, or a ref such as latest.")],
    ref: Annotated[str, typer.Argument(help="The ref to move, such as production.")],
    store: StoreOption = None,
) -> tuple[Result, str]:
    """Point a model's ref at a version: `promote.py catdog latest production`."""
    place = open_store(store_uri(store))
    found = registry.resolve(place, f"{model}@{version}")
    before = registry.move_ref(place, model, ref, found.version)
    was = f" (was {before})" if before is not None else ""
    result = {"model": model, "ref": ref, "version": found.version, "was": before}
    return result, f"{model}@{ref} is version {found.version}{was}"


if __name__ == "__main__":
    console.run(main)
