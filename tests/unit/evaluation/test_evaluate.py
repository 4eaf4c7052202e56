"""Evaluation of a model on labelled photos."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pawcast.data.reader import LabelledPhoto
from pawcast.errors import DataError, ImageError
from pawcast.evaluation import evaluate as evaluate_module
from pawcast.evaluation.evaluate import evaluate
from pawcast.evaluation.metrics import compute_metrics
from pawcast.vision.preprocess import Preprocessing
from tests.support.files import encode


@pytest.fixture
def engine() -> SimpleNamespace:
    """A model whose score is a photo's brightness."""
    version = SimpleNamespace(preprocessing=Preprocessing(image_size=8))
    return SimpleNamespace(version=version, predict=lambda pixels: pixels.mean((1, 2, 3)) / 255)


def photo(level: int, label: int) -> LabelledPhoto:
    return LabelledPhoto(f"{label}-{level}", label, encode(np.full((8, 8, 3), level, np.uint8)))


def test_metrics_mistakes_and_correct_photos(engine):
    photos = [photo(level, label) for level in (0, 51, 102, 204, 255) for label in (0, 1)]
    evaluation = evaluate(engine, photos)
    scores = np.array([level / 255 for level in (0, 51, 102, 204, 255) for _ in (0, 1)])
    assert evaluation.metrics == compute_metrics(scores, np.array([0, 1] * 5))
    # Equally confident mistakes come with the later one first.
    assert [scored.id for scored in evaluation.mistakes] == ["0-255", "1-0", "0-204", "1-51", "1-102"]
    assert [scored.id for scored in evaluation.right] == ["0-0", "0-51", "0-102", "1-204", "1-255"]
    assert all(scored.wrong for scored in evaluation.mistakes)


def test_only_the_most_confident_mistakes_are_kept(engine, monkeypatch):
    monkeypatch.setattr(evaluate_module, "MAX_SHOWN", 3)
    evaluation = evaluate(engine, [photo(level, 1) for level in (90, 10, 50, 30, 70)])
    assert [scored.id for scored in evaluation.mistakes] == ["1-10", "1-30", "1-50"]


def test_unusable_photos_are_listed_and_do_not_count(engine):
    broken = [LabelledPhoto("cut", 0, b"no photo"), LabelledPhoto("gone", 1, ImageError("can't be read"))]
    evaluation = evaluate(engine, [photo(255, 1), *broken])
    assert evaluation.metrics.photos == 1
    assert [id_ for id_, _ in evaluation.unusable] == ["cut", "gone"]
    assert "can't be read" in evaluation.unusable[1][1]
    with pytest.raises(DataError, match="No photo could be evaluated"):
        evaluate(engine, broken)
    with pytest.raises(DataError, match="no photo"):
        evaluate(engine, [])


def test_progress_counts_every_photo(engine):
    calls = []
    evaluate(engine, [photo(9, 0), LabelledPhoto("cut", 0, b"")], lambda *args: calls.append(args), total=2)
    assert calls == [("evaluating", 0, 2), ("evaluating", 1, 2), ("evaluating", 2, 2)]
