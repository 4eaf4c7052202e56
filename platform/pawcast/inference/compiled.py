"""A network's forward pass as it is served, compiled: float32 or bfloat16, each photo by itself.

A photo's score has the same bits whichever photos share its batch. README.md says how.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from pawcast.inference.precision.quantize import quantize_bfloat16, round_to_bfloat16
from pawcast.models import folding
from pawcast.runtime.devices import Precision
from pawcast.runtime.tensorflow import keras, resolve_precision, tf
from pawcast.vision.augment.warp import rescale
from pawcast.vision.preprocess import Preprocessing

layers, ops = keras.layers, keras.ops

_CPU_BATCH_SIZES = (1, 2, 4, 8, 16, 32)
# A GPU takes the same time for one photo as for eight.
_GPU_BATCH_SIZES = (1, 8, 64)
# Photos that pass the convolutions together on a CPU; divides every larger batch size.
_SLICE = 4
# Values in the longest vector of any CPU. Sums are float32, everything else may be bfloat16.
_FLOAT32_VECTOR = 16
_BFLOAT16_VECTOR = 32


class CompiledModel:
    """A network, compiled for inference.

    bfloat16 is emulated where this machine isn't faster in it: layers compute in float32, and what
    passes between them is rounded to bfloat16. TensorFlow's own software bfloat16 is slower,
    truncates in matrix products, and gives a photo other bits in other batches.

    Args:
        network: float32 [n, S, S, 3] in [0, 1] to float32 [n, 1]; S may be None. Its weights are
            copied.
        preprocessing: The photos' size, and whether their mirror images are averaged in.
        precision: What to compute in. The last layer computes in float32 in either case.

    Attributes:
        precision: As above.
        emulated: Whether bfloat16 is emulated.
        batch_sizes: How many photos the compiled function takes, ascending.
    """

    def __init__(self, network: keras.Model, preprocessing: Preprocessing, precision: Precision = "float32") -> None:
        self.precision = precision
        self.emulated = precision == "bfloat16" and resolve_precision() != "bfloat16"
        network = keras.Model(network.inputs, network.outputs)  # Sequential networks as well
        size, mirror = preprocessing.image_size, preprocessing.mirror
        self._photo_shape = (size, size, 3)
        # Kept, because a compiled function holds only weak references to variables.
        body, head = self._parts = _split(_serving_network(network, precision, self.emulated, preprocessing.scale))
        scaled_in_network = folding.first_convolution(network) is not None
        groups = body.trainable_variables, body.non_trainable_variables
        weights = [[variable.numpy() for variable in group] for group in groups]
        run_body = partial(_run_body, body, weights, not scaled_in_network)
        on_gpu = bool(tf.config.list_physical_devices("GPU"))

        def run(pixels: tf.Tensor, sliced: bool) -> tuple[tf.Tensor, ...]:
            images = tf.concat([pixels, tf.reverse(pixels, [2])], 0) if mirror else pixels
            cells = _in_slices(run_body, images, body.output.dtype) if sliced else run_body(images)
            features, scores = head(cells, training=False)
            return tf.reduce_mean(tf.reshape(scores, [1 + mirror, -1]), 0), cells, features

        signature = [tf.TensorSpec([None, *self._photo_shape], tf.uint8)]
        self._run_whole, self._run_sliced = (
            _compile(tf.function(partial(run, sliced=sliced), input_signature=signature))
            for sliced in (False, not on_gpu)
        )
        self.batch_sizes = self._consistent(_GPU_BATCH_SIZES if on_gpu else _CPU_BATCH_SIZES)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return the probability of class 1. A photo's bits don't depend on the rest of its batch.

        Args:
            pixels: uint8 [n, S, S, 3].

        Returns:
            float32 [n] in [0, 1].
        """
        scores = np.empty(len(pixels), np.float32)
        start = 0
        while start < len(pixels):
            left = len(pixels) - start
            size = max((size for size in self.batch_sizes if size <= left), default=self.batch_sizes[0])
            batch = pixels[start : start + size]
            if len(batch) < size:
                batch = np.concatenate([batch, np.zeros((size - len(batch), *self._photo_shape), np.uint8)])
            scores[start : start + size] = self._run(batch)[0].numpy()[:left]
            start += size
        return scores

    def _run(self, pixels: np.ndarray) -> Sequence[tf.Tensor]:
        """Return scores, cells before the head, and inputs of the last layer."""
        return (self._run_sliced if len(pixels) > _SLICE else self._run_whole)(pixels)

    def _consistent(self, sizes: tuple[int, ...]) -> list[int]:
        """Return the batch sizes that give a photo the same bits.

        The reference is the largest size that gives a photo the same bits at every position.
        """
        photos = np.random.default_rng(0).integers(0, 256, (sizes[-1], *self._photo_shape), np.uint8)
        for largest in reversed(sizes):
            expected = self._output_bytes(photos, largest)
            if np.array_equal(self._output_bytes(np.roll(photos, 1, 0), largest), np.roll(expected, 1, 0)):
                break
        return [
            size for size in sizes if size <= largest and np.array_equal(self._output_bytes(photos, size), expected)
        ]

    def _output_bytes(self, pixels: np.ndarray, size: int) -> np.ndarray:
        """Return all outputs of each photo in batches of a size: uint8 [n, m].

        Cells and features are compared as well, because few differences in sums reach the score.
        """
        batches = [pixels[i : i + size] for i in range(0, len(pixels), size)]
        return np.concatenate([_bytes_by_photo(self._run(batch), size) for batch in batches])


