"""The report of an evaluation: a page with its pictures, and a summary for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pawcast.core import atomic
from pawcast.evaluation.evaluate import Evaluation, ScoredPhoto
from pawcast.evaluation.reports.confusion import draw_confusion
from pawcast.evaluation.reports.gallery import Tile, draw_contact_sheet
from pawcast.evaluation.reports.page import Section, render_page
from pawcast.evaluation.reports.predictions import TILE_SIZE, format_prediction
from pawcast.registry import CURVES, ModelVersion, read_file
from pawcast.store import Store
from pawcast.vision import preprocess


def write_report(store: Store, folder: Path, version: ModelVersion, name: str, evaluation: Evaluation) -> Path:
    """Write `report.html` and its pictures, `confusion.png` and `photos.png`, into a folder.

    Args:
        store: Where the version is.
        folder: Made if it isn't there.
        version: The model.
        name: What it was evaluated on.
        evaluation: The outcome.

    Returns:
        The page's path.

    Raises:
        IntegrityError: If the training curves of the version are missing or were changed.
    """
    metrics = evaluation.metrics
    wrong = sum(map(sum, metrics.confusion)) - sum(metrics.confusion[i][i] for i in (0, 1))
    shown = [
        (f"Wrong: the {len(evaluation.mistakes)} most confident of {wrong:,}", evaluation.mistakes),
        ("Right: the first few", evaluation.right),
    ]
    photos = draw_contact_sheet(
        [(heading, [_tile(photo, version.classes) for photo in group]) for heading, group in shown],
        f"{version.name} on {metrics.photos:,} photos ({name})",
    )
    confusion = draw_confusion(metrics.confusion, version.classes)
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
    sections = [
        Section("Right and wrong by class", image=confusion, alt="Confusion matrix"),
        Section("Photos with their predicted label", image=photos, alt="Wrong and right predictions"),
        Section("Recipe", table=[(key, str(value)) for key, value in version.recipe.model_dump().items()]),
    ]
    if CURVES in version.files:
        curves = read_file(store, version, CURVES)
        sections.insert(0, Section("Training", image=curves, alt="Accuracy and loss over the epochs"))
    page = folder / "report.html"
    atomic.write(folder / "photos.png", photos)
    atomic.write(folder / "confusion.png", confusion)
    atomic.write(page, render_page(f"{version.name} on {name}", facts, sections).encode())
    return page


def format_summary(version: ModelVersion, name: str, evaluation: Evaluation, report: Path) -> str:
    """Return the metrics, and the report's path, as text for a terminal."""
    metrics = evaluation.metrics
    low, high = metrics.interval
    rows = [
        ("accuracy", f"{metrics.accuracy:.4f}  (95% interval {low:.4f} to {high:.4f})"),
        ("log loss", f"{metrics.log_loss:.4f}"),
        ("AUC", f"{metrics.auc:.4f}"),
        *(
            (class_name, f"{counts[i]:,} of {sum(counts):,} right")
            for i, (class_name, counts) in enumerate(zip(version.classes, metrics.confusion, strict=True))
        ),
        ("report", str(report)),
    ]
    width = max(len(label) for label, _ in rows)
    lines = [f"{version.name} on {metrics.photos:,} photos ({name})"]
    return "\n".join(lines + [f"  {label:<{width}}  {value}" for label, value in rows])


def _tile(photo: ScoredPhoto, classes: Sequence[str]) -> Tile:
    pixels = preprocess.load_image(photo.data, TILE_SIZE)
    return Tile(pixels, format_prediction(photo.score, classes), photo.id, "bad" if photo.wrong else "good")
