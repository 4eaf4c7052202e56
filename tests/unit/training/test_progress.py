"""Progress of a run, as rank 0 reports it and as people see it."""

from __future__ import annotations

from typing import Any

import pytest

from pawcast.training.progress import ProgressReporter, ProgressUpdate
from tests.support.files import import_job
from tests.support.training import numbered_loader

ROW = {"loss": 0.5, "acc": 0.75, "seconds": 12.0, "validation_seconds": 2.0}


class ListQueue(list[Any]):
    put = list.append


def test_an_epoch_is_reported_with_the_rate_of_its_training_steps():
    queue = ListQueue()
    reporter = ProgressReporter(queue, numbered_loader(40, 16))
    reporter.start_epoch(3)
    reporter.end_epoch(ROW)
    assert queue == [
        ProgressUpdate(3, 3, 3, 0.5, 0.75, photos_per_second=4.0, finished=ROW),
    ]


def test_steps_are_reported_twice_a_second_with_their_recent_loss(monkeypatch):
    queue, now = ListQueue(), [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    reporter = ProgressReporter(queue, numbered_loader(40, 16))
    reporter.start_epoch(0)
    sums = [(8.0, 12.0, 16.0), (4.0, 14.0, 16.0)]
    for step, seconds in enumerate((0.2, 0.6)):
        now[0] = 100.0 + seconds
        reporter.end_step(step, sums[: step + 1])
    (update,) = queue
    assert (update.step, update.steps, update.loss, update.acc) == (2, 3, 12 / 32, 26 / 32)
    assert update.photos_per_second == pytest.approx(40 * 2 / 3 / 0.6)


def test_the_line_of_an_epoch_shows_validation_only_if_there_was_one(capsys):
    show = import_job("train").show

    def line(row: dict[str, float]) -> str:
        update = ProgressUpdate(1, 5, 5, row["loss"], row["acc"], photos_per_second=376, finished=row)
        show(update, 9, lambda *stage, **unit: None)
        return " ".join(capsys.readouterr().err.split())

    row = {**ROW, "validation_seconds": 0.0}
    assert line(row) == "epoch 2/9 loss 0.5000 acc 0.7500 12 s 376 photos/s"
    validated = "epoch 2/9 loss 0.5000 acc 0.7500 val_loss 0.4000 val_acc 0.8000 12 s 376 photos/s"
    assert line({**row, "val_acc": 0.8, "val_loss": 0.4}) == validated
