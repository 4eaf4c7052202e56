"""Accuracy and loss over the epochs, as a PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

TRAIN, VAL, GRID = "#c8752d", "#1f5f8b", "#dddddd"


def draw_curves(history: Mapping[str, Sequence[float | None]], title: str) -> bytes:
    """Draw a run's curves, each with a marker at every epoch that has a value.

    Args:
        history: `acc`, `val_acc`, `loss` and `val_loss`, one value an epoch; None for an epoch
            without validation. At least one epoch was validated.
        title: Of the picture.

    Returns:
        A PNG, 1,400 x 560 pixels.
    """
    figure = Figure(figsize=(10, 4), dpi=140, layout="constrained")
    figure.suptitle(title, fontsize=11)
    accuracy, loss = figure.subplots(1, 2)
    best, value = max(_points(history["val_acc"]), key=lambda point: (point[1], -point[0]))
    _plot(accuracy, history["acc"], history["val_acc"], f"Accuracy: {value:.1%} in the best epoch, {best}")
    accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
    accuracy.plot(best, value, "o", color=VAL)
    _plot(loss, history["loss"], history["val_loss"], "Loss (binary cross-entropy)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _plot(axes: Axes, train: Sequence[float | None], val: Sequence[float | None], name: str) -> None:
    style: dict[str, Any] = {"linewidth": 1.8, "marker": "."}
    axes.plot(*zip(*_points(train), strict=True), color=TRAIN, label="training, augmented", **style)
    axes.plot(*zip(*_points(val), strict=True), color=VAL, label="validation", **style)
    axes.set_title(name, loc="left", fontsize=10)
    axes.set_xlabel("Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.15)
    axes.grid(color=GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)


def _points(values: Sequence[float | None]) -> list[tuple[int, float]]:
    """Return (epoch, value) for each epoch, counted from 1, that has a value."""
    return [(epoch, value) for epoch, value in enumerate(values, 1) if value is not None]
