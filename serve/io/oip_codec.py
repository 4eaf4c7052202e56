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
import binascii
import json
import math
import re
import struct
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException

from pawcast.errors import UsageError
from pawcast.vision.decode import MAX_PIXELS, MIN_SIDE

INPUT_NAME = "image"
HEADER_LENGTH = "inference-header-content-length"
_PIXEL_DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype(np.uint8), "FP32": np.dtype("<f4")}
_DATATYPES = ("BYTES", *_PIXEL_DTYPES)
# In binary data, each element of a BYTES tensor follows its length.
_ELEMENT_LENGTH = struct.Struct("<I")
_UNSUPPORTED_EXTENSIONS = ("shared_memory_region", "classification")

# More than this model has; parsing more would only cost time.
_MAX_TENSORS = 16

Parameters = dict[str, Any]


class _Input(BaseModel):
    name: str
    shape: list[Annotated[int, Field(ge=1, strict=True)]]
    datatype: str
    parameters: Parameters = {}
    data: list[Any] | None = None


class _RequestedOutput(BaseModel):
    name: str
    parameters: Parameters = {}


class _RequestJson(BaseModel):
    id: str | None = None
    parameters: Parameters = {}
    inputs: Annotated[list[_Input], Field(max_length=_MAX_TENSORS)]
    outputs: Annotated[list[_RequestedOutput], Field(max_length=_MAX_TENSORS)] = []


class InferenceRequest(NamedTuple):
    """A parsed inference request.

    Attributes:
        id: The client's name for the request, which the response repeats; None without one.
        photos: Encoded files, or pixels: uint8 [h, w, 3], RGB.
        outputs: The requested outputs, each with whether it is sent as binary data. Empty for all
            outputs.
        binary_outputs: Whether outputs are sent as binary data where `outputs` is empty.
    """

    id: str | None
    photos: list[bytes] | list[np.ndarray]
    outputs: dict[str, bool]
    binary_outputs: bool


class OutputTensor(NamedTuple):
    """A tensor of the response: a list of strings (`BYTES`), or a float32 array (`FP32`)."""

    name: str
    values: list[str] | np.ndarray


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
    json_length = _parse_json_length(header_length, len(body))
    if header_length is not None and json_length == 0:
        return InferenceRequest(None, [body], {}, binary_outputs=False)
    if json_length > max_json:
        raise HTTPException(
            413, f"The JSON part is {json_length:,} bytes, more than {max_json:,}; send tensors as binary data."
        )
    request = _parse_json(body[:json_length])
    input_names = [tensor.name for tensor in request.inputs]
    if input_names != [INPUT_NAME]:
        received = ", ".join(input_names)[:100] or "none"
        raise UsageError("Wrong inputs", received=received, expected=f"one, named {INPUT_NAME!r}")
    all_parameters = [
        request.parameters,
        request.inputs[0].parameters,
        *(output.parameters for output in request.outputs),
    ]
    for extension in _UNSUPPORTED_EXTENSIONS:
        if any(extension in parameters for parameters in all_parameters):
            raise UsageError(f"Unsupported extension {extension}", expected="the binary tensor data extension")
    photos = _parse_photos(request.inputs[0], body[json_length:], max_photos)
    binary = request.parameters.get("binary_data_output") is True
    outputs = {output.name: output.parameters.get("binary_data", binary) is True for output in request.outputs}
    return InferenceRequest(request.id, photos, outputs, binary)


