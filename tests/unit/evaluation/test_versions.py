"""Evaluation of a registered version: its metrics, where they are kept, and the report."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pawcast_infra.local import drawn_photos

from pawcast.errors import NotFoundError, StoreAccessError
from pawcast.evaluation import versions
from pawcast.evaluation.reports.curves import draw_curves
from pawcast.evaluation.versions import evaluate_version
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import predict_scores
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
    assert (result["model"], result["on"], result["photos"], result["unusable"]) == ("pets@1", "source-photos", 10, 0)
    assert result["report"] == str(tmp_path / "report" / "report.html")
    assert calls[-1] == ("evaluating", 10)
    kept = json.loads(store.get("models/pets/evaluations/1-source-photos.json"))
    assert kept.pop("sha256")
    assert kept == json.loads((tmp_path / "report" / "evaluation.json").read_bytes())
    assert kept["confusion"] == result["confusion"]
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"{result['accuracy']:.2%}" in page
    assert page.count("data:image/png;base64,") == 2
    assert open_image((tmp_path / "report" / "photos.png").read_bytes()).width > 500
    assert '<th scope="row">True class</th><td>Predicted: cat</td>' in page
    right = [row[i] for i, row in enumerate(result["confusion"])]
    assert summary.splitlines()[0] == "pets@1 on 10 photos (source-photos)"
    assert f"  cat                {right[0]} of 5 right; precision " in summary
    assert f"  dog                {right[1]} of 5 right; precision " in summary


def test_a_source_named_after_a_split_keeps_the_record_of_the_split(store, tmp_path):
    photos = make_folder(tmp_path / "test", {"cat/1.png": encode(np.zeros((40, 40, 3), np.uint8))})
    store.put("models/pets/evaluations/1-test.json", b"the split's")
    evaluate_version(store, served.MODEL, labelled=photos, folder=tmp_path / "report")
    assert store.get("models/pets/evaluations/1-test.json") == b"the split's"


def test_with_keys_that_may_only_read_the_report_is_written_and_the_rest_is_said(store, tmp_path, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise StoreAccessError("The store refused the write", received="403 AccessDenied")

    photos = make_folder(tmp_path / "photos", {"cat/1.png": encode(np.zeros((40, 40, 3), np.uint8))})
    monkeypatch.setattr(versions.records, "write", refuse)
    result, summary = evaluate_version(store, served.MODEL, labelled=photos, folder=tmp_path / "report")
    assert not result["stored"]
    assert "in the report's folder only: The store refused the write. Received: 403 AccessDenied." in summary
    assert (tmp_path / "report" / "report.html").exists()
    assert (tmp_path / "report" / "evaluation.json").exists()


def test_one_class_that_is_never_predicted_gives_nulls_and_a_remark(store, tmp_path):
    black = encode(np.zeros((40, 40, 3), np.uint8))
    (score,) = predict_scores(Engine.load(store, served.MODEL), [black])
    predicted, other = ("dog", "cat") if score > 0.5 else ("cat", "dog")
    photos = make_folder(tmp_path / "photos", {f"{other}/{i}.png": black for i in range(3)})
    result, summary = evaluate_version(store, served.MODEL, labelled=photos, folder=tmp_path / "report")
    kept = (tmp_path / "report" / "evaluation.json").read_text()
    assert "NaN" not in kept
    assert json.loads(kept)["auc"] is None
    assert result["never_predicted"] == [other]
    assert result["classes"][other] == {"photos": 3, "predicted": 0, "precision": None, "recall": 0.0, "f1": 0.0}
    assert result["classes"][predicted]["recall"] is None
    remark = f"The model never predicts {other}."
    assert f"  Remark             {remark}" in summary
    assert "undefined, because all photos are of one class" in summary
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"<p>{remark}</p>" in page
    assert "nan" not in page.lower().split("<body>")[1].partition("base64,")[0]


def test_a_model_that_is_not_there_is_refused(store):
    with pytest.raises(NotFoundError):
        evaluate_version(store, "pets@2")
