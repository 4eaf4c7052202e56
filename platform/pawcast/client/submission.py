"""Kaggle's submission form: `id,label`, the label being the probability of a dog."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from pawcast.client.journal import PredictionRow


def predictions_csv(rows: Sequence[PredictionRow]) -> bytes:
    """Return the predictions as CSV, one line for each row with a score, in the rows' order.

    Source: https://www.kaggle.com/c/dogs-vs-cats-redux-kernels-edition/overview/evaluation
    """
    return _table(("id", "label"), [(row.id, f"{row.score:.6f}") for row in rows if row.score is not None])


def errors_csv(rows: Sequence[PredictionRow]) -> bytes:
    """Return the photos without a prediction as CSV: `id,file,reason`."""
    return _table(("id", "file", "reason"), [(row.id, row.member, row.error) for row in rows if row.error])


def _table(header: Sequence[str], lines: Sequence[Sequence[object]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([header, *lines])
    # A file name on the disk need not be UTF-8.
    return buffer.getvalue().encode(errors="backslashreplace")
