"""The files of a bulk run's results, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Literal

from pawcast.client.journal import PredictionRow


def predictions_csv(
    rows: Sequence[PredictionRow],
    form: Literal["labels", "probabilities"] = "probabilities",
    clip: float = 0.005,
    fill: float | None = None,
) -> bytes:
    """Return the predictions in Kaggle's submission format: `id,label`, in the rows' order.

    Args:
        rows: One for each photo.
        form: `labels` writes 1 or 0, as Dogs vs. Cats asks for; `probabilities` writes the
            probability of class 1 with six significant digits, as the Redux edition does.
        clip: Probabilities are kept this far from 0 and 1, in [0, 0.5]: there one confident mistake
            costs the log loss most.
        fill: The label of photos without a score; they are left out if None.

    Source: https://www.kaggle.com/c/dogs-vs-cats/overview/evaluation,
    https://www.kaggle.com/c/dogs-vs-cats-redux-kernels-edition/overview/evaluation
    """

    def label(score: float | None) -> str:
        if score is None:
            return f"{fill:g}"
        return str(int(score > 0.5)) if form == "labels" else f"{min(max(score, clip), 1 - clip):.6g}"

    return _table(
        ("id", "label"), [(row.id, label(row.score)) for row in rows if row.score is not None or fill is not None]
    )


def errors_csv(rows: Sequence[PredictionRow]) -> bytes:
    """Return the photos without a prediction as CSV: `id,file,reason`."""
    return _table(("id", "file", "reason"), [(row.id, row.member, row.error) for row in rows if row.error])


def _table(header: Sequence[str], lines: Sequence[Sequence[object]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([header, *lines])
    # A file name on the disk need not be UTF-8.
    return buffer.getvalue().encode(errors="backslashreplace")
