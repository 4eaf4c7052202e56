"""The report of an evaluation: a page with its pictures, and a summary for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pawcast.core import atomic
from pawcast.evaluation.evaluate import Evaluation, ScoredPhoto
from pawcast.evaluation.metrics import ClassificationMetrics
from pawcast.evaluation.reports.gallery import Tile, draw_contact_sheet
from pawcast.evaluation.reports.page import Section, render_page
from pawcast.evaluation.reports.predictions import TILE_SIZE, format_prediction
from pawcast.registry import ModelVersion
from pawcast.store import Store
from pawcast.vision import preprocess


def write_report(store: Store, folder: Path, version: ModelVersion, name: str, evaluation: Evaluation) -> Path:
    """Write `report.html` and its picture of photos, `photos.png`; return the page's path.

    Args:
        store: Where the version's run, with its training curves, is.
        folder: Made if it isn't there.
        version: The model.
        name: What it was evaluated on.
        evaluation: The outcome.

    Raises:
        NotFoundError: If the store has no training curves of the version's run.
    """
    metrics = evaluation.metrics
    wrong = metrics.photos - sum(metrics.confusion[i][i] for i in (0, 1))
    shown = [
        (f"Wrong: the {len(evaluation.mistakes)} most confident of {wrong:,}", evaluation.mistakes),
        ("Right: the first few", evaluation.right),
    ]
    photos = draw_contact_sheet(
        [(heading, [_tile(photo, version.classes) for photo in group]) for heading, group in shown],
        f"{version.name} on {metrics.photos:,} photos ({name})",
    )
    facts = _format_metrics(metrics) | {
        "Photos": f"{metrics.photos:,} ({name})",
        "Run": version.run,
        "Dataset": f"{version.dataset}@{version.dataset_sha256[:12]}",
        "Trained": version.created,
    }
    curves = store.get(f"runs/{version.run}/curves.png")
    sections = [
        Section("Training", image=curves, alt="Accuracy and loss over the epochs"),
        Section("Classes", text=_remark(version, metrics), table=_class_table(version, metrics)),
        Section("Photos with their predicted label", image=photos, alt="Wrong and right predictions"),
        Section("Recipe", table=[(key, str(value)) for key, value in version.recipe.model_dump().items()]),
    ]
    page = folder / "report.html"
    atomic.write(folder / "photos.png", photos)
    atomic.write(page, render_page(f"{version.name} on {name}", facts, sections).encode())
    return page


def format_summary(version: ModelVersion, name: str, evaluation: Evaluation, report: Path) -> str:
    """Return the metrics, and the report's path, as text for a terminal."""
    metrics = evaluation.metrics
    rows = [*_format_metrics(metrics).items()]
    for i, counts in enumerate(metrics.confusion):
        precision, recall, f1 = map(_percent, metrics.per_class[i][2:])
        right = f"{counts[i]:,} of {sum(counts):,} right"
        rows.append((version.classes[i], f"{right}; precision {precision}, recall {recall}, F1 {f1}"))
    if remark := _remark(version, metrics):
        rows.append(("Remark", remark))
    rows.append(("Report", str(report)))
    width = max(len(label) for label, _ in rows)
    lines = [f"{version.name} on {metrics.photos:,} photos ({name})"]
    return "\n".join(lines + [f"  {label:<{width}}  {value}" for label, value in rows])


def _format_metrics(metrics: ClassificationMetrics) -> dict[str, str]:
    low, high = metrics.interval
    return {
        "Accuracy": f"{metrics.accuracy:.2%} (95% interval {low:.2%} to {high:.2%})",
        "Balanced accuracy": f"{metrics.balanced_accuracy:.2%}",
        "Log loss": f"{metrics.log_loss:.4f}",
        "AUC": "undefined, because all photos are of one class" if metrics.auc is None else f"{metrics.auc:.4f}",
    }


def _class_table(version: ModelVersion, metrics: ClassificationMetrics) -> list[tuple[str, ...]]:
    """Return the confusion matrix, and the metrics of each class, as rows of a table."""
    predicted = (f"Predicted: {name}" for name in version.classes)
    rows: list[tuple[str, ...]] = [("True class", *predicted, "Precision", "Recall", "F1")]
    for name, counts, of in zip(version.classes, metrics.confusion, metrics.per_class, strict=True):
        rows.append((name, *(f"{count:,}" for count in counts), *map(_percent, of[2:])))
    return rows


def _remark(version: ModelVersion, metrics: ClassificationMetrics) -> str:
    never = metrics.never_predicted(version.classes)
    return f"The model never predicts {' or '.join(never)}." if never else ""


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"


def _tile(photo: ScoredPhoto, classes: Sequence[str]) -> Tile:
    pixels = preprocess.load_image(photo.data, TILE_SIZE)
    return Tile(pixels, format_prediction(photo.score, classes), photo.id, "bad" if photo.wrong else "good")
