"""Predictions in process: in order, errors in their place, few batches in memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from pawcast.errors import ImageError
from pawcast.inference.batcher import MAX_BATCH, MAX_CONCURRENT_BATCHES
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import predict_scores, to_prediction
from tests.support.files import encode
from tests.support.networks import flat, noise
from tests.support.served import version


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(version(48), flat(), "float32")


@pytest.mark.parametrize(
    ("score", "label", "probability"), [(0.25, "cat", 0.75), (0.5, "cat", 0.5), (0.75, "dog", 0.75)]
)
def test_a_prediction_has_the_more_probable_class(score, label, probability):
    prediction = to_prediction(score, ["cat", "dog"])
    assert (prediction.label, prediction.probability) == (label, probability)
    assert prediction.scores == {"cat": 1 - score, "dog": score}


def test_scores_come_in_order_and_errors_in_their_place(engine):
    pixels = noise(MAX_BATCH + 5, 48)
    passed_on = ImageError("quarantined")
    photos: list[bytes | ImageError] = [encode(photo) for photo in pixels]
    photos[3:3] = [b"junk", passed_on]
    scores = list(predict_scores(engine, photos))
    assert isinstance(scores[3], ImageError)
    assert scores[4] is passed_on
    assert scores[:3] + scores[5:] == engine.predict(pixels).tolist()
    assert list(predict_scores(engine, [b"junk"] * 2 + [passed_on]))[2] is passed_on
    assert list(predict_scores(engine, [])) == []


def test_only_a_few_batches_are_read_ahead(engine):
    read = 0

    def photos() -> Iterator[bytes]:
        nonlocal read
        data = encode(np.zeros((8, 8, 3), np.uint8))
        for _ in range(20 * MAX_BATCH):
            read += 1
            yield data

    next(scores := predict_scores(engine, photos()))
    assert read <= (MAX_CONCURRENT_BATCHES + 2) * MAX_BATCH
    scores.close()


def test_predictions_batches_and_the_fallback_need_no_tensorflow():
    modules = "pawcast.inference.predictor, pawcast.inference.batcher, pawcast.inference.precision.fallback"
    code = f"import sys, {modules}; sys.exit(any(m in sys.modules for m in ('ray', 'tensorflow', 'keras')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
