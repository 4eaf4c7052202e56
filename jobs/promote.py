"""Move a ref of a model, such as `production`, to a version."""

from typing import Annotated

import typer

from pawcast.core import command
from pawcast.core.command import Result, StoreOption


def main(
    model: Annotated[str, typer.Argument(help="The name of the model.")],
    version: Annotated[str, typer.Argument(help="The number of a version, or a ref such as latest.")],
    ref: Annotated[str, typer.Argument(help="The ref to move, such as production.")],
    store_uri: StoreOption = None,
) -> tuple[Result, str]:
    """Move a ref of a model, such as `production`, to a version.

    A service that serves the ref loads the version within seconds, without a restart.

    Example: pawcast promote catdog latest production
    """
    import pawcast
    from pawcast import registry

    store = pawcast.open_store(store_uri)
    number = registry.resolve(store, f"{model}@{version}").version
    before = registry.move_ref(store, model, ref, number)
    was = f" (was {before})" if before is not None else ""
    result = {"model": model, "ref": ref, "version": number, "was": before}
    return result, f"{model}@{ref} is version {number}{was}"


if __name__ == "__main__":
    command.run(main)
