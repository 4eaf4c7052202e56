"""Evaluate a registered model version: metrics into the store, a report into a folder."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pawcast.core import atomic
from pawcast.core.progress import Progress, silent
from pawcast.data import manifest as manifests
from pawcast.data.reader import SplitReader, read_source
from pawcast.errors import StoreAccessError, UsageError, suggest
from pawcast.evaluation.evaluate import Evaluation, evaluate
from pawcast.evaluation.reports.report import format_summary, write_report
from pawcast.inference.engine import Engine
from pawcast.store import Store, records


def evaluate_engine(
    store: Store, engine: Engine, *, split: str = "test", labelled: str | None = None, progress: Progress = silent
) -> Evaluation:
    """Evaluate a loaded model; write nothing.

    Args and errors are those of `evaluate_version`.
    """
    version = engine.version
    if labelled:
        return evaluate(engine, read_source(labelled, version.classes), progress)
    splits = manifests.load(store, f"{version.dataset}@{version.dataset_sha256}").splits
    with_labels = [key for key, value in splits.items() if value.per_class]
    if split not in with_labels:
        raise UsageError("Not a labelled split", received=repr(split), expected=suggest(split, with_labels))
    return evaluate(engine, SplitReader(store, splits[split]), progress, splits[split].photos)


def evaluate_version(
    store: Store,
    model: str,
    *,
    split: str = "test",
    labelled: str | None = None,
    folder: Path | None = None,
    progress: Progress = silent,
) -> tuple[dict[str, Any], str]:
    """Evaluate a model version on a split of its own dataset, or on any labelled photos.

    The folder gets `report.html`, `photos.png` and `evaluation.json`. The metrics also go into the
    store, to `models/MODEL/evaluations/VERSION-NAME.json`, where NAME is the split, or
    `source-NAME` for a source. With keys that may only read, the summary says that they don't.

    Args:
        store: Where the model and its dataset are.
        model: `MODEL@REF` or `MODEL@NUMBER`.
        split: `test`, `val` or `train`.
        labelled: A source of labelled photos instead of a split.
        folder: Of the report; `var/reports/MODEL-VERSION-NAME` if None.
        progress: Called for each photo.

    Returns:
        The model's name, its metrics and the report's path; and the metrics as text for a terminal.

    Raises:
        NotFoundError: If there is no such model version.
        UsageError: If the dataset has no such labelled split.
        DataError: If the source isn't labelled, or no photo could be used.
    """
    engine = Engine.load(store, model)
    version = engine.version
    # A source may be named after a split, whose record it must not replace.
    name = f"source-{Path(labelled).stem}" if labelled else split
    started = time.monotonic()
    evaluation = evaluate_engine(store, engine, split=split, labelled=labelled, progress=progress)
    seconds = time.monotonic() - started
    metrics = evaluation.metrics._asdict()
    result = {
        "model": version.name,
        "on": name,
        "dataset_sha256": None if labelled else version.dataset_sha256,
        "evaluated": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        **{key: value for key, value in metrics.items() if key != "per_class"},
        "classes": {key: of._asdict() for key, of in zip(version.classes, metrics["per_class"], strict=True)},
        "never_predicted": evaluation.metrics.never_predicted(version.classes),
        "unusable": len(evaluation.unusable),
        "photos_per_second": round(evaluation.metrics.photos / seconds, 1),
    }
    folder = folder or Path("var/reports") / f"{version.model}-{version.version}-{name}"
    content = json.dumps(result, indent=1, allow_nan=False).encode()
    report = write_report(store, folder, version, name, evaluation)
    atomic.write(folder / "evaluation.json", content)
    summary, stored = format_summary(version, name, evaluation, report), True
    try:
        records.write(store, f"models/{version.model}/evaluations/{version.version}-{name}.json", result)
    except StoreAccessError as error:
        stored = False
        summary += f"\n  The metrics are in the report's folder only: {error}"
    return {**result, "report": str(report), "stored": stored}, summary
