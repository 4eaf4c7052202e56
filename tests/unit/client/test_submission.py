"""The files of a bulk run's results."""

from __future__ import annotations

import pytest

from pawcast.client.journal import PredictionRow
from pawcast.client.submission import errors_csv, predictions_csv

ROWS = [
    PredictionRow("1", "test/1.jpg", 0.25, None),
    PredictionRow("a,b", "test/a,b.jpg", 1.0, None),
    PredictionRow("2", "test/2.jpg", None, "truncated"),
    PredictionRow("3", "test/\udcff.jpg", None, "empty file"),
]


def test_predictions_have_one_line_for_each_score_in_order():
    assert predictions_csv(ROWS) == b'id,label\n1,0.25\n"a,b",0.995\n'
    assert predictions_csv(ROWS, clip=0) == b'id,label\n1,0.25\n"a,b",1\n'


def test_labels_are_1_or_0_whatever_the_clip():
    rows = [PredictionRow(str(score), "", score, None) for score in (0.0, 0.5, 0.500001, 1.0)]
    assert predictions_csv(rows, "labels") == b"id,label\n0.0,0\n0.5,0\n0.500001,1\n1.0,1\n"


@pytest.mark.parametrize(
    ("score", "clip", "text"),
    [
        (0.123456789, 0.005, "0.123457"),
        (0.00123456789, 0, "0.00123457"),
        (1e-9, 0, "1e-09"),
        (0.99999999, 0, "1"),
        (1e-9, 0.02, "0.02"),
        (0.9, 0.5, "0.5"),
    ],
)
def test_probabilities_have_six_significant_digits_and_are_clipped(score, clip, text):
    assert predictions_csv([PredictionRow("1", "", score, None)], clip=clip) == f"id,label\n1,{text}\n".encode()


def test_photos_without_a_score_are_filled_if_asked():
    assert predictions_csv(ROWS, fill=0.5) == b'id,label\n1,0.25\n"a,b",0.995\n2,0.5\n3,0.5\n'
    assert predictions_csv(ROWS, "labels", fill=0) == b'id,label\n1,0\n"a,b",1\n2,0\n3,0\n'


def test_errors_have_one_line_for_each_reason_whatever_the_file_is_called():
    assert errors_csv(ROWS) == b"id,file,reason\n2,test/2.jpg,truncated\n3,test/\\udcff.jpg,empty file\n"
