"""Predict many photos over HTTP and write predictions.csv."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pawcast.core import atomic, command
from pawcast.core.command import Result, StoreOption
from pawcast.core.console import ProgressBars, console
from pawcast.core.settings import api_key
from pawcast.errors import DataError, ImageError, UsageError

<<<<<<< HEAD
if TYPE_CHECKING:
    import numpy as np

    from pawcast.client.bulk import BulkResult
    from pawcast.client.journal import PredictionRow
    from pawcast.client.photos import PhotoSequence

_TILES = 16  # two rows of the picture
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
=======
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
>>>>>>> room-client
) -> tuple[Result, str]:
    """Predict many photos over HTTP and write predictions.csv.

    Also draws some of the photos with their predictions. A run that was stopped continues when the
    same command is started again. PAWCAST_API_KEY, if set, is sent to the service as a bearer
    token.

    Example: pawcast bulk-predict --images test1.zip --url http://127.0.0.1:8000
    """
<<<<<<< HEAD
    from pawcast.client import bulk
    from pawcast.client.submission import errors_csv, predictions_csv

    photos = open_photos(images, dataset, store_uri)
    started, options = time.time(), bulk.BulkOptions(batch, connections, timeout, patience)
    print_note = note_printer()
    with ProgressBars() as bars:

        def progress(done: int, total: int, note: str) -> None:
            if note and not console.is_terminal:
                print_note(note)
            bars("predicting", done, total, note[:_NOTE_LENGTH])

        with bulk.bulk_predict(
            photos, url, out, key=api_key(), limits=options, fresh=fresh, progress=progress, waiting=print_note
        ) as predicted:
            seconds = bars.seconds["predicting"]
            failed = [row for row in predicted.rows if row.error]
            atomic.write(out / "predictions.csv", predictions_csv(predicted.rows))
=======
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
>>>>>>> room-client
            if failed:
                atomic.write(out / "errors.csv", errors_csv(predicted.rows))
            else:
                (out / "errors.csv").unlink(missing_ok=True)
            atomic.write(out / "photos.png", contact_sheet(photos, predicted))
            atomic.sweep(out, started)
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

    return SplitReader(pawcast.open_store(store_uri), str(dataset), "unlabelled")


def note_printer() -> Callable[[str], None]:
    """Return a function that prints a note, but at most one in ten seconds."""
    last = -_NOTE_SECONDS

    def print_note(note: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _NOTE_SECONDS:
            last = time.monotonic()
            console.print(note, soft_wrap=True, markup=False)

    return print_note


def contact_sheet(photos: "PhotoSequence", predicted: "BulkResult") -> bytes:
    """Draw photos with their predictions: the most certain of each class, and the least certain."""
    from pawcast.evaluation.reports.gallery import Tile, draw_contact_sheet

    scored = [(index, row) for index, row in enumerate(predicted.rows) if row.score is not None]
    by_score = sorted(scored, key=lambda item: (item[1].score, item[1].id))
    by_doubt = sorted(scored, key=lambda item: (abs((item[1].score or 0) - 0.5), item[1].id))
    low, high = predicted.classes
    sections = [
        (f"Most certain {high}s", by_score[::-1][:_TILES]),
        (f"Most certain {low}s", by_score[:_TILES]),
        ("Least certain", by_doubt[:_TILES]),
    ]
    pixels = read_pixels(photos, {index for _, items in sections for index, _ in items})

    def tile(index: int, row: "PredictionRow") -> Tile:
        score = row.score or 0.0
        return Tile(pixels[index], f"{predicted.classes[int(score > 0.5)]} {max(score, 1 - score):.1%}", row.id)

    return draw_contact_sheet(
        [(title, [tile(index, row) for index, row in items if index in pixels]) for title, items in sections],
        f"{len(scored):,} photos by {predicted.model}",
    )


def read_pixels(photos: "PhotoSequence", indices: set[int]) -> "dict[int, np.ndarray]":
    """Return photos as uint8 [150, 150, 3] by their index, without undecodable ones."""
    from pawcast.vision import preprocess

    pixels = {}
    # In the order of the photos: a dataset is read one shard at a time.
    for index in sorted(indices):
        for _, data in photos.read(index, index + 1):
            # Another version of Pawcast may serve, and decode what this one refuses.
            with suppress(ImageError):
                if not isinstance(data, ImageError):
                    pixels[index] = preprocess.load_image(data, 150)
    return pixels


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
