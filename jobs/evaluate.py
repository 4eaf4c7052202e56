"""Measure a model on a split of its dataset or other photos."""

from pathlib import Path
from typing import Annotated

import typer

from pawcast.core import command
from pawcast.core.command import ModelOption, Result, StoreOption
from pawcast.core.console import ProgressBars


def main(
    model: ModelOption = "catdog@latest",
    split: Annotated[
        str, typer.Option(metavar="NAME", help="A split of the model's own dataset: test, val or train.")
    ] = "test",
    labelled: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="A zip, folder or CSV of labelled photos, instead of a split.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where to write the report. [default: var/reports/MODEL-N-SPLIT]"),
    ] = None,
    store_uri: StoreOption = None,
) -> tuple[Result, str]:
    """Measure a model on a split of its dataset or other photos.

    Writes a report as an HTML page: metrics, confusion matrix, photos that the model gets wrong.

    Example: pawcast evaluate --model catdog@latest --split val
    """
    import pawcast
    from pawcast.evaluation.versions import evaluate_version

    store = pawcast.open_store(store_uri)
    with ProgressBars() as progress:
        return evaluate_version(store, model, split=split, labelled=labelled, folder=out, progress=progress)


if __name__ == "__main__":
    command.run(main)
