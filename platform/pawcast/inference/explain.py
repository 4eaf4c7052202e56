"""Heat maps: which region of a photo decided, as a class activation map of the last cells.

The map is HiResCAM (Draelos and Carin, 2020, https://arxiv.org/abs/2011.08891): gradient times
activation, cell by cell. Grad-CAM (Selvaraju et al., 2017, https://arxiv.org/abs/1610.02391) first
averages the gradient over all cells. That is the same where a network ends in global average
pooling. Where it flattens, each position has weights of its own, and an averaged gradient would
highlight positions that the network ignores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np

from pawcast.errors import ImageError
from pawcast.inference.batcher import finite_or_error
from pawcast.inference.engine import Engine
from pawcast.inference.predictor import Prediction, to_prediction
from pawcast.runtime.tensorflow import keras, tf
from pawcast.vision import decode
from pawcast.vision.augment.warp import rescale

layers = keras.layers

MAX_SIDE = 640
"""Longer side of a heat map in pixels. It has a few hundred cells, so more pixels show no more."""


class Explanation(NamedTuple):
    """A prediction and the region that it rests on.

    Attributes:
        prediction: What is explained.
        heat: float32 [height, width] in [0, 1], upright and of the photo's aspect ratio. Its
            maximum is 1; everything is 0 where no cell speaks for the label.
    """

    prediction: Prediction
    heat: np.ndarray


class Explainer:
    """Explains the predictions of one engine, one photo at a time.

    Args:
        engine: The model. Its network ends in one sigmoid. The map is computed in float32 whatever
            the engine's precision.

    Raises:
        ValueError: If the network has no convolution.
    """

    def __init__(self, engine: Engine) -> None:
        cells = _explained_cells(engine.network)
        self._engine = engine
        self._stride = _stride(cells)
        self._compute_heat = _compile_heat(engine, cells)

    def explain(self, data: bytes) -> Explanation:
        """Return the engine's own prediction for a photo, and a heat map.

        Args:
            data: The content of an image file, as for `decode.decode`.

        Raises:
            ImageError: As `decode.decode` does; also if the model predicts NaN.
        """
        photo = decode.decode(data)
        height, width = photo.shape[:2]
        pixels = self._engine.version.preprocessing.apply(photo)
        score = finite_or_error(float(self._engine.predict(pixels[None])[0]))
        if isinstance(score, ImageError):
            raise score
        cells = self._compute_heat(pixels, 1.0 if score > 0.5 else -1.0)
        scale = min(1, MAX_SIDE / max(height, width))
        shape = (max(1, round(height * scale)), max(1, round(width * scale)))
        heat = upsample_heatmap(cells.numpy(), self._engine.size, self._stride, shape)
        return Explanation(to_prediction(score, self._engine.version.classes), heat)


def upsample_heatmap(cells: np.ndarray, size: int, stride: int, shape: tuple[int, int]) -> np.ndarray:
    """Place a map's cells over the photo.

    Convolutions without padding lose a margin on each side, so the cells cover less than the photo.
    Stretched over all of it they would be off by a tenth at the edges. The margin takes the value
    of the nearest cell.

    Args:
        cells: float32 [n, m], at least 0.
        size: Height and width of the network's input in pixels.
        stride: Pixels of the input from one cell to the next.
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
    # Max pooling passes its gradient to one cell of four; blurring hides that pattern.
    heat = cv2.GaussianBlur(heat, (0, 0), max(0.5, 0.6 * stride * max(shape) / size))
    peak = float(heat.max())
    return heat / peak if peak > 0 else np.zeros(shape, np.float32)


def heatmap_png(heat: np.ndarray) -> bytes:
    """Return a PNG to lay over the photo: hotter is brighter and less transparent.

    Args:
        heat: float32 [height, width] in [0, 1].

    Returns:
        RGBA, 8 bits a channel. The colors (inferno) keep their order for color-blind people.
    """
    levels = np.rint(heat * 255).astype(np.uint8)
    colored = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)
    alpha = np.rint(np.sqrt(heat) * 215).astype(np.uint8)
    encoded: np.ndarray = cv2.imencode(".png", np.dstack([colored, alpha]))[1]
    return encoded.tobytes()


def _compile_heat(engine: Engine, cells: keras.KerasTensor) -> Callable[[np.ndarray, float], tf.Tensor]:
    """Return a function from uint8 [S, S, 3] and the sign of the label to heat: float32 [n, m]."""
    network, mirror = engine.network, engine.version.preprocessing.mirror
    output = network.layers[-1]
    body = keras.Model(network.inputs, [cells, output.input])

    @tf.function(input_signature=[tf.TensorSpec([engine.size, engine.size, 3], tf.uint8), tf.TensorSpec([])])
    def compute_heat(photo: tf.Tensor, sign: tf.Tensor) -> tf.Tensor:
        pixels = rescale(tf.stack([photo, photo[:, ::-1]]) if mirror else photo[None])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(pixels)
            activations, features = body(pixels, training=False)
            # Before the sigmoid, because its gradient vanishes where the network is sure.
            logits = keras.ops.matmul(features, output.kernel) + output.bias
        heat = tf.nn.relu(sign * tf.reduce_sum(activations * tape.gradient(logits, activations), -1))
        return heat[0] + heat[1, :, ::-1] if mirror else heat[0]

    return compute_heat


def _explained_cells(network: keras.Model) -> keras.KerasTensor:
    """Return the input of global pooling, or else the output of the last convolution."""
    for operation in _upstream(network.outputs[0]):
        if isinstance(operation, (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)):
            return operation.input
        if isinstance(operation, (layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D)):
            return operation.output
    raise ValueError(f"The network {network.name} has no convolution, so no map can be drawn.")


def _stride(cells: keras.KerasTensor) -> int:
    """Return the pixels of the input from one cell to the next, equal along every path."""
    strides = (getattr(operation, "strides", 1) for operation in _upstream(cells))
    return math.prod(step[0] if isinstance(step, tuple) else step for step in strides)


def _upstream(tensor: keras.KerasTensor) -> Iterator[keras.Operation]:
    """Yield the layers that a tensor comes from, last first, by the first input of each."""
    while True:
        operation = tensor._keras_history.operation
        yield operation
        inputs = keras.tree.flatten(operation.input)
        # An input layer has no input, or its own output.
        if not inputs or inputs[0] is tensor:
            return
        tensor = inputs[0]
