"""The Open Inference Protocol's bodies, read and written, and `/v2` over ASGI with a real small network."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import struct
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from pawcast.errors import UsageError
from pawcast.store import open_store
from pawcast_serve.api import create_api
from pawcast_serve.io import oip_codec
from pawcast_serve.limits import ServiceLimits
from pawcast_serve.service import Service
from tests.support.files import encode
from tests.support.served import ACCEPTED, MODEL, client, publish, started

INFER = "/v2/models/pets/infer"


def read(body: bytes, header: str | None = None) -> oip_codec.InferenceRequest:
    return oip_codec.parse_request(body, header, max_photos=4, max_json=10_000)


def asked(**image: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", **image}]}


def binary(tail: bytes, **image: Any) -> tuple[bytes, str]:
    head = json.dumps(asked(parameters={"binary_data_size": len(tail)}, **image)).encode()
    return head + tail, str(len(head))


def packed(*photos: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(photo)) + photo for photo in photos)


def test_bytes_come_as_binary_base64_or_the_whole_body():
    assert read(*binary(packed(b"one", b"", b"three"), shape=[3])).photos == [b"one", b"", b"three"]
    assert read(*binary(packed(b"one", b"two"), shape=[2, 1])).photos == [b"one", b"two"]
    text = base64.b64encode(b"one").decode()
    assert read(json.dumps(asked(data=[text])).encode()).photos == [b"one"]
    assert read(json.dumps(asked(data=[[text], [text]], shape=[2, 1])).encode()).photos == [b"one"] * 2
    assert read(b"any bytes", "0").photos == [b"any bytes"]


def test_pixels_come_as_binary_or_numbers():
    pixels = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    shape = list(pixels.shape)
    share = (pixels / 255).astype("<f4")
    for body, header in (
        binary(pixels.tobytes(), shape=shape, datatype="UINT8"),
        binary(share.tobytes(), shape=shape, datatype="FP32"),
        (json.dumps(asked(data=pixels.tolist(), shape=shape, datatype="UINT8")).encode(), None),
        (json.dumps(asked(data=pixels.ravel().tolist(), shape=shape, datatype="UINT8")).encode(), None),
        (json.dumps(asked(data=share.tolist(), shape=shape, datatype="FP32")).encode(), None),
    ):
        np.testing.assert_array_equal(read(body, header).photos, pixels)


@pytest.mark.parametrize(
    ("body", "header", "match"),
    [
        (b"", None, "can't be read"),
        (b"[" * 5_000, None, "can't be read"),
        (b"{}", None, "inputs"),
        (b"{}", "x", "Malformed"),
        (b"{}", "-1", "Malformed"),
        (b"{}", "3", "shorter"),
        (json.dumps({"inputs": []}).encode(), None, "named 'image'"),
        (json.dumps(asked(data=["AA=="], name="x")).encode(), None, "named 'image'"),
        (json.dumps(asked(data=["AA=="], datatype="INT8")).encode(), None, "Unknown datatype"),
        (json.dumps(asked(data=["AA=="], shape=[1, 2])).encode(), None, "Wrong shape"),
        (json.dumps(asked(data=["AA=="], shape=[True])).encode(), None, "shape"),
        (json.dumps(asked(data=["AA=="], shape=[0])).encode(), None, "shape"),
        (json.dumps(asked(data=["AA=="] * 5, shape=[5])).encode(), None, "Too many photos"),
        (json.dumps(asked(data=["AA=="] * 2)).encode(), None, "doesn't fill"),
        (json.dumps(asked(data=["{"])).encode(), None, "base64"),
        (json.dumps(asked(data=[1])).encode(), None, "base64"),
        (json.dumps(asked()).encode(), None, "either data or binary"),
        (json.dumps(asked(data=["AA=="], parameters={"binary_data_size": 1})).encode(), None, "either data or binary"),
        (json.dumps(asked(parameters={"binary_data_size": 9})).encode(), None, "what follows"),
        (json.dumps(asked(parameters={"shared_memory_region": "x"})).encode(), None, "shared_memory_region"),
        (*binary(b"abc"), "within a length"),
        (*binary(packed(b"abc")[:-1]), "within a photo"),
        (*binary(b"abc", shape=[1, 2, 2, 3], datatype="UINT8"), "doesn't fill"),
        (*binary(b"a" * 6, shape=[1, 1, 2, 3], datatype="UINT8"), "that size"),
        (*binary(b"", shape=[1, 2**40, 2**40, 3], datatype="UINT8"), "that size"),
        (*binary(struct.pack("<12f", *[float("nan")] * 12), shape=[1, 2, 2, 3], datatype="FP32"), "out of range"),
        (*binary(struct.pack("<12f", *[1.5] * 12), shape=[1, 2, 2, 3], datatype="FP32"), "out of range"),
        (json.dumps(asked(data=[256] * 12, shape=[1, 2, 2, 3], datatype="UINT8")).encode(), None, "out of range"),
        (json.dumps(asked(data=[2**70] * 12, shape=[1, 2, 2, 3], datatype="UINT8")).encode(), None, "fill"),
        (json.dumps(asked(data=["1"] * 12, shape=[1, 2, 2, 3], datatype="FP32")).encode(), None, "fill"),
        (json.dumps(asked(data=[[1], [1, 2]], shape=[1, 2, 2, 3], datatype="UINT8")).encode(), None, "ragged"),
    ],
)
def test_what_breaks_the_protocol_is_refused(body, header, match):
    with pytest.raises(UsageError, match=match):
        read(body, header)


def test_too_much_json_is_refused_before_it_is_read():
    with pytest.raises(HTTPException) as caught:
        read(b"[" * 10_001)
    assert caught.value.status_code == 413


@given(st.binary(max_size=60), st.one_of(st.none(), st.text(max_size=4), st.integers(0, 60).map(str)))
def test_no_bytes_break_the_reader(body, header):
    with contextlib.suppress(UsageError):
        read(body, header)


@given(st.binary(max_size=40), st.lists(st.integers(-1, 5), max_size=5), st.sampled_from(["BYTES", "UINT8", "FP32"]))
def test_no_tensor_breaks_the_reader(tail, shape, kind):
    with contextlib.suppress(UsageError):
        read(*binary(tail, shape=shape, datatype=kind))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory):
    """Asks a service; returns what it answers."""
    store = open_store(str(tmp_path_factory.mktemp("store")))
    publish(store)

    def ask(*requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
        async def run() -> list[httpx.Response]:
            async with client(Service(store, MODEL, ServiceLimits(photos=4))) as http:
                return [await http.request(method, path, **options) for method, path, options in requests]

        return asyncio.run(run())

    return ask


def test_health_and_metadata(answers):
    paths = ("/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/models/pets/ready", "/v2/models/pets")
    found = answers(*(("GET", path, {}) for path in (*paths, "/v2/models/pets/versions/1")))
    assert {response.status_code for response in found} == {200}
    server, again, live, ready, model, metadata, version = (response.json() for response in found)
    assert server == again
    assert server["extensions"] == ["binary_tensor_data"]
    assert (live, ready) == ({"live": True}, {"live": True, "ready": True})
    assert model == {"name": "pets", "ready": True}
    assert metadata == version
    assert metadata["versions"] == ["1"]


def test_unknown_models_and_versions_are_404(answers):
    paths = ("/v2/models/x", "/v2/models/x/ready", "/v2/models/pets/versions/9", "/v2/models/pets/versions/9/ready")
    found = answers(*(("GET", path, {}) for path in paths), ("POST", "/v2/models/x/infer", {"content": b"{}"}))
    assert {response.status_code for response in found} == {404}
    assert all(list(response.json()) == ["error"] for response in found)


def test_both_forms_answer_alike(answers, picture):
    photo = encode(picture, "PNG")
    body, header = binary(packed(photo))
    json_ = {**asked(data=[base64.b64encode(photo).decode()]), "id": "seven"}
    pixels, pixels_header = binary(picture.tobytes(), shape=[1, *picture.shape], datatype="UINT8")
    one, *found = answers(
        ("POST", "/v1/classify", {"content": photo, "headers": ACCEPTED}),
        ("POST", INFER, {"content": body, "headers": {oip_codec.HEADER: header}}),
        ("POST", INFER, {"json": json_}),
        ("POST", INFER, {"content": photo, "headers": {oip_codec.HEADER: "0"}}),
        ("POST", INFER, {"content": pixels, "headers": {oip_codec.HEADER: pixels_header}}),
        ("POST", "/v2/models/pets/versions/1/infer", {"json": json_}),
    )
    expected = one.json()["predictions"][0]
    for response in found:
        assert response.status_code == 200, response.text
        label, probability, scores = response.json()["outputs"]
        assert label["data"] == [expected["label"]]
        assert probability["data"] == [np.float32(expected["probability"])]
        assert scores["shape"] == [1, 2]
        assert scores["data"] == np.array(list(expected["scores"].values()), np.float32).tolist()
        assert (response.json()["model_name"], response.json()["model_version"]) == ("pets", "1")
    assert ["id" in response.json() for response in found] == [False, True, False, False, True]


def test_outputs_as_asked_for(answers, picture):
    wanted = [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "label"}]
    json_ = {**asked(data=[base64.b64encode(encode(picture)).decode()]), "outputs": wanted}
    all_binary = {**json_, "outputs": [], "parameters": {"binary_data_output": True}}
    some, every, unknown = answers(
        ("POST", INFER, {"json": json_}),
        ("POST", INFER, {"json": all_binary}),
        ("POST", INFER, {"json": {**json_, "outputs": [{"name": "x"}]}}),
    )
    length = int(some.headers[oip_codec.HEADER])
    scores, label = json.loads(some.content[:length])["outputs"]
    assert scores["parameters"] == {"binary_data_size": 8}
    assert np.frombuffer(some.content[length:], "<f4").sum() == pytest.approx(1)
    assert label["data"][0] in ("cat", "dog")
    length = int(every.headers[oip_codec.HEADER])
    sizes = [item["parameters"]["binary_data_size"] for item in json.loads(every.content[:length])["outputs"]]
    assert sum(sizes) == len(every.content) - length
    assert unknown.status_code == 400


def test_a_bad_photo_is_named(answers, picture):
    body, header = binary(packed(encode(picture), b"junk"), shape=[2])
    (response,) = answers(("POST", INFER, {"content": body, "headers": {oip_codec.HEADER: header}}))
    assert response.status_code == 422
    assert response.json()["error"].startswith("Photo 2 of 2 can't be used")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("binary_data", [True, False])
def test_kserves_client(tmp_path, picture, binary_data):
    import kserve

    store = open_store(str(tmp_path))
    publish(store)

    async def scenario() -> None:
        async with started(create_api(Service(store, MODEL))) as api:
            config = kserve.RESTConfig(protocol="v2", transport=httpx.ASGITransport(api))
            http = kserve.InferenceRESTClient(config)
            assert await http.is_server_live("http://test")
            assert await http.is_server_ready("http://test")
            assert await http.is_model_ready("http://test", "pets")
            pixels = kserve.InferInput("image", [2, *picture.shape], "UINT8")
            pixels.set_data_from_numpy(np.stack([picture, picture[::-1]]), binary_data=binary_data)
            asked = kserve.InferRequest("pets", [pixels], request_id="7")
            found = await http.infer("http://test", asked, model_name="pets")
            assert (found.id, found.model_name) == ("7", "pets")
            outputs = {output.name: output for output in found.outputs}
            assert outputs["scores"].as_numpy().sum() == pytest.approx(2)
            with pytest.raises(httpx.HTTPStatusError, match="Unknown model"):
                await http.infer("http://test", asked, model_name="nobody")
            await http.close()

    asyncio.run(scenario())
