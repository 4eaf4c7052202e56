"""Training curves."""

from __future__ import annotations

from matplotlib.figure import Figure

from pawcast.evaluation.reports import curves
from pawcast.evaluation.reports.curves import draw_curves
from tests.support.files import open_image


def test_the_curves_go_through_the_validated_epochs(monkeypatch):
    figures = []

    def figure(*args, **options):
        figures.append(Figure(*args, **options))
        return figures[-1]

    monkeypatch.setattr(curves, "Figure", figure)
    history = {
        "acc": [0.5, 0.7, 0.8, 0.8, 0.9],
        "val_acc": [None, 0.8, None, 0.7, 0.8],
        "loss": [0.7, 0.5, 0.4, 0.4, 0.3],
        "val_loss": [None, 0.4, None, 0.5, 0.3],
    }
    assert open_image(draw_curves(history, "run")).size == (1400, 560)
    accuracy, loss = ([line.get_xydata().tolist() for line in axes.lines] for axes in figures[0].axes)
    assert [len(line) for line in accuracy] == [5, 3, 1]
    assert accuracy[1:] == [[[2, 0.8], [4, 0.7], [5, 0.8]], [[2, 0.8]]]
    assert loss[1] == [[2, 0.4], [4, 0.5], [5, 0.3]]
    assert all(line.get_marker() == "." for axes in figures[0].axes for line in axes.lines[:2])


def test_a_run_validated_after_every_epoch_has_a_picture():
    history = {"acc": [0.5, 0.7], "val_acc": [0.6, 0.8], "loss": [0.7, 0.5], "val_loss": [0.6, 0.4]}
    assert open_image(draw_curves(history, "run")).size == (1400, 560)