class ColumnDense(keras.layers.Dense):
    """A dense layer with photos as the columns of its product."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.transposed = self.add_weight(shape=(self.units, shape[-1]), name="kernel")
        self.bias = self.add_weight(shape=(self.units,), name="bias") if self.use_bias else None
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        rows = tf.reshape(inputs, [-1, inputs.shape[-1]])
        padded = ops.pad(rows, [[0, -tf.shape(rows)[0] % _FLOAT32_VECTOR], [0, 0]])
        columns = tf.matmul(self.transposed, padded, transpose_b=True)
        outputs = tf.transpose(columns)[: tf.shape(rows)[0]]
        outputs = outputs if self.bias is None else outputs + self.bias
        # Padded: the CPU computes leftover values with another sigmoid routine, which rounds
        # differently.
        activated = self.activation(_append_zeros(outputs, _BFLOAT16_VECTOR))[:-_BFLOAT16_VECTOR]
        return tf.reshape(activated, tf.concat([tf.shape(inputs)[:-1], [self.units]], 0))


class PerPhotoAveragePooling2D(keras.layers.GlobalAveragePooling2D):
    """An average over the cells of each photo, whose order of sums doesn't depend on the batch."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        # With a batch of one, TensorFlow drops the batch axis and sums in another order.
        return super().call(_append_zeros(inputs, 1))[:-1]


_REPLACEMENTS: Any = {layers.Dense: ColumnDense, layers.GlobalAveragePooling2D: PerPhotoAveragePooling2D}


def _serving_network(network: keras.Model, precision: Precision, emulated: bool, scale: float) -> keras.Model:
    """Return a copy of a network that computes each photo by itself, in a precision.

    Batch normalization, and ReLU behind max pooling, become part of the convolution before them. A
    first convolution takes pixels in [0, 255], which bfloat16 holds exactly, and does the scaling:
    rounding scaled pixels would change the probabilities most.
    """
    norms, rectifiers = folding.foldable_norms(network), folding.fusable_relus(network)
    removed = {layer.name for layer in (*norms.values(), *rectifiers.values())}
    last = network.layers[-1]

    def clone(layer: keras.Layer) -> keras.Layer:
        in_float32 = precision == "float32" or emulated or layer is last
        config = {**layer.get_config(), "dtype": "float32" if in_float32 else _bfloat16_policy(layer)}
        if layer.name in norms:
            config["use_bias"] = True
        if layer.name in rectifiers:
            config["activation"] = "relu"
        return _REPLACEMENTS.get(type(layer), type(layer)).from_config(config)

    def call(layer: keras.Layer, *inputs: Any, **options: Any) -> Any:
        if layer.name in removed:
            return inputs[0]
        return layer(*keras.tree.map_structure(round_to_bfloat16, inputs) if emulated else inputs, **options)

    copy = keras.models.clone_model(network, clone_function=clone, call_function=call)
    first = folding.first_convolution(network)
    for layer in (layer for layer in copy.layers if layer.weights):
        original, norm = network.get_layer(layer.name), norms.get(layer.name)
        weights = folding.merge_batch_norm(original, norm) if norm else original.get_weights()
        if original is first:
            weights = [weights[0] * np.float32(scale), *weights[1:]]
        if precision == "bfloat16" and original is not last and not isinstance(layer, layers.BatchNormalization):
            weights = [quantize_bfloat16(weight) for weight in weights]
        if isinstance(layer, ColumnDense):
            weights = [weights[0].T, *weights[1:]]
        layer.set_weights(weights)
    return copy


