"""Draw cats and dogs in Kaggle's layout, for a demo that needs no download."""

from pathlib import Path
from typing import Annotated

import typer
from pawcast_infra.local.drawn_photos import write_zips

from pawcast.core import console
from pawcast.core.console import Result


def main(
    out: Annotated[Path, typer.Option(help="Folder for train.zip and test1.zip.")] = Path("var/demo/photos"),
    labelled: Annotated[int, typer.Option(min=20, help="Photos with labels, half of each class.")] = 2_400,
    unlabelled: Annotated[int, typer.Option(min=1, help="Photos without.")] = 600,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other photos.")] = 0,
) -> tuple[Result, str]:
    """Draw cats and dogs in Kaggle's layout, for a demo that needs no download."""
    with console.ProgressBars() as stages:
        train, test = write_zips(
            out,
            labelled=labelled,
            unlabelled=unlabelled,
            seed=seed,
            progress=lambda done, total: stages("drawing", done, total),
        )
    result = {"labelled": str(train), "unlabelled": str(test), "photos": labelled + unlabelled}
    return result, f"{labelled + unlabelled:,} photos in {train} and {test}"


if __name__ == "__main__":
    console.run(main)
