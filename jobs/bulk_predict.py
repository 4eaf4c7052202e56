"""Predict every photo of a zip, a folder or a dataset over HTTP: predictions.csv and a contact sheet."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pawcast.client import bulk
from pawcast.client.bulk import BulkOptions
from pawcast.client.photos import PhotoSequence, SourcePhotos
from pawcast.client.submission import errors_csv, predictions_csv
from pawcast.core import atomic, console
from pawcast.core.console import Result, StoreOption
from pawcast.core.settings import api_key, store_uri
from pawcast.errors import DataError, UsageError
from pawcast.evaluation.reports.predictions import draw_prediction_sheet

_SHOWN = 16  # two rows of the sheet
_NOTE_SECONDS = 10.0
_NOTE_LENGTH = 60
_OPTIONS = BulkOptions()


def main(
    images_: Annotated[str | None, typer.Option("--images", help="Zip or folder of photos.")] = None,
    dataset: Annotated[str | None, typer.Option(help="NAME[@DIGEST]: that dataset's unlabelled split instead.")] = None,
    url: Annotated[str, typer.Option(help="The service.")] = "http://127.0.0.1:8000",
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv, photos.png and errors.csv.")] = Path(
        "predictions"
    ),
    fresh: Annotated[bool, typer.Option("--fresh", help="Begin anew, not where a killed run stopped.")] = False,
    batch: Annotated[int, typer.Option(min=1, max=256, help="Most photos in a request.")] = _OPTIONS.batch,
    connections: Annotated[int, typer.Option(min=1, max=64, help="Requests at once.")] = _OPTIONS.connections,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds without a byte after which a request is sent again.")
    ] = _OPTIONS.timeout,
    patience: Annotated[
        float, typer.Option(min=1, help="Seconds without any answer after which to give up.")
    ] = _OPTIONS.patience,
    store: StoreOption = None,
) -> tuple[Result, str]:
    """Predict every photo of a zip, a folder or a dataset over HTTP: predictions.csv and a contact sheet.

    A run that was killed or gave up goes on where it stopped when it is started again. PAWCAST_API_KEY is sent as
    a bearer token if it is set.
    """
    photos = source(images_, dataset, store)
    started, options = time.time(), BulkOptions(batch, connections, timeout, patience)
    with console.ProgressBars() as stages:
        printed = -_NOTE_SECONDS

        def progress(stage: str, done: int, total: int, note: str = "", unit: str = "photos") -> None:
            nonlocal printed
            # A busy server says so many times; a line every few seconds is enough.
            if note and not console.console.is_terminal and time.monotonic() - printed >= _NOTE_SECONDS:
                printed = time.monotonic()
                console.console.print(escape(note), soft_wrap=True)
            stages(stage, done, total, escape(note[:_NOTE_LENGTH]), unit)

        with bulk.bulk_predict(
            photos, url, out, key=api_key(), options=options, fresh=fresh, progress=progress
        ) as found:
            seconds = stages.seconds["predicting"]
            failed = [row for row in found.rows if row.error]
            atomic.write(out / "predictions.csv", predictions_csv(found.rows))
            if failed:
                atomic.write(out / "errors.csv", errors_csv(found.rows))
            else:
                (out / "errors.csv").unlink(missing_ok=True)
            ids, scores = [row.id for row in found.rows], [row.score for row in found.rows]
            sheet = draw_prediction_sheet(photos.read, ids, scores, found.classes, found.model)
            atomic.write(out / "photos.png", sheet)
            atomic.sweep(out, started)
    if failed:
        raise DataError(
            f"{len(failed):,} of {len(found.rows):,} photos have no prediction",
            received=f"{failed[0].member}: {failed[0].error}",
            fix=f"see {out / 'errors.csv'}; the others are in {out / 'predictions.csv'}",
        )
    result = {
        "model": found.model,
        "photos": len(found.rows),
        "earlier": found.earlier,
        "seconds": round(seconds, 2),
        "photos_per_second": round((len(found.rows) - found.earlier) / max(seconds, 1e-3), 1),
        "predictions": str(out / "predictions.csv"),
        "picture": str(out / "photos.png"),
    }
    earlier = f", {found.earlier:,} of them earlier" if found.earlier else ""
    text = f"{len(found.rows):,} photos by {found.model} in {seconds:,.1f} s{earlier}"
    return result, f"{text}: {result['predictions']}, {result['picture']}"


def source(images_: str | None, dataset: str | None, store: str | None) -> PhotoSequence:
    """Open what is to be predicted."""
    if dataset and not images_:
        # Arrow and perhaps boto3 take a while to import; a zip needs neither.
        from pawcast.data.reader import SplitReader
        from pawcast.store import open_store

        return SplitReader.open(open_store(store_uri(store)), dataset, "unlabelled")
    if not images_ or dataset:
        raise UsageError("Name what to predict", expected="either --images PATH or --dataset NAME")
    return SourcePhotos(images_)


if __name__ == "__main__":
    console.run(main)
