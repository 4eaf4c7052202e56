"""Confusion matrices."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from pawcast.evaluation.reports import confusion
from pawcast.evaluation.reports.confusion import draw_confusion
from tests.support.files import open_image


@pytest.mark.parametrize(
    ("counts", "classes"),
    [([[5, 1], [2, 8]], ["cat", "dog"]), (np.array([[5, 1], [0, 0]]), ["Golden Retriever", "Siamese"])],
)
def test_the_size_does_not_depend_on_counts_and_names(counts, classes):
    assert open_image(draw_confusion(counts, classes)).size == (560, 490)


def test_classes_are_shown_by_their_names(monkeypatch):
    figures = []
    monkeypatch.setattr(confusion, "Figure", lambda **options: figures.append(Figure(**options)) or figures[-1])
    draw_confusion([[5, 1], [2, 8]], ["sheep", "ox"])
    (axes,) = figures[0].axes
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["sheep", "ox"]
    assert [text.get_text() for text in axes.texts] == ["5\n83.3%", "1\n16.7%", "2\n20.0%", "8\n80.0%"]
