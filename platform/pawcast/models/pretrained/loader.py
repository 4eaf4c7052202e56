"""Put pretrained weights into a network's backbone.

A file is either Keras's (`.h5`, such as those of Keras Applications without top) or a PyTorch state
dictionary (`.pth`, `.pt`).
"""

from __future__ import annotations

import io
import re
from typing import Any

import h5py
import numpy as np

from pawcast.errors import DataError
from pawcast.models import weights
from pawcast.models.build import find_backbone
from pawcast.models.pretrained.torch_format import read_state_dict
from pawcast.runtime.tensorflow import keras

_TORCH_NAMES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def load_weights(model: keras.Model, source: str, data: bytes) -> int:
    """Put weights into a network's backbone; the layers after it keep what they have.

    Args:
        model: A built network.
        source: Where the weights came from; its suffix gives the format.
        data: The file's content.

    Returns:
        How many of the network's weights were set.

    Raises:
        DataError: If the file is damaged, fits no layer of the network, or has other shapes.
    """
    count = _load_keras(model, data) if source.endswith(".h5") else _load_torch(model, read_state_dict(data))
    if not count:
        raise DataError(f"Nothing in {source} fits a layer of {model.name}", expected="weights of the same network")
    return count


def _load_keras(model: keras.Model, data: bytes) -> int:
    backbone = find_backbone(model)
    # Without a model within the model, layers are found by the names that the file gives them.
    target = backbone or model
    before = [np.asarray(weight) for weight in target.weights]
    try:
        with h5py.File(io.BytesIO(data)) as file:
            is_legacy = "layer_names" in file.attrs
        # Only the legacy format can skip layers.
        options: dict[str, Any] = {"suffix": ".h5", "by_name": backbone is None} if is_legacy else {}
        weights.load(target, data, **options)
    except (ValueError, KeyError, OSError) as error:
        raise DataError(f"The weights don't fit {target.name}", received=str(error).splitlines()[0]) from None
    return sum(not np.array_equal(a, np.asarray(b)) for a, b in zip(before, target.weights, strict=True))


def _load_torch(model: keras.Model, state: dict[str, np.ndarray]) -> int:
    """Assign a state dictionary to layers of the same names, with `.` written as `_`."""
    count = 0
    for layer in model.layers:
        for weight in layer.weights:
            name = f"{layer.name}.{_TORCH_NAMES.get(weight.name, weight.name)}"
            # PyTorch spells `_blocks_3_bn0.weight` as `_blocks.3._bn0.weight`.
            name = name if name in state else re.sub(r"^(_blocks)_(\d+)_", r"\1.\2._", name)
            if name not in state:
                continue
            value = _to_keras_layout(state[name], type(layer).__name__)
            if value.shape != tuple(weight.shape):
                what = f"The weights have another shape for {layer.name}"
                raise DataError(what, received=value.shape, expected=tuple(weight.shape))
            weight.assign(value)
            count += 1
    return count


def _to_keras_layout(value: np.ndarray, layer_type: str) -> np.ndarray:
    if value.ndim == 4:
        # [out, in, h, w] to [h, w, in, out]; depthwise [channels, 1, h, w] to [h, w, channels, 1].
        return value.transpose(2, 3, 0, 1) if layer_type == "DepthwiseConv2D" else value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 else value
