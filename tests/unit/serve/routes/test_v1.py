"""`POST /v1/classify`: predictions, timings, errors."""

from __future__ import annotations

import gzip
import zlib

import pytest

from pawcast.inference.engine import Engine
from pawcast.inference.predictor import predict_scores
from pawcast.recipes import resolve
from pawcast.store import open_store
from pawcast.vision import preprocess
from tests.support.files import encode
from tests.support.served import IMAGE_HEADERS, MODEL, form, post, publish


def test_a_photo_has_the_same_score_as_in_process_and_version_and_timings(model_store, photo):
    response = post(model_store, content=photo, headers=IMAGE_HEADERS)
    assert response.status_code == 200
    content = response.json()
    assert content["model"] == "pets@1"
    (prediction,) = content["predictions"]
    (expected,) = predict_scores(Engine.load(model_store, MODEL), [photo])
    assert prediction["scores"]["dog"] == expected
    assert prediction["probability"] == max(prediction["scores"].values())
    assert prediction["probability"] == prediction["scores"][prediction["label"]]
    timings = content["timings"]
    assert set(timings) == {"receive", "decode", "wait", "inference", "total"}
    assert timings["total"] + 0.1 >= timings["receive"] + timings["wait"] + timings["inference"] > 0
    assert timings["wait"] + 0.1 >= timings["decode"] > 0


def test_a_photo_is_downscaled_as_the_version_asks(tmp_path, picture):
    store = open_store(str(tmp_path))
    publish(store, recipe=resolve("smoke", ["image_size=32", "eval_downscale=16"]))
    response = post(store, content=encode(picture), headers={"content-type": "image/png"})
    (prediction,) = response.json()["predictions"]
    engine = Engine.load(store, MODEL)
    downscaled, sharp = preprocess.resize(preprocess.resize(picture, 16), 32), preprocess.resize(picture, 32)
    assert prediction["scores"]["dog"] == engine.predict(downscaled[None])[0] != engine.predict(sharp[None])[0]


def test_a_bad_photo_never_fails_the_other_photos(model_store, photo, picture):
    png = encode(picture[::-1], "PNG")
    response = post(model_store, files=form(photo, b"junk", b"", photo[:300], png))
    assert response.status_code == 200
    first, *bad, last = response.json()["predictions"]
    assert [item["id"] for item in (first, *bad, last)] == [f"{i}.jpg" for i in range(5)]
    assert all(set(item) == {"id", "error"} for item in bad)
    assert set(first) == set(last) == {"id", "label", "probability", "scores"}
    expected = list(predict_scores(Engine.load(model_store, MODEL), [photo, png]))
    assert [first["scores"]["dog"], last["scores"]["dog"]] == expected


def test_only_bad_photos_get_a_422_with_the_reason_of_each(model_store):
    response = post(model_store, files=form(b"junk", b""))
    assert response.status_code == 422
    assert response.json()["error"].startswith("0.jpg can't be used")
    assert [item["error"] for item in response.json()["predictions"]][1] == "empty file"


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, {"content": b"junk", "headers": {"content-type": "multipart/form-data; boundary=x"}}),
        (400, {"content": b"junk", "headers": {"content-type": "multipart/form-data"}}),
        (400, {"data": {"photo": "text"}, "files": {}, "headers": {"content-type": "multipart/form-data"}}),
        (400, {"files": form(*[b"x"] * 5)}),
        (400, {"content": b"junk", "headers": {**IMAGE_HEADERS, "content-encoding": "gzip"}}),
        (400, {"content": gzip.compress(b"x" * 99)[:20], "headers": {**IMAGE_HEADERS, "content-encoding": "gzip"}}),
        (413, {"content": b"0" * 9_000, "headers": IMAGE_HEADERS}),
        (413, {"content": zlib.compress(b"0" * 9_000), "headers": {**IMAGE_HEADERS, "content-encoding": "deflate"}}),
        (413, {"files": form(b"0" * 9_000)}),
        (415, {"content": b"{}", "headers": {"content-type": "application/json"}}),
        (415, {"content": b"x", "headers": {**IMAGE_HEADERS, "content-encoding": "br"}}),
        (422, {"content": b"", "headers": IMAGE_HEADERS}),
    ],
)
def test_a_refused_request_gets_a_status_and_one_line(model_store, status, request_):
    response = post(model_store, limits={"body_bytes": 8_192, "photos": 4}, **request_)
    assert response.status_code == status, response.text
    assert response.json()["error"].count("\n") == 0
    assert response.headers["x-content-type-options"] == "nosniff"
