"""A small residual network, made for the most accuracy per second on a CPU."""

from __future__ import annotations

import keras
from keras import layers

from pawcast.models.layers.batch_norm import SyncBatchNorm
from pawcast.models.layers.dropout import Dropout
from pawcast.recipes.schema import Recipe

_CHANNELS = (32, 64, 128, 256)
_SQUEEZED = 4  # the squeeze has a fourth of the channels
_MOMENTUM = 0.9  # of the moving statistics: a short run has few steps


def residual(x: keras.KerasTensor, recipe: Recipe) -> keras.KerasTensor:
    """A stem, then four stages, each halving the sides; pooled at the end, so any size goes in. 2.0 M parameters.

    A stage is a convolution with pooling, then residual pairs (He et al., 2015, https://arxiv.org/abs/1512.03385).
    The last two stages weigh their channels by squeeze and excitation (Hu et al., 2017,
    https://arxiv.org/abs/1709.01507). `recipe.width` multiplies all channels, `recipe.depth` is the pairs in a stage.
    """
    channels = [round(count * recipe.width) for count in _CHANNELS]
    x = _normalized(layers.Conv2D(channels[0], 3, strides=2, **_CONVOLUTION)(x))
    for stage, count in enumerate(channels):
        x = SyncBatchNorm(momentum=_MOMENTUM)(layers.Conv2D(count, 3, **_CONVOLUTION)(x))
        # Rectified behind the pooling: the same to the last bit, for a fourth of the passes over memory.
        x = layers.ReLU()(layers.MaxPooling2D(2)(x))
        for _ in range(recipe.depth):
            x = _pair(x, count, excited=stage >= 2)
    x = layers.GlobalAveragePooling2D()(x)
    return Dropout(recipe.dropout)(x)


_CONVOLUTION = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}


def _pair(before: keras.KerasTensor, channels: int, excited: bool) -> keras.KerasTensor:
    x = _normalized(layers.Conv2D(channels, 3, **_CONVOLUTION)(before))
    x = SyncBatchNorm(momentum=_MOMENTUM)(layers.Conv2D(channels, 3, **_CONVOLUTION)(x))
    if excited:
        x = _excited(x, channels)
    return layers.ReLU()(layers.Add()([before, x]))


def _normalized(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.ReLU()(SyncBatchNorm(momentum=_MOMENTUM)(x))


def _excited(x: keras.KerasTensor, channels: int) -> keras.KerasTensor:
    weight = layers.GlobalAveragePooling2D(keepdims=True)(x)
    weight = layers.Dense(channels // _SQUEEZED, activation="relu", kernel_initializer="he_normal")(weight)
    weight = layers.Dense(channels, activation="sigmoid")(weight)
    return layers.Multiply()([x, weight])
