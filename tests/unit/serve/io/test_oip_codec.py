"""The Open Inference Protocol's bodies: what is parsed, and what is refused."""

from __future__ import annotations

import base64
import contextlib
import json
import struct
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from pawcast.errors import UsageError
from pawcast_serve.io import oip_codec
from tests.support.oip import binary_request, json_request, pack


def parse(body: bytes, header: str | None = None) -> oip_codec.InferenceRequest:
    return oip_codec.parse_request(body, header, max_photos=4, max_json=10_000)


def json_body(**image: Any) -> bytes:
    return json.dumps(json_request(**image)).encode()


def test_encoded_photos_are_binary_base64_or_the_whole_body():
    assert parse(*binary_request(pack(b"one", b"", b"three"), shape=[3])).photos == [b"one", b"", b"three"]
    assert parse(*binary_request(pack(b"one", b"two"), shape=[2, 1])).photos == [b"one", b"two"]
    text = base64.b64encode(b"one").decode()
    assert parse(json_body(data=[text])).photos == [b"one"]
    assert parse(json_body(data=[[text], [text]], shape=[2, 1])).photos == [b"one"] * 2
    assert parse(b"any bytes", "0").photos == [b"any bytes"]


def test_pixels_are_binary_or_numbers():
    pixels = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    shape = list(pixels.shape)
    scaled = (pixels / 255).astype("<f4")
    for body, header in (
        binary_request(pixels.tobytes(), shape=shape, datatype="UINT8"),
        binary_request(scaled.tobytes(), shape=shape, datatype="FP32"),
        (json_body(data=pixels.tolist(), shape=shape, datatype="UINT8"), None),
        (json_body(data=pixels.ravel().tolist(), shape=shape, datatype="UINT8"), None),
        (json_body(data=scaled.tolist(), shape=shape, datatype="FP32"), None),
    ):
        np.testing.assert_array_equal(parse(body, header).photos, pixels)


@pytest.mark.parametrize(
    ("body", "header", "match"),
    [
        (b"", None, "can't be read"),
        (b"[" * 5_000, None, "can't be read"),
        (b"{}", None, "inputs"),
        (b"{}", "x", "Malformed"),
        (b"{}", "-1", "Malformed"),
        (b"{}", "3", "a number up to 2"),
        (json.dumps({"inputs": []}).encode(), None, "inputs: List should have at least 1 item"),
        (json_body(data=["AA=="], name="x"), None, "Input should be 'image'"),
        (json_body(data=["AA=="], datatype="INT8"), None, "Input should be 'BYTES', 'UINT8' or 'FP32'"),
        (json_body(data=["AA=="], shape=[1, 2]), None, "Wrong shape"),
        (json_body(data=["AA=="], shape=[True]), None, "shape"),
        (json_body(data=["AA=="], shape=[0]), None, "shape"),
        (json_body(data=["AA=="] * 5, shape=[5]), None, "Too many photos"),
        (json_body(data=["AA=="] * 2), None, "doesn't fill"),
        (json_body(data=["{"]), None, "base64"),
        (json_body(data=[1]), None, "base64"),
        (json_body(), None, "either data or binary"),
        (
            json_body(data=["AA=="], parameters={"binary_data_size": 1}),
            None,
            "either data or binary",
        ),
        (json_body(parameters={"binary_data_size": 9}), None, "what follows"),
        (json_body(parameters={"shared_memory_region": "x"}), None, "shared_memory_region"),
        (*binary_request(b"abc"), "within photo 1 of 1"),
        (*binary_request(pack(b"abc")[:-1]), "within photo 1 of 1"),
        (*binary_request(b"abc", shape=[1, 2, 2, 3], datatype="UINT8"), "doesn't fill"),
        (*binary_request(b"", shape=[1, 2**40, 2**40, 3], datatype="UINT8"), "that size"),
        (
            *binary_request(struct.pack("<12f", *[float("nan")] * 12), shape=[1, 2, 2, 3], datatype="FP32"),
            "out of range",
        ),
        (*binary_request(struct.pack("<12f", *[1.5] * 12), shape=[1, 2, 2, 3], datatype="FP32"), "out of range"),
        (
            json_body(data=[256] * 12, shape=[1, 2, 2, 3], datatype="UINT8"),
            None,
            "out of range",
        ),
        (json_body(data=[2**70] * 12, shape=[1, 2, 2, 3], datatype="UINT8"), None, "fill"),
        (json_body(data=["1"] * 12, shape=[1, 2, 2, 3], datatype="FP32"), None, "fill"),
        (json_body(data=[[1], [1, 2]], shape=[1, 2, 2, 3], datatype="UINT8"), None, "flat or of shape"),
    ],
)
def test_a_request_that_breaks_the_protocol_is_refused(body, header, match):
    with pytest.raises(UsageError, match=match):
        parse(body, header)


def test_too_much_json_is_refused_before_it_is_parse():
    with pytest.raises(HTTPException) as caught:
        parse(b"[" * 10_001)
    assert caught.value.status_code == 413


@given(st.binary(max_size=60), st.one_of(st.none(), st.text(max_size=4), st.integers(0, 60).map(str)))
def test_any_bytes_are_parsed_or_refused(body, header):
    with contextlib.suppress(UsageError):
        parse(body, header)


@given(st.binary(max_size=40), st.lists(st.integers(-1, 5), max_size=5), st.sampled_from(["BYTES", "UINT8", "FP32"]))
def test_any_tensor_is_parsed_or_refused(tail, shape, kind):
    with contextlib.suppress(UsageError):
        parse(*binary_request(tail, shape=shape, datatype=kind))


def cpu_seconds(body: bytes, header: str | None) -> float:
    started = time.process_time()
    with pytest.raises(UsageError):
        oip_codec.parse_request(body, header, 256, 8 * 2**20)
    return time.process_time() - started


def test_parsing_stops_at_the_declared_number_of_elements():
    """60 MB of empty elements once took 8.5 s of CPU, 550,000 outputs 3.6 s.

    The bounds here are generous.
    """
    empty = bytes(60 * 2**20)
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(empty)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    assert cpu_seconds(head + empty, str(len(head))) < 1
    outputs = b",".join([b'{"name":"label"}'] * 100_000)
    image = b'{"name":"image","shape":[1],"datatype":"BYTES","data":[""]}'
    assert cpu_seconds(b'{"inputs":[%s],"outputs":[%s]}' % (image, outputs), None) < 1