def _bfloat16_policy(layer: keras.Layer) -> str:
    # Keras normalizes in float32, so means and variances keep their digits. Other layers aren't
    # mixed, because a mixed layer rounds its weights anew in each call.
    return "mixed_bfloat16" if isinstance(layer, layers.BatchNormalization) else "bfloat16"


def _split(network: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Split a network behind its last cells (4 axes).

    Returns:
        The body, pixels to cells, and the head, cells to the last layer's inputs and outputs. The
        body is empty if the network has a connection around the cells.
    """
    ends = [network.layers[-1].input, network.outputs[0]]
    cells = next(layer.output for layer in reversed(network.layers) if layer.output.ndim == 4)
    try:
        return keras.Model(network.inputs, cells), keras.Model(cells, ends)
    except ValueError:
        return keras.Model(network.inputs, network.inputs[0]), keras.Model(network.inputs, ends)


def _run_body(body: keras.Model, weights: list[list[np.ndarray]], scaled: bool, pixels: tf.Tensor) -> tf.Tensor:
    """Run a body on uint8 pixels, which are scaled to [0, 1] if `scaled`."""
    # oneDNN reorders the kernels of constants once, those of variables in every call.
    constants = ([tf.constant(value) for value in group] for group in weights)
    inputs = rescale(pixels) if scaled else tf.cast(pixels, tf.float32)
    return body.stateless_call(*constants, inputs, training=False)[0]


def _in_slices(function: Callable[[tf.Tensor], tf.Tensor], pixels: tf.Tensor, dtype: str) -> tf.Tensor:
    """Apply a function to a few photos at a time: what lies between convolutions fits the CPU's
    caches."""
    slices = tf.reshape(pixels, [-1, _SLICE, *pixels.shape[1:]])
    outputs = tf.map_fn(function, slices, fn_output_signature=dtype, parallel_iterations=1)
    return tf.reshape(outputs, [-1, *outputs.shape[2:]])


def _compile(function: Any) -> Callable[[np.ndarray], Sequence[tf.Tensor]]:
    """Trace a `tf.function`; return a function that calls the trace as one operation.

    `tf.function` itself spends 0.3 ms on each call, in which no other Python thread runs.
    """
    traced = function.get_concrete_function()
    dtypes = [tensor.dtype for tensor in traced.outputs]

    def call(pixels: np.ndarray) -> Sequence[tf.Tensor]:
        return tf.raw_ops.StatefulPartitionedCall(  # type: ignore[no-any-return]
            args=[tf.constant(pixels), *traced.captured_inputs], Tout=dtypes, f=traced
        )

    return call


def _bytes_by_photo(outputs: Sequence[tf.Tensor], photos: int) -> np.ndarray:
    """Gather each photo's bytes from several outputs; mirror images come behind all of the
    photos."""
    values = [output.numpy() for output in outputs]
    parts = [part for value in values for part in np.split(value, len(value) // photos)]
    return np.concatenate([part.reshape(photos, -1).view(np.uint8) for part in parts], 1)


def _append_zeros(values: tf.Tensor, rows: int) -> tf.Tensor:
    return ops.pad(values, [[0, rows], *[[0, 0]] * (len(values.shape) - 1)])
