"""A network's forward pass as it is served: in float32 or bfloat16, with mirror images or not, each photo by itself.

A photo's score must be the same to the last bit whichever photos it came with. Convolutions give that. A product of
matrices doesn't: the kernels add up in an order that depends on how many rows there are, and on which row it is. It
doesn't depend on the column, since columns lie side by side in the CPU's vectors. So photos are the columns of dense
layers' products, which always fill whole vectors, and averages over a photo have a fixed shape. That this gives equal
bits is seen to on this machine's own kernels before the first answer: only batches of sizes that agree are ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pawcast.inference.precision.quantize import quantize_bfloat16, round_to_bfloat16, to_bfloat16_in_multiples
from pawcast.runtime.devices import Precision
from pawcast.vision.preprocess import Preprocessing

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_CPU_SIZES = (1, 2, 4, 8, 16, 32)
_SLICE = 4  # divides every larger size
# A GPU is hardly busy with fewer, and takes the same time for one.
_GPU_SIZES = (1, 8, 64)
# Values in the longest vector of any CPU: sums are of float32 in either precision, the rest may be of bfloat16.
_SUMS = 16
_VECTOR = 32


class CompiledModel:
    """Runs a network.

    Args:
        network: float32 [n, S, S, 3] in [0, 1] to float32 [n, 1]; S may be left open. Its weights are copied.
        preprocessing: The photos' size, and whether their mirror images count as well.
        precision: What to compute in. The last layer is computed in float32 in either case.
        emulated: Round to bfloat16 between layers that compute in float32. Its errors are others, but of the same size,
            and where the hardware has no bfloat16 it is far faster. A sequential network isn't emulated.

    Attributes:
        precision: As above.
        sizes: How many photos a call of the network may have, ascending.
    """

    def __init__(
        self,
        network: keras.Model,
        preprocessing: Preprocessing,
        precision: Precision = "float32",
        emulated: bool = False,
    ) -> None:
        import tensorflow as tf

        from pawcast.models import folding
        from pawcast.vision.augment.warp import rescale

        size, mirror = preprocessing.image_size, preprocessing.mirror
        emulated = emulated and precision == "bfloat16" and folding.is_functional(network)
        served = _served(network, precision, emulated, preprocessing.scale)
        unscaled = folding.first_convolution(network) is not None
        # Kept, since a compiled function only borrows the variables.
        body, head = self._parts = _parts(served)
        state = body.trainable_variables, body.non_trainable_variables
        weights = [[variable.numpy() for variable in kind] for kind in state]
        on_gpu = bool(tf.config.list_physical_devices("GPU"))

        def convolved(pixels: tf.Tensor) -> tf.Tensor:
            # Of constants oneDNN brings the kernels into its own order once, of variables in every call.
            constants = ([tf.constant(value) for value in kind] for kind in weights)
            seen = tf.cast(pixels, tf.float32) if unscaled else rescale(pixels)
            return body.stateless_call(*constants, seen, training=False)[0]

        def in_slices(pixels: tf.Tensor) -> tf.Tensor:
            """Keep what lies between convolutions in the CPU's caches: a twelfth off the article's time."""
            slices = tf.reshape(pixels, [-1, _SLICE, size, size, 3])
            found = tf.map_fn(convolved, slices, fn_output_signature=body.output.dtype, parallel_iterations=1)
            return tf.reshape(found, [-1, *found.shape[2:]])

        def run(pixels: tf.Tensor, convolve: Callable[[tf.Tensor], tf.Tensor]) -> tuple[tf.Tensor, ...]:
            seen = tf.concat([pixels, tf.reverse(pixels, [2])], 0) if mirror else pixels
            found = convolve(seen)
            inner, scores = head(found, training=False)
            return tf.reduce_mean(tf.reshape(scores, [1 + mirror, -1]), 0), found, inner

        signature = [tf.TensorSpec([None, size, size, 3], tf.uint8)]
        self.precision = precision
        self._whole = _compiled(tf.function(partial(run, convolve=convolved), input_signature=signature))
        self._sliced = (
            self._whole
            if on_gpu
            else _compiled(tf.function(partial(run, convolve=in_slices), input_signature=signature))
        )
        self._shape = (size, size, 3)
        self.batch_sizes = self._agreeing(_GPU_SIZES if on_gpu else _CPU_SIZES)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return the probability of class 1, the same bits for equal photos in whatever company.

        Args:
            pixels: uint8 [n, S, S, 3].

        Returns:
            float32 [n] in [0, 1].
        """
        scores = np.empty(len(pixels), np.float32)
        start = 0
        while start < len(pixels):
            size = max((size for size in self.batch_sizes if size <= len(pixels) - start), default=self.batch_sizes[0])
            part = pixels[start : start + size]
            if len(part) < size:
                part = np.concatenate([part, np.zeros((size - len(part), *self._shape), np.uint8)])
            scores[start : start + size] = self._run(part)[0].numpy()[: len(scores) - start]
            start += size
        return scores

    def _run(self, pixels: np.ndarray) -> Sequence[tf.Tensor]:
        return (self._sliced if len(pixels) > _SLICE else self._whole)(pixels)

    def _agreeing(self, sizes: tuple[int, ...]) -> list[int]:
        """Of these sizes, those that give a photo the same bits as the largest one that does so at every place."""
        photos = np.random.default_rng(0).integers(0, 256, (sizes[-1], *self._shape), np.uint8)
        for largest in reversed(sizes):
            expected = self._bits(photos, largest)
            if np.array_equal(self._bits(np.roll(photos, 1, 0), largest), np.roll(expected, 1, 0)):
                break
        return [size for size in sizes if size <= largest and np.array_equal(self._bits(photos, size), expected)]

    def _bits(self, pixels: np.ndarray, size: int) -> np.ndarray:
        """All that is known of each photo, as bytes [n, m]: few differences in the sums reach as far as the score."""
        return np.concatenate([_rows(self._run(pixels[i : i + size]), size) for i in range(0, len(pixels), size)])


