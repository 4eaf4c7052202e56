"""Fold batch normalization and ReLU into the convolutions before them.

Batch normalization with fixed statistics is a scale and a shift per channel, which a convolution
can do as well: B. Jacob et al., 2017, https://arxiv.org/abs/1712.05877, section 3.2.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from pawcast.models.layers.batch_norm import SyncBatchNorm
from pawcast.runtime.tensorflow import keras

layers, ops = keras.layers, keras.ops


def is_functional(model: keras.Model) -> bool:
    """Whether a network is a graph of layers, which Keras can clone call by call."""
    return type(model).__name__ == "Functional"  # Keras exports no name for the class


def foldable_norms(model: keras.Model, frozen_only: bool = False) -> dict[str, keras.layers.BatchNormalization]:
    """Return the normalizations that can be folded, by the names of the convolutions before them.

    Only a functional network has any; models within it are left alone. With `frozen_only`, those
    whose statistics are still trained are left out.
    """
    norms = {}
    for name, source in _sole_inputs(model).items():
        norm = model.get_layer(name)
        wanted = _is_per_channel_norm(norm) and not (frozen_only and norm.trainable)
        if wanted and _is_linear_convolution(model.get_layer(source)):
            norms[source] = norm
    return norms


def fusable_relus(model: keras.Model) -> dict[str, keras.layers.ReLU]:
    """Return the ReLUs after max pooling that can move into the convolution before the pooling.

    The values are the same; without gradients a ReLU costs nothing within the convolution. Keys are
    the convolutions' names. Only a functional network has any.
    """
    inputs = _sole_inputs(model)
    convolution_of_norm = {norm.name: name for name, norm in foldable_norms(model).items()}
    relus = {}
    for name, pooling in inputs.items():
        relu, before = model.get_layer(name), inputs.get(pooling)
        if before and _is_plain_relu(relu) and type(model.get_layer(pooling)) is layers.MaxPooling2D:
            before = convolution_of_norm.get(before, before)
            if _is_linear_convolution(model.get_layer(before)):
                relus[before] = relu
    return relus


def first_convolution(model: keras.Model) -> keras.layers.Conv2D | None:
    """Return the convolution that is the only user of the pixels and has no other input.

    Such a convolution can do the scaling of the pixels.
    """
    sole_inputs = _sole_inputs(model)
    users = [model.get_layer(name) for name, source in sole_inputs.items() if source == model.layers[0].name]
    return users[0] if users and type(users[0]) is layers.Conv2D else None


def merge_batch_norm(convolution: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Return kernel and bias, float32, of a convolution that does the work of both layers."""
    scale, shift = (np.asarray(part) for part in _scale_and_shift(convolution, norm))
    return [np.asarray(convolution.kernel) * scale, shift]


def fold_frozen_batch_norm(model: keras.Model) -> keras.Model:
    """Return a network of the same variables whose convolutions include the frozen normalizations.

    For training: gradients are those of the convolutions' own kernels. If nothing can be folded,
    `model` itself is returned.
    """
    norms = foldable_norms(model, frozen_only=True)
    if not norms:
        return model
    folded_names = {norm.name for norm in norms.values()}

    def call(layer: keras.layers.Layer, x: Any, **options: Any) -> Any:
        if layer.name in folded_names:
            return x
        return _FoldedConvolution(layer, norms[layer.name])(x) if layer.name in norms else layer(x, **options)

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


class _FoldedConvolution(keras.layers.Layer):
    """A convolution and the normalization after it, as one operation on their own variables."""

    def __init__(self, convolution: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> None:
        # Without autocast, the product is rounded to the compute dtype, not its factors.
        super().__init__(name=f"{convolution.name}_folded", autocast=False)
        self.convolution, self.norm = convolution, norm

    def call(self, x: Any) -> Any:
        convolution = self.convolution
        scale, shift = _scale_and_shift(convolution, self.norm)
        kernel = ops.cast(convolution.kernel * scale, x.dtype)
        if isinstance(convolution, layers.DepthwiseConv2D):
            y = ops.depthwise_conv(
                x, kernel, convolution.strides, convolution.padding, convolution.data_format, convolution.dilation_rate
            )
        else:
            y = convolution.convolution_op(x, kernel)
        return ops.add(y, ops.cast(shift, y.dtype))


# Exact types in these four: what a user's subclass computes is unknown.
def _is_per_channel_norm(layer: keras.layers.Layer) -> bool:
    known = type(layer) in (layers.BatchNormalization, SyncBatchNorm)
    return known and layer.center and layer.scale and layer.axis in (-1, 3)


def _is_linear_convolution(layer: keras.layers.Layer) -> bool:
    known = type(layer) in (layers.Conv2D, layers.DepthwiseConv2D)
    return known and layer.activation is keras.activations.linear and layer.data_format == "channels_last"


def _is_plain_relu(layer: keras.layers.Layer) -> bool:
    return type(layer) is layers.ReLU and layer.max_value is None and not layer.threshold and not layer.negative_slope


def _scale_and_shift(convolution: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> tuple[Any, Any]:
    """Return what multiplies the kernel, in a shape that fits it, and the bias."""
    scale = norm.gamma * ops.rsqrt(norm.moving_variance + norm.epsilon)
    bias = convolution.bias if convolution.use_bias else 0.0
    shift = norm.beta + (bias - norm.moving_mean) * scale
    shape = convolution.kernel.shape[-2:] if isinstance(convolution, layers.DepthwiseConv2D) else (-1,)
    return ops.reshape(scale, shape), shift


def _sole_inputs(model: keras.Model) -> dict[str, str]:
    """Return, by name, each layer with one input that feeds nothing else, and that input's layer.

    Only a functional network has any.
    """
    if not is_functional(model):
        return {}
    config = model.get_config()
    inputs = {layer["name"]: _source_layers(layer["inbound_nodes"]) for layer in config["layers"]}
    outputs = [part for part in keras.tree.flatten(config["output_layers"]) if isinstance(part, str)]
    uses = Counter([*outputs, *(source for sources in inputs.values() for source in sources)])
    return {name: sources[0] for name, sources in inputs.items() if len(sources) == 1 and uses[sources[0]] == 1}


def _source_layers(part: Any) -> list[str]:
    """Name the layers that the tensors in a part of a layer's configuration come from."""
    if isinstance(part, dict):
        return [part["keras_history"][0]] if "keras_history" in part else _source_layers([*part.values()])
    return [name for inner in part for name in _source_layers(inner)] if isinstance(part, list | tuple) else []
