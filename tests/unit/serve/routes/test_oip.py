"""`/v2` over ASGI with a small network: health, metadata, inference, KServe's client."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest

from pawcast.store import Store
from pawcast_serve.api import create_api
from pawcast_serve.classifier import Classifier
from pawcast_serve.io import oip_codec
from pawcast_serve.limits import ServiceLimits
from tests.support.files import encode
from tests.support.oip import binary_request, json_request, pack
from tests.support.served import IMAGE_HEADERS, MODEL, client, running

INFER = "/v2/models/pets/infer"


@pytest.fixture(scope="module")
def send_all(model_store: Store):
    """Send requests to a service that takes at most four photos; return the responses."""

    def send(*requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
        async def run() -> list[httpx.Response]:
            async with client(Classifier(model_store, MODEL, ServiceLimits(photos=4))) as http:
                return [await http.request(method, path, **options) for method, path, options in requests]

        return asyncio.run(run())

    return send


def test_health_and_metadata(send_all):
    paths = ("/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/models/pets/ready", "/v2/models/pets")
    responses = send_all(*(("GET", path, {}) for path in (*paths, "/v2/models/pets/versions/1")))
    assert {response.status_code for response in responses} == {200}
    server, again, live, ready, model, metadata, version = (response.json() for response in responses)
    assert server == again
    assert server["extensions"] == ["binary_tensor_data"]
    assert (live, ready) == ({"live": True}, {"live": True, "ready": True})
    assert model == {"name": "pets", "ready": True}
    assert metadata == version
    assert metadata["versions"] == ["1"]


def test_unknown_models_and_versions_are_404(send_all):
    paths = ("/v2/models/x", "/v2/models/x/ready", "/v2/models/pets/versions/9", "/v2/models/pets/versions/9/ready")
    responses = send_all(*(("GET", path, {}) for path in paths), ("POST", "/v2/models/x/infer", {"content": b"{}"}))
    assert {response.status_code for response in responses} == {404}
    assert all(list(response.json()) == ["error"] for response in responses)


def test_json_and_binary_requests_get_the_same_scores(send_all, picture):
    photo = encode(picture, "PNG")
    body, header = binary_request(pack(photo))
    json_body = {**json_request(data=[base64.b64encode(photo).decode()]), "id": "seven"}
    pixels, pixels_header = binary_request(picture.tobytes(), shape=[1, *picture.shape], datatype="UINT8")
    one, *responses = send_all(
        ("POST", "/v1/classify", {"content": photo, "headers": IMAGE_HEADERS}),
        ("POST", INFER, {"content": body, "headers": {oip_codec.HEADER_LENGTH: header}}),
        ("POST", INFER, {"json": json_body}),
        ("POST", INFER, {"content": photo, "headers": {oip_codec.HEADER_LENGTH: "0"}}),
        ("POST", INFER, {"content": pixels, "headers": {oip_codec.HEADER_LENGTH: pixels_header}}),
        ("POST", "/v2/models/pets/versions/1/infer", {"json": json_body}),
    )
    expected = one.json()["predictions"][0]
    for response in responses:
        assert response.status_code == 200, response.text
        label, probability, scores = response.json()["outputs"]
        assert label["data"] == [expected["label"]]
        assert probability["data"] == [np.float32(expected["probability"])]
        assert scores["shape"] == [1, 2]
        assert scores["data"] == np.array(list(expected["scores"].values()), np.float32).tolist()
        assert (response.json()["model_name"], response.json()["model_version"]) == ("pets", "1")
    assert ["id" in response.json() for response in responses] == [False, True, False, False, True]


def test_outputs_are_sent_as_requested(send_all, picture):
    wanted = [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "label"}]
    json_body = {**json_request(data=[base64.b64encode(encode(picture)).decode()]), "outputs": wanted}
    all_binary = {**json_body, "outputs": [], "parameters": {"binary_data_output": True}}
    some, every, unknown = send_all(
        ("POST", INFER, {"json": json_body}),
        ("POST", INFER, {"json": all_binary}),
        ("POST", INFER, {"json": {**json_body, "outputs": [{"name": "x"}]}}),
    )
    length = int(some.headers[oip_codec.HEADER_LENGTH])
    scores, label = json.loads(some.content[:length])["outputs"]
    assert scores["parameters"] == {"binary_data_size": 8}
    assert np.frombuffer(some.content[length:], "<f4").sum() == pytest.approx(1)
    assert label["data"][0] in ("cat", "dog")
    length = int(every.headers[oip_codec.HEADER_LENGTH])
    sizes = [item["parameters"]["binary_data_size"] for item in json.loads(every.content[:length])["outputs"]]
    assert sum(sizes) == len(every.content) - length
    assert unknown.status_code == 400


def test_a_bad_photo_fails_the_request_and_is_named(send_all, picture):
    body, header = binary_request(pack(encode(picture), b"junk"), shape=[2])
    (response,) = send_all(("POST", INFER, {"content": body, "headers": {oip_codec.HEADER_LENGTH: header}}))
    assert response.status_code == 422
    assert response.json()["error"].startswith("Photo 2 of 2 can't be used")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("binary_data", [True, False])
def test_kserves_client(model_store, picture, binary_data):
    import kserve

    async def scenario() -> None:
        async with running(create_api(Classifier(model_store, MODEL))) as api:
            config = kserve.RESTConfig(protocol="v2", transport=httpx.ASGITransport(api))
            http = kserve.InferenceRESTClient(config)
            assert await http.is_server_live("http://test")
            assert await http.is_server_ready("http://test")
            assert await http.is_model_ready("http://test", "pets")
            pixels = kserve.InferInput("image", [2, *picture.shape], "UINT8")
            pixels.set_data_from_numpy(np.stack([picture, picture[::-1]]), binary_data=binary_data)
            request = kserve.InferRequest("pets", [pixels], request_id="7")
            result = await http.infer("http://test", request, model_name="pets")
            assert (result.id, result.model_name) == ("7", "pets")
            outputs = {output.name: output for output in result.outputs}
            assert outputs["scores"].as_numpy().sum() == pytest.approx(2)
            with pytest.raises(httpx.HTTPStatusError, match="Unknown model"):
                await http.infer("http://test", request, model_name="nobody")
            await http.close()

    asyncio.run(scenario())
