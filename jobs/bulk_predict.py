"""Predict every photo of a zip or folder over HTTP: predictions.csv and a contact sheet."""

import time
from pathlib import Path
from typing import Annotated

import typer

from pawcast import console, files, images, sources
from pawcast.client import bulk
from pawcast.client.bulk import Bulk, Row
from pawcast.client.submission import errors_csv, predictions_csv
from pawcast.console import Result
from pawcast.errors import DataError, ImageError
from pawcast.reports.gallery import Tile, draw_contact_sheet
from pawcast.sources import Photo

_SHOWN = 24


def main(
    images_: Annotated[str, typer.Option("--images", help="Zip or folder of photos.")],
    url: Annotated[str, typer.Option(help="The service.")] = "http://127.0.0.1:8000",
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv, photos.png and errors.csv.")] = Path(
        "predictions"
    ),
) -> tuple[Result, str]:
    """Predict every photo of a zip or folder over HTTP: predictions.csv and a contact sheet."""
    with console.Stages() as stages:
        started = time.monotonic()
        found = bulk.predict(images_, url, lambda done, total: stages("predicting", done, total))
        seconds = time.monotonic() - started
    failed = [row for row in found.rows if row.error]
    files.write(out / "predictions.csv", predictions_csv(found.rows))
    (out / "errors.csv").unlink(missing_ok=True)
    files.write(out / "photos.png", contact_sheet(images_, found))
    if failed:
        files.write(out / "errors.csv", errors_csv(found.rows))
        raise DataError(
            f"{len(failed):,} of {len(found.rows):,} photos have no prediction",
            received=f"{failed[0].member}: {failed[0].error}",
            fix=f"see {out / 'errors.csv'}; the others are in {out / 'predictions.csv'}",
        )
    result = {
        "model": found.model,
        "photos": len(found.rows),
        "seconds": round(seconds, 2),
        "photos_per_second": round(len(found.rows) / seconds, 1),
        "predictions": str(out / "predictions.csv"),
        "picture": str(out / "photos.png"),
    }
    text = f"{len(found.rows):,} photos by {found.model} in {seconds:,.1f} s"
    return result, f"{text}: {result['predictions']}, {result['picture']}"


def contact_sheet(source: str, found: Bulk) -> bytes:
    """Draw photos with their predicted label: the surest of each class, and the least certain."""
    scored = [row for row in found.rows if row.score is not None]
    by_score = sorted(scored, key=lambda row: (row.score, row.id))
    doubtful = sorted(scored, key=lambda row: (abs((row.score or 0) - 0.5), row.id))
    low, high = found.classes
    half = _SHOWN // 2
    sections = [
        (f"Surest {high}s", by_score[::-1][:half]),
        (f"Surest {low}s", by_score[:half]),
        ("Least certain", doubtful[:_SHOWN]),
    ]
    return draw_contact_sheet(
        [(name, _tiles(source, rows, found.classes)) for name, rows in sections],
        f"{len(scored):,} photos by {found.model}",
    )


def _tiles(source: str, rows: list[Row], classes: list[str]) -> list[Tile]:
    photos = [Photo(row.id, row.member, row.member, -1) for row in rows]
    tiles = []
    for row, data in zip(rows, sources.read(source, photos), strict=True):
        score = row.score or 0.0
        if not isinstance(data, ImageError):
            caption = f"{classes[int(score > 0.5)]} {max(score, 1 - score):.1%}"
            tiles.append(Tile(images.load(data, 150), caption, row.id))
    return tiles


if __name__ == "__main__":
    console.run(main)
