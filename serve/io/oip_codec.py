"""The Open Inference Protocol's bodies: JSON, and JSON followed by binary tensors.

Source: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md and
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/extension_binary_tensor.md

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

INPUT = "image"
HEADER = "inference-header-content-length"
_PIXELS: dict[str, np.dtype[Any]] = {"UINT8": np.dtype(np.uint8), "FP32": np.dtype("<f4")}
_DATATYPES = ("BYTES", *_PIXELS)
_LENGTH = struct.Struct("<I")
_UNREAD = ("shared_memory_region", "classification")

Parameters = dict[str, Any]


class _Input(BaseModel):
    name: str
    shape: list[Annotated[int, Field(ge=1, strict=True)]]
    datatype: str
    parameters: Parameters = {}
    data: list[Any] | None = None


class _Output(BaseModel):
    name: str
    parameters: Parameters = {}


class _Body(BaseModel):
    id: str | None = None
    parameters: Parameters = {}
    inputs: list[_Input]
    outputs: list[_Output] = []


class InferenceRequest(NamedTuple):
    """What a client asks.

    Attributes:
        id: The client's own name for the request, to be sent back.
        photos: Encoded files, or uint8 [h, w, 3].
        outputs: The wanted outputs, and whether as binary; empty for all of them as JSON or binary.
        binary: Whether outputs are binary unless they say otherwise.
    """

    id: str | None
    photos: list[bytes] | list[np.ndarray]
    outputs: dict[str, bool]
    binary: bool


class Output(NamedTuple):
    """A tensor to send: `BYTES` of text, or `FP32`."""

    name: str
    values: list[str] | np.ndarray


def parse_request(body: bytes, header_length: str | None, max_photos: int, max_json: int) -> InferenceRequest:
    """Read an inference request.

    Args:
        body: All of it.
        header_length: The value of `Inference-Header-Content-Length`; 0 means that the body is one encoded photo.
        max_photos: Most photos.
        max_json: Most bytes of JSON.

    Raises:
        UsageError: If it isn't as the protocol or this model want it.
        HTTPException: 413 if there is too much JSON.
    """
    if header_length is not None and not re.fullmatch("[0-9]{1,15}", header_length):
        raise UsageError("Malformed Inference-Header-Content-Length", received=header_length[:20], expected="a number")
    length = len(body) if header_length is None else int(header_length)
    if length > len(body):
        raise UsageError("The body is shorter than its Inference-Header-Content-Length", received=len(body))
    if header_length is not None and length == 0:
        return InferenceRequest(None, [body], {}, binary=False)
    if length > max_json:
        line = f"The JSON part is {length:,} bytes; at most {max_json:,} are read. Send tensors as binary."
        raise HTTPException(413, line)
    try:
        asked = _Body.model_validate_json(body[:length])
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError("The request can't be read", received=f"{place}: {first['msg']}" if place else first["msg"]) \
            from None  # fmt: skip
    names = [item.name for item in asked.inputs]
    if names != [INPUT]:
        raise UsageError("Wrong inputs", received=", ".join(names)[:100] or "none", expected=f"one, named {INPUT!r}")
    parameters = [asked.parameters, asked.inputs[0].parameters, *(output.parameters for output in asked.outputs)]
    for name in _UNREAD:
        if any(name in item for item in parameters):
            raise UsageError(f"The extension with {name} isn't offered", expected="the binary tensor data extension")
    photos = _photos(asked.inputs[0], body[length:], max_photos)
    binary = asked.parameters.get("binary_data_output") is True
    outputs = {item.name: item.parameters.get("binary_data", binary) is True for item in asked.outputs}
    return InferenceRequest(asked.id, photos, outputs, binary)


def encode_response(
    facts: dict[str, Any], outputs: list[Output], asked: InferenceRequest
) -> tuple[bytes, dict[str, str]]:
    """Return an inference response's body and headers.

    Args:
        facts: The other members of the response.
        outputs: All there are.
        asked: Which of them to send, and how.

    Raises:
        UsageError: If one is wanted that there isn't.
    """
    there = {output.name: output for output in outputs}
    wanted = asked.outputs or dict.fromkeys(there, asked.binary)
    described, tail = [], []
    for name, binary in wanted.items():
        if name not in there:
            raise UsageError("Unknown output", received=repr(name[:100]), expected=f"one of {', '.join(there)}")
        values = there[name].values
        shape = [len(values)] if isinstance(values, list) else list(values.shape)
        item: dict[str, Any] = {
            "name": name, "datatype": "BYTES" if isinstance(values, list) else "FP32", "shape": shape,
        }  # fmt: skip
        if binary:
            data = _binary(values)
            item["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            item["data"] = values if isinstance(values, list) else values.ravel().tolist()
        described.append(item)
    response = {**facts, **({"id": asked.id} if asked.id is not None else {}), "outputs": described}
    head = json.dumps(response).encode()
    if not tail:
        return head, {"content-type": "application/json"}
    return b"".join([head, *tail]), {"content-type": "application/octet-stream", HEADER: str(len(head))}


def _photos(given: _Input, tail: bytes, most: int) -> list[bytes] | list[np.ndarray]:
    shape, kind = given.shape, given.datatype
    if kind not in _DATATYPES:
        raise UsageError("Unknown datatype", received=kind[:40], expected=f"one of {', '.join(_DATATYPES)}")
    fits = len(shape) == 4 and shape[3] == 3 if kind in _PIXELS else len(shape) == 1 or shape[1:] == [1]
    if not fits:
        expected = "[n, height, width, 3]" if kind in _PIXELS else "[n] or [n, 1]"
        raise UsageError(f"Wrong shape for {kind}", received=shape[:8], expected=expected)
    if shape[0] > most:
        raise UsageError("Too many photos", received=shape[0], expected=f"at most {most}")
    size = given.parameters.get("binary_data_size")
    if (size is None) == (given.data is None):
        raise UsageError("The input needs either data or binary_data_size", received="both" if size else "neither")
    if (size or 0) != len(tail) or isinstance(size, bool):
        raise UsageError("binary_data_size isn't what follows the JSON", received=size, expected=len(tail))
    if kind == "BYTES":
        photos = _decoded(given.data) if given.data is not None else _split(tail)
        if len(photos) != shape[0]:
            raise UsageError("The data doesn't fill the shape", received=len(photos), expected=shape[0])
        return photos
    if min(shape[1:3]) < MIN_SIDE or shape[1] * shape[2] > MAX_PIXELS:
        raise UsageError("Photos of that size can't be used", received=f"{shape[2]}x{shape[1]}")
    return list(_pixels(kind, shape, given.data, tail))


def _pixels(kind: str, shape: list[int], data: list[Any] | None, tail: bytes) -> np.ndarray:
    want = _PIXELS[kind]
    if data is None:
        if len(tail) != math.prod(shape) * want.itemsize:
            raise UsageError("The data doesn't fill the shape", received=f"{len(tail):,} bytes", expected=shape)
        values = np.frombuffer(tail, want)
    else:
        try:
            values = np.array(data)
        except ValueError:
            raise UsageError("The data is ragged", expected=f"numbers, flat or of shape {shape}") from None
        if values.dtype.kind not in ("iu" if kind == "UINT8" else "iuf") or values.size != math.prod(shape):
            raise UsageError("The data doesn't fill the shape with numbers", expected=f"{kind} of shape {shape}")
    highest = 255 if kind == "UINT8" else 1
    # Written so that a NaN fails it.
    if not (values.min() >= 0 and values.max() <= highest):
        raise UsageError("Pixels out of range", expected=f"0 to {highest} for {kind}")
    values = values.reshape(shape)
    return values.astype(np.uint8) if kind == "UINT8" else np.rint(values * np.float32(255)).astype(np.uint8)


def _decoded(data: list[Any]) -> list[bytes]:
    # [[a], [b]] is the same as [a, b].
    flat = [part for item in data for part in (item if isinstance(item, list) else [item])]
    try:
        return [base64.b64decode(item, validate=True) for item in flat]
    except (binascii.Error, TypeError, ValueError):
        raise UsageError("The data isn't base64", expected="each photo's file as base64, or binary data") from None


def _split(tail: bytes) -> list[bytes]:
    photos, at = [], 0
    while at < len(tail):
        if at + _LENGTH.size > len(tail):
            raise UsageError("The binary data ends within a length")
        (size,) = _LENGTH.unpack_from(tail, at)
        at += _LENGTH.size
        if at + size > len(tail):
            raise UsageError("The binary data ends within a photo", received=len(tail) - at, expected=size)
        photos.append(tail[at : at + size])
        at += size
    return photos


def _binary(values: list[str] | np.ndarray) -> bytes:
    if isinstance(values, list):
        words = [value.encode() for value in values]
        return b"".join(part for word in words for part in (_LENGTH.pack(len(word)), word))
    return values.astype("<f4").tobytes()
