"""Weights that somebody else trained: found, read without running anything that is in them, and put into a network.

A file is either Keras's (`.h5`, such as those of Keras Applications without top) or a PyTorch state dictionary
(`.pth`, `.pt`), whose pickle may name tensors and nothing else.
"""

from __future__ import annotations

import collections
import importlib.util
import io
import pickle
import re
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pawcast.errors import DataError, NotFoundError, UsageError
from pawcast.store import open_store

if TYPE_CHECKING:
    import keras

_PACKAGE = "package:"
_SUFFIXES = (".h5", ".pth", ".pt")
_STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8"}
_LEGACY_HEADERS = 3  # magic number, protocol and byte order, each a pickle of its own, before the dictionary


def read(source: str) -> bytes:
    """Read a weights file.

    Args:
        source: `package:NAME/path/in/it`, a URI that a store can be opened by (`s3://bucket/path/file.h5`), or a path.

    Raises:
        UsageError: If it isn't a kind of file that can be loaded.
        NotFoundError: If it isn't there.
    """
    if not source.endswith(_SUFFIXES):
        raise UsageError("Unknown kind of weights", received=repr(source), expected="a .h5, .pth or .pt file")
    if source.startswith(_PACKAGE):
        name, _, inside = source.removeprefix(_PACKAGE).partition("/")
        spec = importlib.util.find_spec(name)
        if spec is None or not spec.submodule_search_locations:
            raise NotFoundError(
                f"No package {name!r}, which pretrained={source} needs", fix=f"pip install {name.replace('_', '-')}"
            )
        source = str(Path(spec.submodule_search_locations[0]) / inside)
    if "://" in source:
        folder, _, file = source.rpartition("/")
        return open_store(folder).get(file)
    try:
        return Path(source).expanduser().read_bytes()
    except OSError as error:
        raise NotFoundError(f"The weights {source} can't be read", received=error.strerror) from None


def load(model: keras.Model, source: str, data: bytes) -> int:
    """Put weights into a network's backbone; the layers after it keep what they have.

    Args:
        model: A built network.
        source: Where the weights came from; its suffix says of which kind they are.
        data: The file's content.

    Returns:
        How many of the network's weights were set.

    Raises:
        DataError: If the file isn't whole, or fits nothing of the network, or has other shapes.
    """
    found = _load_keras(model, data) if source.endswith(".h5") else _load_torch(model, state_dict(data))
    if not found:
        raise DataError(f"Nothing in {source} fits a layer of {model.name}", expected="weights of the same network")
    return found


def _load_keras(model: keras.Model, data: bytes) -> int:
    import h5py

    from pawcast.models.build import inner_backbone

    # Without a model within the model, the backbone is all that has a name in the file.
    target = inner_backbone(model) or model
    before = [np.asarray(weight) for weight in target.weights]
    try:
        with h5py.File(io.BytesIO(data)) as file:
            first_format = "layer_names" in file.attrs
        with tempfile.TemporaryDirectory(prefix="pawcast-pretrained-") as folder:
            # Keras tells its two formats apart by the name alone. Only of the first it can leave out layers.
            path = Path(folder) / ("backbone.h5" if first_format else "backbone.weights.h5")
            path.write_bytes(data)
            target.load_weights(path, **({"by_name": target is model} if first_format else {}))
    except (ValueError, KeyError, OSError) as error:
        raise DataError(f"The weights don't fit {target.name}", received=str(error).splitlines()[0]) from None
    return sum(not np.array_equal(a, np.asarray(b)) for a, b in zip(before, target.weights, strict=True))


def _load_torch(model: keras.Model, state: dict[str, np.ndarray]) -> int:
    """Assign a state dictionary to layers of the same names, with `.` written as `_`."""
    found = 0
    for layer in model.layers:
        for weight in layer.weights:
            name = f"{layer.name}.{_TORCH_NAMES.get(weight.name, weight.name)}"
            value = state.get(name, state.get(_dotted(name)))
            if value is None:
                continue
            value = _as_keras(value, type(layer).__name__)
            if value.shape != tuple(weight.shape):
                raise DataError(
                    f"The weights have another shape for {layer.name}",
                    received=value.shape,
                    expected=tuple(weight.shape),
                )
            weight.assign(value)
            found += 1
    return found


_TORCH_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def _dotted(name: str) -> str:
    """`_blocks_3_bn0.weight` as PyTorch spells it: `_blocks.3._bn0.weight`."""
    return re.sub(r"^(_blocks)_(\d+)_", r"\1.\2._", name)


def _as_keras(value: np.ndarray, kind: str) -> np.ndarray:
    if value.ndim == 4:
        # [out, in, h, w] to [h, w, in, out]; a depthwise kernel is [channels, 1, h, w] to [h, w, channels, 1].
        return value.transpose(2, 3, 0, 1) if kind == "DepthwiseConv2D" else value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 else value


class _Tensors(pickle.Unpickler):
    """Unpickles dictionaries of tensors; anything else that a pickle could name is refused, not run."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: (storage, offset, shape, strides)
        if module == "torch" and name in _STORAGES:
            return name
        raise DataError("The weights file would run code", received=f"{module}.{name}", expected="tensors only")

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, *_ = pid
        return kind, key


def state_dict(data: bytes) -> dict[str, np.ndarray]:
    """Read a PyTorch state dictionary, of its zip format or of the one before.

    The format is that of `torch/serialization.py` (https://github.com/pytorch/pytorch).

    Raises:
        DataError: If it isn't one, isn't whole, or names anything but tensors.
    """
    try:
        file = io.BytesIO(data)
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                (index,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
                tensors = _Tensors(io.BytesIO(archive.read(index))).load()
                folder = index.removesuffix("data.pkl")
                storages = {key: archive.read(f"{folder}data/{key}") for key in {t[0][1] for t in tensors.values()}}
        else:
            file.seek(0)
            for _ in range(_LEGACY_HEADERS):
                _Tensors(file).load()
            tensors = _Tensors(file).load()
            kinds = {t[0][1]: t[0][0] for t in tensors.values()}
            storages = {}
            for key in _Tensors(file).load():
                count = int.from_bytes(file.read(8), "little")
                storages[key] = file.read(count * np.dtype(_STORAGES[kinds[key]]).itemsize)
        return {name: _tensor(tensor, storages) for name, tensor in tensors.items()}
    except DataError:
        raise
    except Exception as error:  # a pickle of anything fails in any way
        raise DataError(
            "Not a PyTorch state dictionary", received=f"{type(error).__name__}: {error}", expected="tensors by name"
        ) from None


def _tensor(tensor: Any, storages: dict[str, bytes]) -> np.ndarray:
    (kind, key), offset, shape, strides = tensor
    flat = np.frombuffer(storages[key], _STORAGES[kind])
    if 0 in shape:
        return np.zeros(shape, flat.dtype)
    # Bounds first: `as_strided` would read whatever lies around.
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if min([offset, *strides, *shape]) < 0 or last >= len(flat):
        raise ValueError("a tensor reaches beyond its storage")
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, [s * flat.itemsize for s in strides]).copy()
