"""Measure a model on a split of its dataset or other photos."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pawcast.core import atomic, command
from pawcast.core.command import ModelOption, Result, StoreOption
from pawcast.core.console import ProgressBars

if TYPE_CHECKING:
    from pawcast.evaluation.evaluate import Evaluation, ScoredPhoto
    from pawcast.evaluation.reports.gallery import Tile
    from pawcast.registry import ModelVersion
    from pawcast.store import Store


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

    store = pawcast.open_store(store_uri)
    loaded = pawcast.load_model(model, store=store)
    version, name = loaded.version, Path(labelled).stem if labelled else split
    with ProgressBars() as progress:
        evaluation = pawcast.evaluate(loaded, split=split, labelled=labelled, progress=progress, store=store)
    metrics = evaluation.metrics._asdict() | {"unusable": len(evaluation.unusable)}
    result = {
        "model": version.name,
        "on": name,
        "dataset_sha256": None if labelled else version.dataset_sha256,
        "evaluated": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        **metrics,
        "photos_per_second": round(metrics["photos"] / progress.seconds["evaluating"], 1),
    }
    record = json.dumps(result, indent=1).encode()
    store.put(f"models/{version.model}/evaluations/{version.version}-{name}.json", record)
    folder = out or Path("var/reports") / f"{version.model}-{version.version}-{name}"
    write_report(store, folder, version, name, evaluation)
    atomic.write(folder / "evaluation.json", record)
    return {**result, "report": str(folder / "report.html")}, summary(version, name, evaluation, folder)


def summary(version: "ModelVersion", name: str, evaluation: "Evaluation", folder: Path) -> str:
    """Return the metrics for people."""
    metrics = evaluation.metrics
    low, high = metrics.interval
    (a, b), (c, d) = metrics.confusion
    cat, dog = version.classes
    return (
        f"{version.name} on {metrics.photos:,} photos ({name})\n"
        f"  accuracy  {metrics.accuracy:.4f}  (95% interval {low:.4f} to {high:.4f})\n"
        f"  log loss  {metrics.log_loss:.4f}\n"
        f"  AUC       {metrics.auc:.4f}\n"
        f"  {cat}s        {a:,} right, {b:,} taken for {dog}s\n"
        f"  {dog}s        {d:,} right, {c:,} taken for {cat}s\n"
        f"  report    {folder / 'report.html'}"
    )


def write_report(store: "Store", folder: Path, version: "ModelVersion", name: str, evaluation: "Evaluation") -> None:
    """Write the confusion matrix, photos with predictions, and a page that shows all of it."""
    from pawcast.evaluation.reports.confusion import draw_confusion
    from pawcast.evaluation.reports.gallery import draw_contact_sheet
    from pawcast.evaluation.reports.page import Section, render_page

    metrics = evaluation.metrics
    wrong = sum(sum(row) for row in metrics.confusion) - sum(metrics.confusion[i][i] for i in (0, 1))
    photos = draw_contact_sheet(
        [
            (f"Wrong: the surest {len(evaluation.mistakes)} of {wrong:,}", tiles(evaluation.mistakes, version)),
            ("Right: the first few", tiles(evaluation.right, version)),
        ],
        f"{version.name} on {metrics.photos:,} photos ({name})",
    )
    confusion = draw_confusion(metrics.confusion, version.classes)
    atomic.write(folder / "photos.png", photos)
    atomic.write(folder / "confusion.png", confusion)
    low, high = metrics.interval
    facts = {
        "Accuracy": f"{metrics.accuracy:.2%} (95% interval {low:.2%} to {high:.2%})",
        "Log loss": f"{metrics.log_loss:.4f}",
        "AUC": f"{metrics.auc:.4f}",
        "Photos": f"{metrics.photos:,} ({name})",
        "Run": version.run,
        "Dataset": f"{version.dataset}@{version.dataset_sha256[:12]}",
        "Trained": version.created,
    }
    curves = store.get(f"runs/{version.run}/curves.png")
    sections = [
        Section("Training", image=curves, alt="Accuracy and loss over the epochs"),
        Section("Right and wrong by class", image=confusion, alt="Confusion matrix"),
        Section("Photos with their predicted label", image=photos, alt="Wrong and right predictions"),
        Section("Recipe", table=[(key, str(value)) for key, value in version.recipe.model_dump().items()]),
    ]
    atomic.write(folder / "report.html", render_page(f"{version.name} on {name}", facts, sections).encode())


def tiles(judged: "list[ScoredPhoto]", version: "ModelVersion") -> "list[Tile]":
    """Return photos with the predicted label as caption."""
    from pawcast.evaluation.reports.gallery import Tile
    from pawcast.vision import preprocess

    return [
        Tile(
            preprocess.load_image(item.data, 150),
            f"{version.classes[int(item.score > 0.5)]} {max(item.score, 1 - item.score):.1%}",
            item.id,
            "bad" if item.wrong else "good",
        )
        for item in judged
    ]


if __name__ == "__main__":
    command.run(main)
