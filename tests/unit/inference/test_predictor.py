"""Scores turned into predictions."""

from __future__ import annotations

from pawcast.inference.predictor import to_prediction


def test_a_prediction_names_the_likelier_class():
    assert to_prediction(0.75, ["cat", "dog"]) == ("dog", 0.75, {"cat": 0.25, "dog": 0.75})
    assert to_prediction(0.5, ["cat", "dog"]).label == "cat"