def encode_response(
    model: dict[str, str], tensors: list[OutputTensor], request: InferenceRequest
) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of an inference response.

    Args:
        model: `model_name` and `model_version`.
        tensors: All outputs.
        request: Says which outputs to send, and in which form.

    Raises:
        UsageError: If the request names an unknown output.
    """
    values_by_name = {tensor.name: tensor.values for tensor in tensors}
    requested = request.outputs or dict.fromkeys(values_by_name, request.binary_outputs)
    outputs, binary_data = [], []
    for name, binary in requested.items():
        if name not in values_by_name:
            raise UsageError(
                "Unknown output", received=repr(name[:100]), expected=f"one of {', '.join(values_by_name)}"
            )
        output, data = _encode_output(name, values_by_name[name], binary)
        outputs.append(output)
        binary_data.append(data)
    response = {**model, **({"id": request.id} if request.id is not None else {}), "outputs": outputs}
    head = json.dumps(response).encode()
    if not any(requested.values()):
        return head, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
    return b"".join([head, *binary_data]), headers


def _parse_json_length(header_length: str | None, body_length: int) -> int:
    if header_length is None:
        return body_length
    if not re.fullmatch("[0-9]{1,15}", header_length):
        raise UsageError("Malformed Inference-Header-Content-Length", received=header_length[:20], expected="a number")
    if int(header_length) > body_length:
        raise UsageError("The body is shorter than its Inference-Header-Content-Length", received=body_length)
    return int(header_length)


def _parse_json(content: bytes) -> _RequestJson:
    try:
        return _RequestJson.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        received = f"{field}: {first['msg']}" if field else first["msg"]
        raise UsageError("The request can't be read", received=received) from None


def _parse_photos(tensor: _Input, binary_data: bytes, max_photos: int) -> list[bytes] | list[np.ndarray]:
    _check_shape(tensor.datatype, tensor.shape, max_photos)
    size = tensor.parameters.get("binary_data_size")
    if (size is None) == (tensor.data is None):
        raise UsageError("The input needs either data or binary_data_size", received="both" if size else "neither")
    if (size or 0) != len(binary_data) or isinstance(size, bool):
        raise UsageError("binary_data_size isn't what follows the JSON", received=size, expected=len(binary_data))
    if tensor.datatype != "BYTES":
        return list(_parse_pixels(tensor, binary_data))
    if tensor.data is None:
        return _split_elements(binary_data, tensor.shape[0])
    return _decode_base64(tensor.data, tensor.shape[0])


def _check_shape(datatype: str, shape: list[int], max_photos: int) -> None:
    if datatype not in _DATATYPES:
        raise UsageError("Unknown datatype", received=datatype[:40], expected=f"one of {', '.join(_DATATYPES)}")
    if datatype in _PIXEL_DTYPES:
        fits, expected = len(shape) == 4 and shape[3] == 3, "[n, height, width, 3]"
    else:
        fits, expected = len(shape) == 1 or shape[1:] == [1], "[n] or [n, 1]"
    if not fits:
        raise UsageError(f"Wrong shape for {datatype}", received=shape[:8], expected=expected)
    if shape[0] > max_photos:
        raise UsageError("Too many photos", received=shape[0], expected=f"at most {max_photos}")


def _parse_pixels(tensor: _Input, binary_data: bytes) -> np.ndarray:
    """Return uint8 [n, h, w, 3]."""
    datatype, shape = tensor.datatype, tensor.shape
    if min(shape[1:3]) < MIN_SIDE or shape[1] * shape[2] > MAX_PIXELS:
        raise UsageError(
            "Photos of that size can't be used",
            received=f"{shape[2]}x{shape[1]}",
            expected=f"sides of at least {MIN_SIDE} and at most {MAX_PIXELS:,} pixels",
        )
    if tensor.data is None:
        dtype = _PIXEL_DTYPES[datatype]
        if len(binary_data) != math.prod(shape) * dtype.itemsize:
            raise UsageError("The data doesn't fill the shape", received=f"{len(binary_data):,} bytes", expected=shape)
        values = np.frombuffer(binary_data, dtype)
    else:
        values = _pixels_from_json(datatype, shape, tensor.data)
    highest = 255 if datatype == "UINT8" else 1
    # Written so that NaN fails too.
    if not (values.min() >= 0 and values.max() <= highest):
        raise UsageError("Pixels out of range", expected=f"0 to {highest} for {datatype}")
    values = values.reshape(shape)
    return values.astype(np.uint8) if datatype == "UINT8" else np.rint(values * np.float32(255)).astype(np.uint8)


def _pixels_from_json(datatype: str, shape: list[int], data: list[Any]) -> np.ndarray:
    try:
        values = np.array(data)
    except ValueError:
        raise UsageError("The data is ragged", expected=f"numbers, flat or of shape {shape}") from None
    if values.dtype.kind not in ("iu" if datatype == "UINT8" else "iuf") or values.size != math.prod(shape):
        raise UsageError("The data doesn't fill the shape with numbers", expected=f"{datatype} of shape {shape}")
    return values


def _decode_base64(data: list[Any], count: int) -> list[bytes]:
    # The protocol allows [[a], [b]] and [a, b] alike.
    flat = [element for item in data for element in (item if isinstance(item, list) else [item])]
    if len(flat) != count:
        raise UsageError("The data doesn't fill the shape", received=len(flat), expected=count)
    try:
        return [base64.b64decode(element, validate=True) for element in flat]
    except (binascii.Error, TypeError, ValueError):
        raise UsageError("The data isn't base64", expected="each photo's file as base64, or binary data") from None


def _split_elements(binary_data: bytes, count: int) -> list[bytes]:
    """Split the binary data of a BYTES tensor into its elements, and stop after `count`."""
    elements: list[bytes] = []
    offset = 0
    while offset < len(binary_data) and len(elements) < count:
        if offset + _ELEMENT_LENGTH.size > len(binary_data):
            raise UsageError("The binary data ends within a length")
        (length,) = _ELEMENT_LENGTH.unpack_from(binary_data, offset)
        offset += _ELEMENT_LENGTH.size
        if offset + length > len(binary_data):
            received = len(binary_data) - offset
            raise UsageError("The binary data ends within a photo", received=received, expected=length)
        elements.append(binary_data[offset : offset + length])
        offset += length
    if len(elements) < count or offset < len(binary_data):
        total = f"more than {count}" if offset < len(binary_data) else str(len(elements))
        raise UsageError("The data doesn't fill the shape", received=total, expected=count)
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
