"""The files of a bulk run's results."""

from __future__ import annotations

from pawcast.client.journal import PredictionRow
from pawcast.client.submission import errors_csv, predictions_csv

ROWS = [
    PredictionRow("1", "test/1.jpg", 0.25, None),
    PredictionRow("a,b", "test/a,b.jpg", 1.0, None),
    PredictionRow("2", "test/2.jpg", None, "truncated"),
    PredictionRow("3", "test/\udcff.jpg", None, "empty file"),
]


def test_predictions_have_one_line_for_each_score_in_order():
    assert predictions_csv(ROWS) == b'id,label\n1,0.250000\n"a,b",1.000000\n'


def test_errors_have_one_line_for_each_reason_whatever_the_file_is_called():
    assert errors_csv(ROWS) == b"id,file,reason\n2,test/2.jpg,truncated\n3,test/\\udcff.jpg,empty file\n"
