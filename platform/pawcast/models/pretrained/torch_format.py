"""Read PyTorch's state dictionaries without PyTorch, and without running what a pickle names.

The format is that of `torch/serialization.py` (https://github.com/pytorch/pytorch).
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from typing import Any, NamedTuple

import numpy as np

from pawcast.errors import DataError

_STORAGE_DTYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8"}
_LEGACY_HEADERS = 3  # magic number, protocol and byte order, each a pickle, before the dictionary


class _TensorRef(NamedTuple):
    """A view of a storage, which has a type and a key; offset and strides count elements."""

    kind: str
    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(data: bytes) -> dict[str, np.ndarray]:
    """Read a PyTorch state dictionary, in the zip format or in the one before it.

    Args:
        data: The content of a `.pth` or `.pt` file.

    Returns:
        Tensors by name.

    Raises:
        DataError: If it isn't one, is damaged, or names anything but tensors.
    """
    try:
        read = _read_zip if zipfile.is_zipfile(io.BytesIO(data)) else _read_legacy
        tensors, storages = read(io.BytesIO(data))
        return {name: _to_array(tensor, storages[tensor.key]) for name, tensor in tensors.items()}
    except DataError:
        raise
    except Exception as error:  # a malformed pickle can fail in any way
        raise DataError(
            "Not a PyTorch state dictionary", received=f"{type(error).__name__}: {error}", expected="tensors by name"
        ) from None


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles dictionaries of tensors; refuses, and doesn't run, anything else a pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _TensorRef(
                storage[0], storage[1], offset, shape, strides
            )
        if module == "torch" and name in _STORAGE_DTYPES:
            return name
        raise DataError("The weights file would run code", received=f"{module}.{name}", expected="tensors only")

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, *_ = pid
        return kind, key


def _read_zip(file: io.BytesIO) -> tuple[dict[str, _TensorRef], dict[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        (index,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        tensors: dict[str, _TensorRef] = _TensorUnpickler(io.BytesIO(archive.read(index))).load()
        folder = index.removesuffix("data.pkl")
        keys = {tensor.key for tensor in tensors.values()}
        return tensors, {key: archive.read(f"{folder}data/{key}") for key in keys}


def _read_legacy(file: io.BytesIO) -> tuple[dict[str, _TensorRef], dict[str, bytes]]:
    for _ in range(_LEGACY_HEADERS):
        _TensorUnpickler(file).load()
    tensors: dict[str, _TensorRef] = _TensorUnpickler(file).load()
    kinds = {tensor.key: tensor.kind for tensor in tensors.values()}
    storages = {}
    for key in _TensorUnpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        storages[key] = file.read(count * np.dtype(_STORAGE_DTYPES[kinds[key]]).itemsize)
    return tensors, storages


def _to_array(tensor: _TensorRef, storage: bytes) -> np.ndarray:
    flat = np.frombuffer(storage, _STORAGE_DTYPES[tensor.kind])
    offset, shape, strides = tensor.offset, tensor.shape, tensor.strides
    if 0 in shape:
        return np.zeros(shape, flat.dtype)
    # `as_strided` doesn't check bounds and would read memory behind the storage.
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if min([offset, *strides, *shape]) < 0 or last >= len(flat):
        raise ValueError("a tensor reaches beyond its storage")
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, [s * flat.itemsize for s in strides]).copy()
