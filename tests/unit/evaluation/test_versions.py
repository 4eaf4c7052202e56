"""Evaluation of a registered version: its metrics, where they are kept, and the report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pawcast_infra.local import drawn_photos

from pawcast.errors import NotFoundError
from pawcast.evaluation.reports.curves import draw_curves
from pawcast.evaluation.versions import evaluate_version
from pawcast.store import Store, open_store
from tests.support import served
from tests.support.files import encode, make_folder, open_image


@pytest.fixture
def store(tmp_path) -> Store:
    """A store with one untrained version."""
    store = open_store(str(tmp_path / "store"))
    history = {"acc": [0.5], "val_acc": [0.6], "loss": [0.7], "val_loss": [0.6]}
    served.publish(store, curves=draw_curves(history, "run"))
    return store


def test_a_version_is_evaluated_on_labelled_photos(store, tmp_path):
    photos = make_folder(
        tmp_path / "photos",
        {
            f"{name}/{i}.png": encode(np.asarray(drawn_photos.draw(label, 0, i)))
            for label, name in enumerate(("cat", "dog"))
            for i in range(5)
        },
    )
    calls = []
    result, summary = evaluate_version(
        store,
        served.MODEL,
        labelled=photos,
        folder=tmp_path / "report",
        progress=lambda stage, done, total, *_: calls.append((stage, done)),
    )
    assert (result["model"], result["on"], result["photos"], result["unusable"]) == ("pets@1", "photos", 10, 0)
    assert result["report"] == str(tmp_path / "report" / "report.html")
    assert calls[-1] == ("evaluating", 10)
    kept = json.loads(store.get("models/pets/evaluations/1-photos.json"))
    assert kept.pop("sha256")
    assert kept == json.loads((tmp_path / "report" / "evaluation.json").read_bytes())
    assert kept["confusion"] == result["confusion"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"{result['accuracy']:.2%}" in page
    assert page.count("data:image/png;base64,") == 3
    for name in ("confusion.png", "photos.png"):
        assert open_image((tmp_path / "report" / name).read_bytes()).width > 500
    right = [row[i] for i, row in enumerate(result["confusion"])]
    assert summary.splitlines()[0] == "pets@1 on 10 photos (photos)"
    assert f"  cat       {right[0]} of 5 right" in summary
    assert f"  dog       {right[1]} of 5 right" in summary


def test_a_model_that_is_not_there_is_refused(store):
    with pytest.raises(NotFoundError):
        evaluate_version(store, "pets@2")
