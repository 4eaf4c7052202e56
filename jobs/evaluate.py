"""Measure a model version on a split of its dataset, or on any labelled photos."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pawcast.core import atomic, console
from pawcast.core.console import Result, StoreOption
from pawcast.core.settings import store_uri
from pawcast.data import manifest as manifests
from pawcast.data.reader import SplitReader, read_source
from pawcast.errors import UsageError, suggest
from pawcast.evaluation.evaluate import Evaluation, ScoredPhoto, evaluate
from pawcast.evaluation.reports.confusion import draw_confusion
from pawcast.evaluation.reports.gallery import Tile, draw_contact_sheet
from pawcast.evaluation.reports.page import Section, render_page
from pawcast.inference.engine import Engine
from pawcast.registry import ModelVersion
from pawcast.store import Store, open_store
from pawcast.vision import preprocess


def main(
    model: Annotated[str, typer.Option(help="MODEL@REF or MODEL@NUMBER.")] = "catdog@latest",
    split: Annotated[str, typer.Option(help="A split of the model's own dataset: test, val or train.")] = "test",
    labelled: Annotated[str | None, typer.Option(help="A labelled zip, folder or CSV instead of a split.")] = None,
    out: Annotated[Path | None, typer.Option(help="Report folder. [default: var/reports/MODEL-N-SPLIT]")] = None,
    store: StoreOption = None,
) -> tuple[Result, str]:
    """Measure a model version on a split of its dataset, or on any labelled photos."""
    place = open_store(store_uri(store))
    engine = Engine.load(place, model)
    version = engine.version
    with console.ProgressBars() as stages:
        if labelled:
            name, photos, total = Path(labelled).stem, read_source(labelled, version.classes), 0
        else:
            found = manifests.load(place, f"{version.dataset}@{version.dataset_sha256}").splits
            usable = [key for key, value in found.items() if value.per_class]
            if split not in usable:
                raise UsageError("Not a labelled split", received=repr(split), expected=suggest(split, usable))
            name, photos, total = split, SplitReader(place, found[split]), found[split].photos
        judgement = evaluate(engine, photos, lambda done: stages("evaluating", done, max(done, total)))
    metrics = judgement.metrics._asdict() | {"unusable": len(judgement.unusable)}
    result = {
        "model": version.name,
        "on": name,
        "dataset_sha256": None if labelled else version.dataset_sha256,
        "evaluated": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        **metrics,
        "photos_per_second": round(metrics["photos"] / stages.seconds["evaluating"], 1),
    }
    folder = out or Path("var/reports") / f"{version.model}-{version.version}-{name}"
    place.put(
        f"models/{version.model}/evaluations/{version.version}-{name}.json",
        json.dumps(result, indent=1).encode(),
    )
    write_report(place, folder, version, name, judgement)
    atomic.write(folder / "evaluation.json", json.dumps(result, indent=1).encode())
    return {**result, "report": str(folder / "report.html")}, text_of(version, name, judgement, folder)


def text_of(version: ModelVersion, name: str, judgement: Evaluation, folder: Path) -> str:
    """Return the metrics for people."""
    evaluation = judgement.metrics
    low, high = evaluation.interval
    (a, b), (c, d) = evaluation.confusion
    cat, dog = version.classes
    return (
        f"{version.name} on {evaluation.photos:,} photos ({name})\n"
        f"  accuracy  {evaluation.accuracy:.4f}  (95% interval {low:.4f} to {high:.4f})\n"
        f"  log loss  {evaluation.log_loss:.4f}\n"
        f"  AUC       {evaluation.auc:.4f}\n"
        f"  {cat}s        {a:,} right, {b:,} taken for {dog}s\n"
        f"  {dog}s        {d:,} right, {c:,} taken for {cat}s\n"
        f"  report    {folder / 'report.html'}"
    )


def write_report(place: Store, folder: Path, version: ModelVersion, name: str, judgement: Evaluation) -> None:
    """Write the confusion matrix, the photos with their predicted label, and the page that shows it all."""
    evaluation = judgement.metrics
    wrong = sum(sum(row) for row in evaluation.confusion) - sum(evaluation.confusion[i][i] for i in (0, 1))
    photos = draw_contact_sheet(
        [
            (f"Wrong: the surest {len(judgement.mistakes)} of {wrong:,}", tiles(judgement.mistakes, version)),
            ("Right: the first few", tiles(judgement.right, version)),
        ],
        f"{version.name} on {evaluation.photos:,} photos ({name})",
    )
    confusion = draw_confusion(evaluation.confusion, version.classes)
    atomic.write(folder / "photos.png", photos)
    atomic.write(folder / "confusion.png", confusion)
    low, high = evaluation.interval
    facts = {
        "Accuracy": f"{evaluation.accuracy:.2%} (95% interval {low:.2%} to {high:.2%})",
        "Log loss": f"{evaluation.log_loss:.4f}",
        "AUC": f"{evaluation.auc:.4f}",
        "Photos": f"{evaluation.photos:,} ({name})",
        "Run": version.run,
        "Dataset": f"{version.dataset}@{version.dataset_sha256[:12]}",
        "Trained": version.created,
    }
    curves = place.get(f"runs/{version.run}/curves.png")
    sections = [
        Section("Training", image=curves, alt="Accuracy and loss over the epochs"),
        Section("Right and wrong by class", image=confusion, alt="Confusion matrix"),
        Section("Photos with their predicted label", image=photos, alt="Wrong and right predictions"),
        Section("Recipe", table=[(key, str(value)) for key, value in version.recipe.model_dump().items()]),
    ]
    atomic.write(folder / "report.html", render_page(f"{version.name} on {name}", facts, sections).encode())


def tiles(judged: list[ScoredPhoto], version: ModelVersion) -> list[Tile]:
    """Return photos captioned with what the model takes them for."""
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
    console.run(main)
