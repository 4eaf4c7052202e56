"""The files of a bulk run's results, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from pawcast.client.journal import PredictionRow


def predictions_csv(rows: Sequence[PredictionRow]) -> bytes:
    """Return the predictions in Kaggle's submission format: `id,label`, in the rows' order.

    The label is the probability of class 1, with six decimals. Rows without a score are left out.

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
