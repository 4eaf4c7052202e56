"""PyTorch files: read in both formats, without running what a pickle names."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from pawcast.errors import DataError
from pawcast.models.pretrained.torch_format import read_state_dict


class Storage:
    """The numbers of one or more tensors, which a PyTorch file keeps beside its pickle."""

    def __init__(self, key: str, values: np.ndarray) -> None:
        self.key, self.values = key, values


class FloatStorage:
    pass


def _rebuild_tensor_v2() -> None:
    pass


@pytest.fixture
def torch(monkeypatch):
    """The names that PyTorch's pickles refer to, so that a test can write one without PyTorch."""
    for name, members in (("torch", [FloatStorage]), ("torch._utils", [_rebuild_tensor_v2])):
        module = types.ModuleType(name)
        for member in members:
            monkeypatch.setattr(member, "__module__", name)
            setattr(module, member.__name__, member)
        monkeypatch.setitem(sys.modules, name, module)


class Tensor:
    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return _rebuild_tensor_v2, self.arguments


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            return ("storage", FloatStorage, obj.key, "cpu", len(obj.values))
        return None


def pickled(obj: object) -> bytes:
    file = io.BytesIO()
    Pickler(file, protocol=2).dump(obj)
    return file.getvalue()


def as_zip(obj: object, *storages: Storage) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/data.pkl", pickled(obj))
        for storage in storages:
            archive.writestr(f"net/data/{storage.key}", storage.values.tobytes())
    return file.getvalue()


def as_legacy(obj: object, *storages: Storage) -> bytes:
    parts = [pickled(0x1950A86A20F9469CFC6C), pickled(1001), pickled({"little_endian": True}), pickled(obj)]
    parts.append(pickled([storage.key for storage in storages]))
    parts += [len(storage.values).to_bytes(8, "little") + storage.values.tobytes() for storage in storages]
    return b"".join(parts)


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("write", [as_zip, as_legacy])
def test_both_formats_are_read(write):
    numbers = Storage("7", np.arange(12, dtype="<f4"))
    tensors = OrderedDict(rows=Tensor(numbers, 0, (3, 4), (4, 1)), columns=Tensor(numbers, 1, (4, 2), (1, 4)))
    tensors_read = read_state_dict(write(tensors, numbers))
    np.testing.assert_array_equal(tensors_read["rows"], np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(tensors_read["columns"], [[1, 5], [2, 6], [3, 7], [4, 8]])


@pytest.mark.usefixtures("torch")
@pytest.mark.parametrize("write", [as_zip, as_legacy])
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (4, 4), (4, 1)),
        (9, (4,), (1,)),
        (12, (1,), (1,)),
        (12, (), ()),
        (-3, (5,), (1,)),
        (0, (2,), (-1,)),
        (0, (2,), (10**9,)),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(write, offset, shape, strides):
    numbers = Storage("7", np.arange(12, dtype="<f4"))
    with pytest.raises(DataError, match="beyond its storage"):
        read_state_dict(write({"w": Tensor(numbers, offset, shape, strides)}, numbers))


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [as_zip, as_legacy])
def test_a_pickle_that_names_a_function_is_refused_and_not_run(write, tmp_path):
    with pytest.raises(DataError, match="would run code"):
        read_state_dict(write({"w": Evil(tmp_path / "ran")}))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x02}q.", os.urandom(100), pickle.dumps([1])])
def test_data_that_is_no_state_dictionary_is_refused(data):
    with pytest.raises(DataError, match="Not a PyTorch state dictionary"):
        read_state_dict(data)
