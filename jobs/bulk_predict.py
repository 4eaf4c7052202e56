"""Predict many photos over HTTP and write predictions.csv."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pawcast.core import atomic, command
from pawcast.core.command import Result, StoreOption
from pawcast.core.console import ProgressBars, console
from pawcast.core.progress import Progress
from pawcast.core.settings import api_key
from pawcast.errors import DataError, UsageError

if TYPE_CHECKING:
    from pawcast.client.bulk import BulkResult
    from pawcast.client.photos import PhotoSequence

_NOTE_SECONDS = 10.0
_NOTE_LENGTH = 60


def main(
    images: Annotated[
        str | None, typer.Option("--images", metavar="SOURCE", help="A zip or a folder of photos.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The unlabelled split of this dataset, NAME or NAME@DIGEST, instead."),
    ] = None,
    url: Annotated[str, typer.Option(metavar="URL", help="The service.")] = "http://127.0.0.1:8000",
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where to write predictions.csv, photos.png and errors.csv.")
    ] = Path("predictions"),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over, instead of continuing a run that was stopped.")
    ] = False,
    batch: Annotated[
        int, typer.Option(metavar="N", min=1, max=256, help="At most this many photos in a request.")
    ] = 256,
    connections: Annotated[
        int, typer.Option(metavar="N", min=1, max=64, help="At most this many requests at once.")
    ] = 3,
    timeout: Annotated[
        float, typer.Option(metavar="N", min=0.1, help="Send a request again after this many seconds without a byte.")
    ] = 60,
    patience: Annotated[
        float, typer.Option(metavar="N", min=1, help="Give up after this many seconds without any response.")
    ] = 600,
    store_uri: StoreOption = None,
) -> tuple[Result, str]:
    """Predict many photos over HTTP and write predictions.csv.

    Also draws some of the photos with their predictions. A run that was stopped continues when the
    same command is started again. PAWCAST_API_KEY, if set, is sent to the service as a bearer
    token.

    Example: pawcast bulk-predict --images test1.zip --url http://127.0.0.1:8000
    """
    from pawcast.client import bulk
    from pawcast.client.submission import errors_csv, predictions_csv
    from pawcast.evaluation.reports.predictions import draw_prediction_sheet

    photos = open_photos(images, dataset, store_uri)
    options = bulk.BulkOptions(batch, connections, timeout, patience)
    with (
        ProgressBars() as bars,
        bulk.bulk_predict(
            photos, url, out, key=api_key(), options=options, fresh=fresh, progress=with_notes(bars)
        ) as predicted,
    ):
        seconds = bars.seconds["predicting"]
        failed = [row for row in predicted.rows if row.error]
        atomic.write(out / "predictions.csv", predictions_csv(predicted.rows))
        if failed:
            atomic.write(out / "errors.csv", errors_csv(predicted.rows))
        else:
            (out / "errors.csv").unlink(missing_ok=True)
        ids, scores = [row.id for row in predicted.rows], [row.score for row in predicted.rows]
        sheet = draw_prediction_sheet(photos.read, ids, scores, predicted.classes, predicted.model)
        atomic.write(out / "photos.png", sheet)
    if failed:
        raise DataError(
            f"{len(failed):,} of {len(predicted.rows):,} photos have no prediction",
            received=f"{failed[0].member}: {failed[0].error}",
            fix=f"see {out / 'errors.csv'}; the predictions of the others are in {out / 'predictions.csv'}",
        )
    return summary(predicted, seconds, out)


def open_photos(images: str | None, dataset: str | None, store_uri: str | None) -> "PhotoSequence":
    """Open the photos to predict. Raises `UsageError` unless exactly one source is named."""
    if not images and not dataset:
        raise UsageError("No photos to predict", expected="either --images SOURCE or --dataset NAME")
    if images and dataset:
        raise UsageError("Two sources of photos", expected="either --images SOURCE or --dataset NAME")
    if images:
        from pawcast.client.photos import SourcePhotos

        return SourcePhotos(images)
    import pawcast
    from pawcast.data.reader import SplitReader

    return SplitReader.open(pawcast.open_store(store_uri), str(dataset), "unlabelled")


def with_notes(bars: ProgressBars) -> Progress:
    """Return a progress that also prints notes where there is no terminal: one in ten seconds."""
    last = -_NOTE_SECONDS

    def report(stage: str, done: int, total: int, note: str = "", unit: str = "photos") -> None:
        nonlocal last
        if note and not console.is_terminal and time.monotonic() - last >= _NOTE_SECONDS:
            last = time.monotonic()
            console.print(note, soft_wrap=True, markup=False)
        bars(stage, done, total, note[:_NOTE_LENGTH], unit)

    return report


def summary(predicted: "BulkResult", seconds: float, out: Path) -> tuple[Result, str]:
    """Return the result for machines and for people."""
    photos, new = len(predicted.rows), len(predicted.rows) - predicted.earlier
    result = {
        "model": predicted.model,
        "photos": photos,
        "earlier": predicted.earlier,
        "seconds": round(seconds, 2),
        "photos_per_second": round(new / max(seconds, 1e-3), 1),
        "predictions": str(out / "predictions.csv"),
        "picture": str(out / "photos.png"),
    }
    earlier = f", {predicted.earlier:,} of them in an earlier run" if predicted.earlier else ""
    text = f"{photos:,} photos by {predicted.model} in {seconds:,.1f} s{earlier}"
    return result, f"{text}: {result['predictions']}, {result['picture']}"


if __name__ == "__main__":
    command.run(main)
