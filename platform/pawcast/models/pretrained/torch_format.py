"""Read PyTorch's state dictionaries without PyTorch, and without running what a pickle names.

The format is that of `torch/serialization.py` (https://github.com/pytorch/pytorch).
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from typing import IO, Any

import numpy as np

from pawcast.errors import DataError

_STORAGE_DTYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8"}


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
        return {name: np.array(tensor, tensor.dtype) for name, tensor in read(io.BytesIO(data)).items()}
    except DataError:
        raise
    except Exception as error:  # a malformed pickle can fail in any way
        raise DataError(
            "Not a PyTorch state dictionary", received=f"{type(error).__name__}: {error}", expected="tensors by name"
        ) from None


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles dictionaries of tensors; refuses, and doesn't run, anything else a pickle names.

    The tensors are views of `storages`, by key, whose numbers are read afterwards.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view
        if module == "torch" and name in _STORAGE_DTYPES:
            return _STORAGE_DTYPES[name]
        raise DataError("The weights file would run code", received=f"{module}.{name}", expected="tensors only")

    def persistent_load(self, pid: Any) -> Any:
        _, dtype, key, _, count, *_ = pid
        return self.storages.setdefault(key, np.empty(count, dtype))


def _read_zip(file: IO[bytes]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        (index,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        unpickler = _TensorUnpickler(archive.open(index))
        tensors: dict[str, np.ndarray] = unpickler.load()
        for key, storage in unpickler.storages.items():
            data = archive.read(f"{index.removesuffix('data.pkl')}data/{key}")
            storage[:] = np.frombuffer(data, storage.dtype)
    return tensors


def _read_legacy(file: IO[bytes]) -> dict[str, np.ndarray]:
    for _ in range(3):  # magic number, protocol and byte order
        _TensorUnpickler(file).load()
    unpickler = _TensorUnpickler(file)
    tensors: dict[str, np.ndarray] = unpickler.load()
    for key in _TensorUnpickler(file).load():
        file.read(8)  # the number of elements, which the dictionary also names
        storage = unpickler.storages.pop(key)
        storage[:] = np.frombuffer(file.read(storage.nbytes), storage.dtype)
    if unpickler.storages:
        raise ValueError("numbers are missing")
    return tensors


def _view(storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> np.ndarray:
    """Return a tensor as a view of its storage; offset and strides count elements."""
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    # `as_strided` doesn't check bounds and would read memory behind the storage.
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if min([offset, *strides, *shape]) < 0 or last >= len(storage):
        raise ValueError("a tensor reaches beyond its storage")
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, [s * storage.itemsize for s in strides])
