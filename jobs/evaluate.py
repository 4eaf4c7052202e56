"""Measure a model version on a split of its dataset, or on any labelled photos."""

from pathlib import Path
from typing import Annotated

import typer

from pawcast.core import console
from pawcast.core.console import Result, StoreOption
from pawcast.core.settings import store_uri
from pawcast.evaluation.versions import evaluate_version
from pawcast.store import open_store


def main(
    model: Annotated[str, typer.Option(help="MODEL@REF or MODEL@NUMBER.")] = "catdog@latest",
    split: Annotated[str, typer.Option(help="A split of the model's own dataset: test, val or train.")] = "test",
    labelled: Annotated[str | None, typer.Option(help="A labelled zip, folder or CSV instead of a split.")] = None,
    out: Annotated[Path | None, typer.Option(help="Report folder. [default: var/reports/MODEL-N-SPLIT]")] = None,
    store: StoreOption = None,
) -> tuple[Result, str]:
    """Measure a model version on a split of its dataset, or on any labelled photos."""
    with console.ProgressBars() as progress:
        return evaluate_version(
            open_store(store_uri(store)), model, split=split, labelled=labelled, folder=out, progress=progress
        )


if __name__ == "__main__":
    console.run(main)
