"""Which region of a photo decided: a class activation map at the network's last cells.

The map is HiResCAM (Draelos and Carin, 2020, https://arxiv.org/abs/2011.08891): gradient times activation, cell by
cell. Grad-CAM (Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391) first averages the gradient over all cells,
which is the same where a network ends in global average pooling. Where it flattens, each place has weights of its own,
and an averaged gradient would light up places that the network ignores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from pawcast.inference.engine import Engine
from pawcast.inference.predictor import Prediction, to_prediction
from pawcast.vision import decode

if TYPE_CHECKING:
    import keras

MAX_SIDE = 640
"""Longer side of a heat map in pixels: it has a few hundred cells, so more would only be larger."""


class Explanation(NamedTuple):
    """Where the network found what it took for the label.

    Attributes:
        prediction: What is explained.
        heat: float32 [height, width] in [0, 1], of the photo's aspect and upright; its largest value is 1, or
            everything is 0 where no cell speaks for the label.
    """

    prediction: Prediction
    heat: np.ndarray


class Explainer:
    """Explains one engine's answers, one photo at a time.

    Args:
        engine: The model; its network ends in one sigmoid. The map is computed in float32, whatever it computes in.

    Raises:
        ValueError: If the network has no convolution.
    """

    def __init__(self, engine: Engine) -> None:
        import keras
        import tensorflow as tf

        from pawcast.vision.augment.warp import rescale

        network, mirror = engine.network, engine.version.preprocessing.mirror
        output = network.layers[-1]
        watched = _watched(network)
        trunk = keras.Model(network.inputs, [watched, output.input])
        self._engine = engine
        self._stride = _stride(watched)

        @tf.function(input_signature=[tf.TensorSpec([engine.size, engine.size, 3], tf.uint8), tf.TensorSpec([])])
        def run(photo: tf.Tensor, towards: tf.Tensor) -> tf.Tensor:
            pixels = rescale(tf.stack([photo, photo[:, ::-1]]) if mirror else photo[None])
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(pixels)
                cells, features = trunk(pixels, training=False)
                # Before the sigmoid, whose gradient vanishes just where the network is sure.
                logits = keras.ops.matmul(features, output.kernel) + output.bias
            heat = tf.nn.relu(towards * tf.reduce_sum(cells * tape.gradient(logits, cells), -1))
            return heat[0] + heat[1, :, ::-1] if mirror else heat[0]

        self._run = run

    def explain(self, data: bytes) -> Explanation:
        """Return the engine's own prediction for a photo and what it rests on.

        Args:
            data: The file's bytes, as for `images.decode`.

        Raises:
            ImageError: As `images.decode` does.
        """
        pixels = decode.decode(data)
        height, width = pixels.shape[:2]
        seen = self._engine.version.preprocessing.apply(pixels)
        score = float(self._engine.predict(seen[None])[0])
        cells = self._run(seen, 1.0 if score > 0.5 else -1.0)
        scale = min(1, MAX_SIDE / max(height, width))
        shape = (max(1, round(height * scale)), max(1, round(width * scale)))
        heat = upsample_heatmap(cells.numpy(), self._engine.size, self._stride, shape)
        return Explanation(to_prediction(score, self._engine.version.classes), heat)


def upsample_heatmap(cells: np.ndarray, size: int, stride: int, shape: tuple[int, int]) -> np.ndarray:
    """Lay a map's cells over the photo, each where it looks.

    Convolutions without padding lose a margin on all sides, so the cells cover less than the photo; stretching them
    over all of it would be wrong by a tenth at the edges. What lies beyond takes the value of the nearest cell.

    Args:
        cells: float32 [n, m], at least 0.
        size: Height and width in pixels of what the network saw.
        stride: Pixels of that from one cell to the next.
        shape: Height and width of the result.

    Returns:
        float32 `shape` in [0, 1].
    """
    affine = np.zeros((2, 3))
    for axis, (count, length) in enumerate(zip(cells.shape[::-1], shape[::-1], strict=True)):
        margin = (size - count * stride) / 2
        step = size / length
        affine[axis, axis] = step / stride
        affine[axis, 2] = (step / 2 - margin) / stride - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    heat = cv2.warpAffine(cells.astype(np.float32), affine, shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    # Max pooling passes gradient to one cell of four, which shows as a pattern that means nothing.
    heat = cv2.GaussianBlur(heat, (0, 0), max(0.5, 0.6 * stride * max(shape) / size))
    peak = float(heat.max())
    return heat / peak if peak > 0 else np.zeros(shape, np.float32)


def heatmap_png(heat: np.ndarray) -> bytes:
    """Return a PNG to lay over the photo: the hotter, the brighter and the less transparent.

    Args:
        heat: float32 [height, width] in [0, 1].

    Returns:
        RGBA, 8 bits a channel. The colours (inferno) keep their order without colour vision.
    """
    levels = np.rint(heat * 255).astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)
    alpha = np.rint(np.sqrt(heat) * 215).astype(np.uint8)
    encoded: np.ndarray = cv2.imencode(".png", np.dstack([colours, alpha]))[1]
    return encoded.tobytes()


def _watched(network: keras.Model) -> keras.KerasTensor:
    """The cells whose say is shown: what a global pooling takes in, else what the last convolution gives out."""
    from keras import layers

    for operation in _upstream(network.outputs[0]):
        if isinstance(operation, (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)):
            return operation.input
        if operation.output.ndim == 4:
            break
    kinds = (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)
    found = [layer for layer in network.layers if isinstance(layer, kinds)]
    if not found:
        raise ValueError(f"The network {network.name} has no convolution, so no map can be drawn.")
    return found[-1].output


def _stride(cells: keras.KerasTensor) -> int:
    """Pixels of the network's input from one cell to the next; equal along every path to it."""
    strides = (getattr(operation, "strides", 1) for operation in _upstream(cells))
    return math.prod(step[0] if isinstance(step, tuple) else step for step in strides)


def _upstream(tensor: keras.KerasTensor) -> Iterator[keras.Operation]:
    """Yield the layers that a tensor comes from, the last first, along the first path where several meet."""
    while True:
        operation = tensor._keras_history.operation
        yield operation
        inputs = operation.input
        if isinstance(inputs, list):
            if not inputs:
                return
            inputs = inputs[0]
        if inputs is tensor:
            return
        tensor = inputs
