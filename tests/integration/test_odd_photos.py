"""Odd photos through all routes of the service: never a 5xx, and never a changed neighbor."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from pawcast.store import open_store
from pawcast_serve.classifier import Classifier
from pawcast_serve.io.oip_codec import HEADER_LENGTH
from tests.support import malformed
from tests.support.cases import case
from tests.support.files import encode
from tests.support.oip import binary_request, json_request, pack
from tests.support.served import MODEL, form, publish, serving

INFER = "/v2/models/pets/infer"
PHOTO_CASES = ("lossless_grey_64_j8.jpg", "lossless_rgb_64_j8.jpg", "invalid_sos_se0.jpg", "xmp_orientation.jpg")


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    store = open_store(str(tmp_path_factory.mktemp("store")))
    publish(store)
    with serving(Classifier(store, MODEL)) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.mark.parametrize("name", PHOTO_CASES)
def test_photos_that_went_wrong_once(http, picture, name):
    check_all_routes(http, picture, case(name).read_bytes())


def test_photos_of_every_format_and_bombs(http, picture):
    for photo in (*malformed.samples().values(), *malformed.bombs().values(), b"", b"junk"):
        check_all_routes(http, picture, photo)


def check_all_routes(http: httpx.Client, picture: np.ndarray, photo: bytes) -> None:
    """Send a photo by each route, alone and beside good ones; all routes must agree on it."""
    first, last = encode(picture, "JPEG"), encode(picture[::-1], "PNG")
    expected = [item["scores"] for item in http.post("/v1/classify", files=form(first, last)).json()["predictions"]]
    alone = http.post("/v1/classify", content=photo)
    assert alone.status_code in (200, 422)
    beside = http.post("/v1/classify", files=form(first, photo, last))
    assert beside.status_code == 200
    before, odd, after = beside.json()["predictions"]
    assert [before["scores"], after["scores"]] == expected
    assert odd.get("scores") == alone.json()["predictions"][0].get("scores")
    body, header = binary_request(pack(first, photo), shape=[2])
    texts = [base64.b64encode(data).decode() for data in (first, photo)]
    others = [
        http.post("/v1/explain", content=photo),
        http.post(INFER, content=photo, headers={HEADER_LENGTH: "0"}),
        http.post(INFER, content=body, headers={HEADER_LENGTH: header}),
        http.post(INFER, json=json_request(data=texts, shape=[2])),
    ]
    assert {response.status_code for response in others} == {alone.status_code}
    if alone.status_code == 200:
        for response in others[2:]:
            scores = response.json()["outputs"][2]["data"]
            assert scores[:2] == np.array(list(expected[0].values()), np.float32).tolist()
            assert scores[2:] == np.array(list(odd["scores"].values()), np.float32).tolist()
