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
    if not is_functional(model):
        return {}
    inputs = _input_layers(model)
    uses = Counter(source for sources in inputs.values() for source in sources)
    norms = {}
    for norm in model.layers:
        if not _is_per_channel_norm(norm) or (frozen_only and norm.trainable):
            continue
        before, *others = [model.get_layer(name) for name in inputs[norm.name]]
        if not others and _is_linear_convolution(before) and uses[before.name] == 1:
            norms[before.name] = norm
    return norms


def fusable_relus(model: keras.Model) -> dict[str, keras.layers.ReLU]:
    """Return the ReLUs after max pooling that can move into the convolution before the pooling.

    The values are the same; without gradients a ReLU costs nothing within the convolution. Keys are
    the convolutions' names. Only a functional network has any.
    """
    if not is_functional(model):
        return {}
    inputs, norms = _input_layers(model), foldable_norms(model)
    uses = Counter(source for sources in inputs.values() for source in sources)
    convolution_of_norm = {norm.name: name for name, norm in norms.items()}

    def sole_input(name: str) -> str:
        """Return the layer's only input, if that input feeds no other layer."""
        source = inputs[name][0] if len(inputs[name]) == 1 else ""
        return source if uses[source] == 1 else ""

    relus = {}
    for layer in model.layers:
        pooling = sole_input(layer.name) if _is_plain_relu(layer) else ""
        name = sole_input(pooling) if pooling and type(model.get_layer(pooling)) is layers.MaxPooling2D else ""
        name = convolution_of_norm.get(name, name)
        if name and _is_linear_convolution(model.get_layer(name)) and (name in norms or uses[name] == 1):
            relus[name] = layer
    return relus


def first_convolution(model: keras.Model) -> keras.layers.Conv2D | None:
    """Return the convolution that is the only user of the pixels and has no other input.

    Such a convolution can do the scaling of the pixels.
    """
    if not is_functional(model):
        return None
    pixels, inputs = model.layers[0].name, _input_layers(model)
    users = [model.get_layer(name) for name, sources in inputs.items() if pixels in sources and name]
    alone = len(users) == 1 and type(users[0]) is layers.Conv2D and inputs[users[0].name] == [pixels]
    return users[0] if alone else None


def merge_batch_norm(convolution: keras.layers.Layer, norm: keras.layers.BatchNormalization) -> list[np.ndarray]:
    """Return kernel and bias, float32, of a convolution that does the work of both layers."""
    scale, shift = (np.asarray(part) for part in _scale_and_shift(convolution, norm))
    return [np.asarray(convolution.kernel) * scale.reshape(_scale_shape(convolution)), shift]


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
        kernel = ops.cast(convolution.kernel * ops.reshape(scale, _scale_shape(convolution)), x.dtype)
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
    scale = norm.gamma * ops.rsqrt(norm.moving_variance + norm.epsilon)
    bias = convolution.bias if convolution.use_bias else 0.0
    return scale, norm.beta + (bias - norm.moving_mean) * scale


def _scale_shape(convolution: keras.layers.Layer) -> tuple[int, ...]:
    """The shape in which one factor per output channel multiplies the kernel."""
    if isinstance(convolution, layers.DepthwiseConv2D):
        return (convolution.kernel.shape[-2], convolution.kernel.shape[-1])
    return (-1,)


def _input_layers(model: keras.Model) -> dict[str, list[str]]:
    """Return the names of the layers that each layer takes from; the network's outputs under ""."""
    config = model.get_config()
    outputs = [part for part in keras.tree.flatten(config["output_layers"]) if isinstance(part, str)]
    return {"": outputs} | {layer["name"]: _source_layers(layer["inbound_nodes"]) for layer in config["layers"]}


def _source_layers(part: Any) -> list[str]:
    """Name the layers that the tensors in a part of a layer's configuration come from."""
    if isinstance(part, dict):
        return [part["keras_history"][0]] if "keras_history" in part else _source_layers([*part.values()])
    return [name for inner in part for name in _source_layers(inner)] if isinstance(part, list | tuple) else []
