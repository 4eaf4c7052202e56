"""The Open Inference Protocol's bodies: JSON, and JSON followed by binary tensors.

Sources: https://github.com/kserve/open-inference-protocol, its files
specification/protocol/inference_rest.md and specification/protocol/extension_binary_tensor.md.

The one input, `image`, holds n photos in one of these forms:

    BYTES [n] or [n, 1]   encoded photos: binary, or base64 in JSON
    UINT8 [n, h, w, 3]    RGB pixels
    FP32  [n, h, w, 3]    RGB pixels in [0, 1], rounded to 8 bits
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import re
import struct
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from starlette.exceptions import HTTPException

from pawcast.errors import UsageError
from pawcast.vision.decode import MAX_PIXELS

INPUT_NAME = "image"
OUTPUT_NAMES = ("label", "probability", "scores")
HEADER_LENGTH = "inference-header-content-length"
_PIXEL_DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype(np.uint8), "FP32": np.dtype("<f4")}
# In binary data, each element of a BYTES tensor follows its length.
_ELEMENT_LENGTH = struct.Struct("<I")

OutputTensors = dict[str, list[str] | np.ndarray]
"""By name of the output, a list of strings (`BYTES`) or a float32 array (`FP32`)."""


def _refuse(value: object) -> None:
    raise ValueError("only the binary tensor data extension is supported")


_Unsupported = Annotated[None, BeforeValidator(_refuse)]


class _Parameters(BaseModel):
    binary_data_size: Annotated[int, Field(strict=True)] | None = None
    binary_data: bool | None = None
    binary_data_output: bool = False
    shared_memory_region: _Unsupported = None
    classification: _Unsupported = None


class _Input(BaseModel):
    name: Literal["image"]
    shape: Annotated[list[Annotated[int, Field(ge=1, strict=True)]], Field(max_length=4)]
    datatype: Literal["BYTES", "UINT8", "FP32"]
    parameters: _Parameters = _Parameters()
    data: list[Any] | None = None


class _RequestedOutput(BaseModel):
    name: Literal["label", "probability", "scores"]
    parameters: _Parameters = _Parameters()


class _RequestJson(BaseModel):
    id: str | None = None
    parameters: _Parameters = _Parameters()
    inputs: Annotated[list[_Input], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[_RequestedOutput], Field(max_length=16)] = []


class InferenceRequest(NamedTuple):
    """A parsed inference request.

    Attributes:
        id: The client's name for the request, which the response repeats; None without one.
        photos: Encoded files, or pixels: uint8 [h, w, 3], RGB.
        outputs: The outputs to send, each with whether it is sent as binary data.
    """

    id: str | None
    photos: list[bytes] | list[np.ndarray]
    outputs: dict[str, bool]


def parse_request(body: bytes, header_length: str | None, max_photos: int, max_json: int) -> InferenceRequest:
    """Parse the body of an inference request.

    Args:
        body: The whole body.
        header_length: The header `Inference-Header-Content-Length`: the bytes of JSON before the
            binary data. 0 means that the body is one encoded photo.
        max_photos: Most photos.
        max_json: Most bytes of JSON.

    Raises:
        UsageError: If the body breaks the protocol, or asks for what this model doesn't have.
        HTTPException: 413 if there is too much JSON.
    """
    json_length = len(body) if header_length is None else _parse_json_length(header_length, len(body))
    if header_length is not None and json_length == 0:
        return InferenceRequest(None, [body], dict.fromkeys(OUTPUT_NAMES, False))
    if json_length > max_json:
        line = f"The JSON part is {json_length:,} bytes, more than {max_json:,}; send tensors as binary data."
        raise HTTPException(413, line)
    try:
        request = _RequestJson.model_validate_json(body[:json_length])
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        received = f"{field}: {first['msg']}" if field else first["msg"]
        raise UsageError("The request can't be read", received=received) from None
    photos = _parse_photos(request.inputs[0], body[json_length:], max_photos)
    binary = request.parameters.binary_data_output
    outputs: dict[str, bool] = {
        output.name: binary if output.parameters.binary_data is None else output.parameters.binary_data
        for output in request.outputs
    }
    return InferenceRequest(request.id, photos, outputs or dict.fromkeys(OUTPUT_NAMES, binary))


def encode_response(
    model: dict[str, str], tensors: OutputTensors, request: InferenceRequest
) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of an inference response.

    Args:
        model: `model_name` and `model_version`.
        tensors: All outputs.
        request: Says which outputs to send, and in which form.
    """
    outputs, binary_data = [], []
    for name, binary in request.outputs.items():
        output, data = _encode_output(name, tensors[name], binary)
        outputs.append(output)
        binary_data.append(data)
    response = {**model, **({"id": request.id} if request.id is not None else {}), "outputs": outputs}
    head = json.dumps(response).encode()
    if not any(request.outputs.values()):
        return head, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return b"".join([head, *binary_data]), headers


