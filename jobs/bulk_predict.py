"""Predict many photos over HTTP and write predictions.csv."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pawcast.core import atomic, command
from pawcast.core.command import Result, StoreOption
from pawcast.core.console import ProgressBars, console
from pawcast.core.progress import Progress
from pawcast.core.settings import api_key
from pawcast.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pawcast.client.bulk import BulkResult
    from pawcast.client.journal import PredictionRow
    from pawcast.client.photos import PhotoSequence
    from pawcast.data.sources import LeftOut

_NOTE_LENGTH = 60

Form = Literal["labels", "probabilities"]


class MissingPredictionsError(DataError):
    """Some photos have no prediction. `--json` prints the result all the same."""

    def __init__(self, result: Result, failed: "Sequence[PredictionRow]", out: Path, left_out: str) -> None:
        super().__init__(
            f"{len(failed):,} of {result['photos']:,} photos have no prediction{left_out}",
            received=f"{failed[0].member}: {failed[0].error}",
            fix=f"see {out / 'errors.csv'}; {out / 'predictions.csv'} has the others; add --fill 0.5 to have all in it",
        )
        self.result = result


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
    form: Annotated[
        Form, typer.Option(help="What predictions.csv holds: the label, 1 or 0, or the probability of label 1.")
    ] = "probabilities",
    clip: Annotated[
        float,
        typer.Option(metavar="N", min=0, max=0.5, help="Keep probabilities in predictions.csv this far from 0 and 1."),
    ] = 0.005,
    fill: Annotated[
        float | None,
        typer.Option(metavar="N", min=0, max=1, help="Write this, such as 0.5, for photos without a prediction."),
    ] = None,
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

    if form == "labels" and fill not in (None, 0, 1):
        raise UsageError("--fill must be a label", received=fill, expected="0 or 1, or --form probabilities")
    photos = open_photos(images, dataset, store_uri)
    started, options = time.time(), bulk.BulkOptions(batch, connections, timeout, patience)
    with (
        ProgressBars() as bars,
        bulk.bulk_predict(
            photos, url, out, key=api_key(), options=options, fresh=fresh, progress=with_notes(bars)
        ) as predicted,
    ):
        seconds = bars.seconds["predicting"]
        failed = [row for row in predicted.rows if row.error]
        atomic.write(out / "predictions.csv", predictions_csv(predicted.rows, form, clip, fill))
        if failed:
            atomic.write(out / "errors.csv", errors_csv(predicted.rows))
        else:
            (out / "errors.csv").unlink(missing_ok=True)
        ids, scores = [row.id for row in predicted.rows], [row.score for row in predicted.rows]
        left_out = describe_left_out(photos.left_out)
        sheet = draw_prediction_sheet(photos.read, ids, scores, predicted.classes, predicted.model, left_out)
        atomic.write(out / "photos.png", sheet)
        atomic.sweep(out, started)
    result, text = summary(predicted, seconds, out)
    result |= {"form": form, "positive_class": predicted.classes[1], "without_prediction": len(failed), "fill": fill}
    result["left_out"] = [asdict(kind) for kind in photos.left_out]
    meaning = "label 1 is" if form == "labels" else f"kept {clip:g} from 0 and 1: the probability of"
    text += f" ({meaning} {predicted.classes[1]}){left_out}"
    if failed and fill is None:
        raise MissingPredictionsError(result, failed, out, left_out)
    if failed:
        text += f"; {len(failed):,} without a prediction, see {out / 'errors.csv'}, got {fill:g}"
    return result, text


def open_photos(images: str | None, dataset: str | None, store_uri: str | None) -> "PhotoSequence":
    """Open the photos to predict. Raises `UsageError` unless exactly one source is named."""
    if bool(images) == bool(dataset):
        raise UsageError("Name one source of photos", expected="either --images SOURCE or --dataset NAME")
    if images:
        from pawcast.client.photos import SourcePhotos

        return SourcePhotos(images)
    import pawcast
    from pawcast.data.reader import SplitReader

    return SplitReader.open(pawcast.open_store(store_uri), str(dataset), "unlabelled")


def describe_left_out(left_out: "Sequence[LeftOut]") -> str:
    """Return the end of a line: `; 51 left out: 50 heic, 1 link`, or nothing."""
    kinds = ", ".join(f"{kind.count:,} {kind.kind}" for kind in left_out)
    return f"; {sum(kind.count for kind in left_out):,} left out: {kinds}" if kinds else ""


def with_notes(bars: ProgressBars) -> Progress:
    """Return a progress that also prints each new note where there is no terminal."""
    printed = {""}

    def report(stage: str, done: int, total: int, note: str = "", unit: str = "photos") -> None:
        if stage == "predicting" and note not in printed and not console.is_terminal:
            printed.add(note)
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
    return result, f"{text}: {result['picture']}, {result['predictions']}"


if __name__ == "__main__":
    command.run(main)