def _compiled(function: Any) -> Callable[[np.ndarray], Sequence[tf.Tensor]]:
    """Return a function to be called as the one operation that it was traced to.

    What `tf.function` does before each call takes a third of a millisecond, in which no other thread of Python goes on.
    """
    import tensorflow as tf

    traced = function.get_concrete_function()
    found = [tensor.dtype for tensor in traced.outputs]

    def call(pixels: np.ndarray) -> Sequence[tf.Tensor]:
        return tf.raw_ops.StatefulPartitionedCall(
            args=[tf.constant(pixels), *traced.captured_inputs], Tout=found, f=traced
        )  # type: ignore[no-any-return]

    return call


def _rows(values: Sequence[tf.Tensor], photos: int) -> np.ndarray:
    """Gather each photo's bytes from several tensors; mirror images come behind all of the photos."""
    found = [value.numpy() for value in values]
    parts = [part for value in found for part in np.split(value, len(value) // photos)]
    return np.concatenate([part.reshape(photos, -1).view(np.uint8) for part in parts], 1)


def _served(network: keras.Model, precision: Precision, emulated: bool, scale: float) -> keras.Model:
    """Return a copy that computes each photo by itself and in this precision, all but its last layer.

    Normalizations and rectifiers are folded into the convolutions before them. If the network begins with a
    convolution, that takes pixels in [0, 255], which bfloat16 holds exactly, and does the scaling: of all roundings to
    bfloat16 that of scaled pixels would change the probabilities most.
    """
    import keras
    import tensorflow as tf
    from keras import layers, ops

    from pawcast.models import folding

    class ByColumns(layers.Dense):
        """A dense layer whose product has a column for each row of its input, and reads its kernel row by row."""

        def build(self, shape: tuple[int, ...]) -> None:
            self.transposed = self.add_weight(shape=(self.units, shape[-1]), name="kernel")
            self.bias = self.add_weight(shape=(self.units,), name="bias") if self.use_bias else None
            self.built = True

        def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
            rows = tf.reshape(inputs, [-1, inputs.shape[-1]])
            filled = ops.pad(rows, [[0, -tf.shape(rows)[0] % _SUMS], [0, 0]])
            columns = tf.matmul(self.transposed, filled, transpose_b=True)
            found = tf.transpose(columns)[: tf.shape(rows)[0]]
            found = found if self.bias is None else found + self.bias
            # The last few of many values are no full vector of the CPU, and their sigmoid is another function.
            active = self.activation(_longer(found, _VECTOR))[:-_VECTOR]
            return tf.reshape(active, tf.concat([tf.shape(inputs)[:-1], [self.units]], 0))

    class AverageOneByOne(layers.GlobalAveragePooling2D):
        """An average over the cells of each photo."""

        def call(self, inputs: tf.Tensor) -> tf.Tensor:
            return super().call(_longer(inputs, 1))[:-1]

    kinds: dict[Any, Any] = {layers.Dense: ByColumns, layers.GlobalAveragePooling2D: AverageOneByOne}
    first, last = folding.first_convolution(network), network.layers[-1]
    norms = folding.foldable_norms(network)
    rectifiers = folding.fusable_relus(network)
    away = {layer.name for layer in (*norms.values(), *rectifiers.values())}

    def copied(layer: keras.Layer) -> keras.Layer:
        if precision == "float32" or layer is last or emulated:
            dtype = "float32"
        elif isinstance(layer, layers.BatchNormalization):
            # Means and variances keep all their digits; Keras computes with them in float32.
            dtype = "mixed_bfloat16"
        else:
            # Not mixed, which would round all weights anew in each call.
            dtype = "bfloat16"
        config = {**layer.get_config(), "dtype": dtype}
        if layer.name in norms:
            config["use_bias"] = True
        if layer.name in rectifiers:
            config["activation"] = "relu"
        return kinds.get(type(layer), type(layer)).from_config(config)

    def called(layer: keras.Layer, *inputs: Any, **options: Any) -> Any:
        if layer.name in away:
            return inputs[0]
        return layer(*keras.tree.map_structure(round_to_bfloat16, inputs) if emulated else inputs, **options)

    # A sequential network has nothing to fold, and Keras clones it without calls.
    calls = {"call_function": called} if folding.is_functional(network) else {}
    copy = keras.models.clone_model(network, clone_function=copied, **calls)
    follower = folding.follower(network, first) if first else None
    multiples = np.ones(1, np.float32)
    for layer in (layer for layer in copy.layers if layer.weights):
        own, norm = network.get_layer(layer.name), norms.get(layer.name)
        weights = folding.merge_batch_norm(own, norm) if norm else own.get_weights()
        if own is first:
            weights = [weights[0] * np.float32(scale), *weights[1:]]
        if own is follower:
            weights = [weights[0] / multiples[:, None], *weights[1:]]
        if precision == "bfloat16" and own is not last and not isinstance(own, layers.BatchNormalization):
            if own is first and follower and layer.use_bias:
                *weights, multiples = to_bfloat16_in_multiples(*weights)
            else:
                weights = [quantize_bfloat16(weight) for weight in weights]
        if isinstance(layer, ByColumns):
            weights = [weights[0].T, *weights[1:]]
        layer.set_weights(weights)
    return copy


def _parts(network: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Cut a network behind its last cells: pixels to cells, and cells to the last layer's input and output."""
    import keras

    ends = [network.layers[-1].input, network.outputs[0]]
    cells = next(layer.output for layer in reversed(network.layers) if layer.output.ndim == 4)
    try:
        return keras.Model(network.inputs, cells), keras.Model(cells, ends)
    except ValueError:
        # Something of a user's own network leads past these cells.
        return keras.Model(network.inputs, network.inputs[0]), keras.Model(network.inputs, ends)


def _longer(photos: tf.Tensor, count: int) -> tf.Tensor:
    """Append empty photos. A batch of one would otherwise be taken for no batch, and computed in another order."""
    from keras import ops

    return ops.pad(photos, [[0, count], *[[0, 0]] * (len(photos.shape) - 1)])
