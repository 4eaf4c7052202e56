"""A confusion matrix as a PNG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure


def draw_confusion(confusion: np.ndarray | Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """Draw a confusion matrix.

    Args:
        confusion: Counts, integers [classes, classes]: the true class, then the predicted one.
        classes: Their names; long ones are wrapped.

    Returns:
        A PNG, 560 x 490 pixels.
    """
    counts = np.asarray(confusion)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    figure = Figure(figsize=(4, 3.5), dpi=140, layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        share = shares[row, column]
        color = "white" if share > 0.5 else "#1c1c1c"
        # A class without photos has no shares.
        percent = f"{share:.1%}" if totals[row, 0] else "–"
        axes.text(column, row, f"{count:,}\n{percent}", ha="center", va="center", color=color, fontsize=12)
    axes.set_xticks(range(len(classes)), [textwrap.fill(name, 16) for name in classes])
    axes.set_yticks(range(len(classes)), [textwrap.fill(name, 12) for name in classes])
    axes.set_xlabel("Predicted class")
    axes.set_ylabel("True class")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
