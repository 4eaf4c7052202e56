"""Batch normalization of fixed statistics is a scale and a shift, which the convolution before it can do as well.

B. Jacob et al., 2017, https://arxiv.org/abs/1712.05877, section 3.2.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from pawcast.models.layers.batch_norm import SyncBatchNorm


def functional(model: keras.Model) -> bool:
    """Whether a network is a graph of layers, which Keras can clone call by call."""
    return type(model).__name__ == "Functional"  # Keras exports no name for the kind


def pairs(model: keras.Model, frozen_only: bool = False) -> dict[str, layers.BatchNormalization]:
    """Return the normalizations that can be folded, by the names of the convolutions before them.

    Args:
        model: A network; only a functional one has any, and models within it are left alone.
        frozen_only: Leave out those whose statistics are still learnt.
    """
    if not functional(model):
        return {}
    sources = _sources(model)
    uses = Counter(source for taken in sources.values() for source in taken)
    found = {}
    for norm in model.layers:
        if not _per_channel(norm) or (frozen_only and norm.trainable):
            continue
        before, *others = [model.get_layer(source) for source in sources[norm.name]]
        if not others and _linear_convolution(before) and uses[before.name] == 1:
            found[before.name] = norm
    return found


def first_convolution(model: keras.Model) -> layers.Conv2D | None:
    """Return the convolution that alone takes a network's pixels, and nothing else: their scale can be its own."""
    if not functional(model):
        return None
    pixels, sources = model.layers[0].name, _sources(model)
    takers = [model.get_layer(name) for name, taken in sources.items() if pixels in taken and name]
    alone = len(takers) == 1 and type(takers[0]) is layers.Conv2D and sources[takers[0].name] == [pixels]
    return takers[0] if alone else None


def rectifiers(model: keras.Model) -> dict[str, layers.ReLU]:
    """Return the ReLUs behind max pooling that may as well lie before it, by the names of the convolutions there.

    The values are the same. In training a ReLU has a fourth of the values to pass behind the pooling; without gradients
    it costs nothing as part of the convolution.
    """
    if not functional(model):
        return {}
    sources, norms = _sources(model), pairs(model)
    uses = Counter(source for taken in sources.values() for source in taken)
    convolutions = {norm.name: name for name, norm in norms.items()}

    def before(name: str) -> str:
        """The one layer that this one takes from, if nothing else takes from that."""
        source = sources[name][0] if len(sources[name]) == 1 else ""
        return source if uses[source] == 1 else ""

    found = {}
    for layer in model.layers:
        pooling = before(layer.name) if _plain_relu(layer) else ""
        name = before(pooling) if pooling and type(model.get_layer(pooling)) is layers.MaxPooling2D else ""
        name = convolutions.get(name, name)
        if name and _linear_convolution(model.get_layer(name)) and (name in norms or uses[name] == 1):
            found[name] = layer
    return found


def merged(convolution: keras.Layer, norm: layers.BatchNormalization) -> list[np.ndarray]:
    """Return kernel and bias, float32, of a convolution that does the work of both."""
    scale, shift = (np.asarray(part) for part in _scale_and_shift(convolution, norm))
    return [np.asarray(convolution.kernel) * scale.reshape(_along(convolution)), shift]


def folded(model: keras.Model) -> keras.Model:
    """Return a network of the same variables, whose convolutions do the work of the frozen normalizations.

    For training: the gradients are those of the convolutions' own kernels. Where nothing can be folded, it is `model`.
    """
    norms = pairs(model, frozen_only=True)
    if not norms:
        return model
    away = {norm.name for norm in norms.values()}

    def call(layer: keras.Layer, x: Any, **options: Any) -> Any:
        if layer.name in away:
            return x
        return _Folded(layer, norms[layer.name])(x) if layer.name in norms else layer(x, **options)

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


class _Folded(layers.Layer):
    """A convolution and the normalization behind it, which keep their variables."""

    def __init__(self, convolution: keras.Layer, norm: layers.BatchNormalization) -> None:
        # The product is rounded, not its factors.
        super().__init__(name=f"{convolution.name}_folded", autocast=False)
        self.convolution, self.norm = convolution, norm

    def call(self, x: Any) -> Any:
        convolution = self.convolution
        scale, shift = _scale_and_shift(convolution, self.norm)
        kernel = ops.cast(convolution.kernel * ops.reshape(scale, _along(convolution)), x.dtype)
        if isinstance(convolution, layers.DepthwiseConv2D):
            y = ops.depthwise_conv(
                x, kernel, convolution.strides, convolution.padding, convolution.data_format, convolution.dilation_rate
            )
        else:
            y = convolution.convolution_op(x, kernel)
        return ops.add(y, ops.cast(shift, y.dtype))


# Exact types here and below: what a user's subclass computes is unknown.
def _per_channel(layer: keras.Layer) -> bool:
    known = type(layer) in (layers.BatchNormalization, SyncBatchNorm)
    return known and layer.center and layer.scale and layer.axis in (-1, 3)


def _linear_convolution(layer: keras.Layer) -> bool:
    known = type(layer) in (layers.Conv2D, layers.DepthwiseConv2D)
    return known and layer.activation is keras.activations.linear and layer.data_format == "channels_last"


def _plain_relu(layer: keras.Layer) -> bool:
    return type(layer) is layers.ReLU and layer.max_value is None and not layer.threshold and not layer.negative_slope


def _scale_and_shift(convolution: keras.Layer, norm: layers.BatchNormalization) -> tuple[Any, Any]:
    scale = norm.gamma * ops.rsqrt(norm.moving_variance + norm.epsilon)
    bias = convolution.bias if convolution.use_bias else 0.0
    return scale, norm.beta + (bias - norm.moving_mean) * scale


def _along(convolution: keras.Layer) -> tuple[int, ...]:
    """The shape in which one number a channel multiplies the kernel."""
    if isinstance(convolution, layers.DepthwiseConv2D):
        return (convolution.kernel.shape[-2], convolution.kernel.shape[-1])
    return (-1,)


def _sources(model: keras.Model) -> dict[str, list[str]]:
    """Return the layers that each layer takes from, by their names; those that the network ends in, by an empty one."""
    config = model.get_config()
    ends = [part for part in keras.tree.flatten(config["output_layers"]) if isinstance(part, str)]
    return {"": ends} | {layer["name"]: _histories(layer["inbound_nodes"]) for layer in config["layers"]}


def _histories(part: Any) -> list[str]:
    """Find the layers that a configuration's tensors come from."""
    if isinstance(part, dict):
        return [part["keras_history"][0]] if "keras_history" in part else _histories([*part.values()])
    return [name for inner in part for name in _histories(inner)] if isinstance(part, list | tuple) else []
