"""Draw photos of cats and dogs, and do the whole job on them."""

from pathlib import Path
from typing import Annotated

import typer

from pawcast.core import command
from pawcast.core.command import Result
from pawcast.core.console import ProgressBars


def main(
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where to write the photos, the store and the results.")
    ] = Path("var/demo"),
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
        train_zip, test_zip = write_zips(out / "photos", labelled=2_400, unlabelled=600, seed=0, progress=progress)
    sources = {"labelled": str(train_zip), "unlabelled": str(test_zip)}
    store = store or str(out / "store")
    return run.main(**sources, dataset="demo", recipe="smoke", test_size=200, out=out, port=port, store=store)


if __name__ == "__main__":
    command.run(main)
