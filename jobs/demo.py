"""Draw photos of cats and dogs, and do the whole job on them."""

from pathlib import Path
from typing import Annotated

import typer

from pawcast.core import command
from pawcast.core.command import Result
from pawcast.core.console import ProgressBars

_TEST_SIZE = 200


def main(
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where to write the photos, the store and the results.")
    ] = Path("var/demo"),
    labelled: Annotated[
        int, typer.Option(metavar="N", min=300, help="How many labelled photos to draw, half of each class.")
    ] = 2_400,
    unlabelled: Annotated[int, typer.Option(metavar="N", min=1, help="How many photos to draw for prediction.")] = 600,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Another seed draws other photos.")] = 0,
    port: Annotated[int, typer.Option(metavar="N", min=1, max=65_535, help="The port of the service.")] = 8_000,
    store: Annotated[
        str | None, typer.Option(metavar="URI", help="A folder or s3://bucket/prefix. [default: a folder in --out]")
    ] = None,
) -> tuple[Result, str]:
    """Draw photos of cats and dogs, and do the whole job on them.

    It takes some minutes and needs no download. Everything that it writes is below one folder.

    Example: pawcast demo
    """
    from pawcast_infra.local.drawn_photos import write_zips
    from pawcast_jobs import run

    run.require_free_port(port)
    with ProgressBars() as progress:
        train_zip, test_zip = write_zips(
            out / "photos", labelled=labelled, unlabelled=unlabelled, seed=seed, progress=progress
        )
    return run.main(
        labelled=str(train_zip),
        unlabelled=str(test_zip),
        dataset="demo",
        recipe="smoke",
        test_size=_TEST_SIZE,
        out=out,
        port=port,
        store=store or str(out / "store"),
    )


if __name__ == "__main__":
    command.run(main)