def _parse_json_length(header_length: str, body_length: int) -> int:
    if not re.fullmatch("[0-9]{1,15}", header_length) or int(header_length) > body_length:
        received, expected = repr(header_length[:20]), f"a number up to {body_length}, the bytes of the body"
        raise UsageError("Malformed Inference-Header-Content-Length", received=received, expected=expected)
    return int(header_length)


def _parse_photos(tensor: _Input, binary_data: bytes, max_photos: int) -> list[bytes] | list[np.ndarray]:
    shape, size = tensor.shape, tensor.parameters.binary_data_size
    if tensor.datatype in _PIXEL_DTYPES:
        fits, expected = len(shape) == 4 and shape[3] == 3, "[n, height, width, 3]"
    else:
        fits, expected = len(shape) == 1 or shape[1:] == [1], "[n] or [n, 1]"
    if not fits:
        raise UsageError(f"Wrong shape for {tensor.datatype}", received=shape, expected=expected)
    if shape[0] > max_photos:
        raise UsageError("Too many photos", received=shape[0], expected=f"at most {max_photos}")
    if (size is None) == (tensor.data is None):
        raise UsageError("The input needs either data or binary_data_size", received="both" if size else "neither")
    if (size or 0) != len(binary_data):
        raise UsageError("binary_data_size isn't what follows the JSON", received=size, expected=len(binary_data))
    if tensor.datatype in _PIXEL_DTYPES:
        return list(_parse_pixels(tensor, binary_data))
    if tensor.data is None:
        return _split_elements(binary_data, shape[0])
    return _decode_base64(tensor.data, shape[0])


def _parse_pixels(tensor: _Input, binary_data: bytes) -> np.ndarray:
    """Return uint8 [n, h, w, 3]."""
    datatype, shape = tensor.datatype, tensor.shape
    if shape[1] * shape[2] > MAX_PIXELS:
        expected = f"at most {MAX_PIXELS:,} pixels"
        raise UsageError("Photos of that size can't be used", received=f"{shape[2]}x{shape[1]}", expected=expected)
    values = np.empty(0)
    # A ragged array, or bytes that don't fill the last number, raise ValueError.
    with contextlib.suppress(ValueError):
        if tensor.data is None:
            values = np.frombuffer(binary_data, _PIXEL_DTYPES[datatype])
        elif len(tensor.data) in (*shape, math.prod(shape)):
            values = np.array(tensor.data)
    if values.dtype.kind not in ("iu" if datatype == "UINT8" else "iuf") or values.size != math.prod(shape):
        expected = f"numbers of {datatype}, flat or of shape {shape}"
        raise UsageError("The data doesn't fill the shape", expected=expected)
    highest = 255 if datatype == "UINT8" else 1
    # Written so that NaN fails too.
    if not (values.min() >= 0 and values.max() <= highest):
        raise UsageError("Pixels out of range", expected=f"0 to {highest} for {datatype}")
    values = values.reshape(shape)
    return values.astype(np.uint8) if datatype == "UINT8" else np.rint(values * np.float32(255)).astype(np.uint8)


def _decode_base64(data: list[Any], count: int) -> list[bytes]:
    # The protocol allows [[a], [b]] and [a, b] alike.
    flat = [element for item in data[: count + 1] for element in (item if isinstance(item, list) else [item])]
    if len(flat) != count:
        raise UsageError("The data doesn't fill the shape", expected=f"{count} photos")
    try:
        return [base64.b64decode(element, validate=True) for element in flat]
    except (TypeError, ValueError):
        raise UsageError("The data isn't base64", expected="each photo's file as base64, or binary data") from None


def _split_elements(binary_data: bytes, count: int) -> list[bytes]:
    """Split the binary data of a BYTES tensor into its elements."""
    elements: list[bytes] = []
    end = 0
    for number in range(1, count + 1):
        start = end + _ELEMENT_LENGTH.size
        if start <= len(binary_data):
            end = start + _ELEMENT_LENGTH.unpack_from(binary_data, end)[0]
        if max(start, end) > len(binary_data):
            raise UsageError(f"The binary data ends within photo {number} of {count}")
        elements.append(binary_data[start:end])
    if end < len(binary_data):
        raise UsageError("The binary data holds more photos than its shape", expected=count)
    return elements


def _encode_output(name: str, values: list[str] | np.ndarray, binary: bool) -> tuple[dict[str, Any], bytes]:
    """Return an output's JSON, and its binary data, which is empty if the data is in the JSON."""
    output: dict[str, Any] = {"name": name}
    if isinstance(values, list):
        output |= {"datatype": "BYTES", "shape": [len(values)]}
        words = [value.encode() for value in values]
        data = b"".join(part for word in words for part in (_ELEMENT_LENGTH.pack(len(word)), word))
    else:
        output |= {"datatype": "FP32", "shape": list(values.shape)}
        data = values.astype("<f4").tobytes()
    if binary:
        return {**output, "parameters": {"binary_data_size": len(data)}}, data
    return {**output, "data": values if isinstance(values, list) else values.ravel().tolist()}, b""
