"""Requests of the Open Inference Protocol."""

from __future__ import annotations

import json
import struct
from typing import Any


def json_request(**image: Any) -> dict[str, Any]:
    """Return the JSON of a request with one input, `image`."""
    return {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", **image}]}


def binary_request(data: bytes, **image: Any) -> tuple[bytes, str]:
    """Return a body with binary data, and the header that says where the data begins."""
    head = json.dumps(json_request(parameters={"binary_data_size": len(data)}, **image)).encode()
    return head + data, str(len(head))


def pack(*photos: bytes) -> bytes:
    """Return the binary data of a BYTES tensor: each element after its length."""
    return b"".join(struct.pack("<I", len(photo)) + photo for photo in photos)
