"""EfficientNet-Lite: M. Tan's EfficientNet (2019, https://arxiv.org/abs/1905.11946) without squeeze and excitation.

With ReLU6 in place of swish, and a stem and head of one width for all sizes, as published in
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. Layers are named as the published
weights name theirs, so `pretrained` finds them.
"""

from __future__ import annotations

import math

import keras
from keras import layers

from pawcast.models.layers.dropout import Dropout
from pawcast.recipes.schema import Recipe

# Kernel, stride, expansion, channels, repeats, of each of the seven stages.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_STEM, _TOP = 32, 1280
_EPSILON = 1e-3


def lite0(x: keras.KerasTensor, recipe: Recipe) -> keras.KerasTensor:
    """EfficientNet-Lite0, made for 224 px: 3.4 M parameters, 75.1% on ImageNet."""
    return _network(x, recipe, width=1.0, depth=1.0)


def lite1(x: keras.KerasTensor, recipe: Recipe) -> keras.KerasTensor:
    """EfficientNet-Lite1, made for 240 px: 4.2 M parameters, 76.7% on ImageNet."""
    return _network(x, recipe, width=1.0, depth=1.1)


def lite2(x: keras.KerasTensor, recipe: Recipe) -> keras.KerasTensor:
    """EfficientNet-Lite2, made for 260 px: 4.9 M parameters, 77.6% on ImageNet."""
    return _network(x, recipe, width=1.1, depth=1.2)


def _network(x: keras.KerasTensor, recipe: Recipe, width: float, depth: float) -> keras.KerasTensor:
    # What the published weights expect: (byte - 127) / 128.
    x = layers.Rescaling(255 / 128, offset=-127 / 128, name="rescale")(x)
    x = _convolved(x, _STEM, 3, 2, "_conv_stem", "_bn0")
    block = 0
    for number, (kernel, stride, expansion, channels, repeats) in enumerate(_STAGES):
        # The first and the last stage keep their one block whatever the depth.
        inner = 0 < number < len(_STAGES) - 1
        for repeat in range(math.ceil(repeats * depth) if inner else repeats):
            name = f"_blocks_{block}"
            x = _block(x, kernel, stride if repeat == 0 else 1, expansion, _rounded(channels * width), name)
            block += 1
    x = _convolved(x, _TOP, 1, 1, "_conv_head", "_bn1")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return Dropout(recipe.dropout, name="head_dropout")(x)


def _block(
    x: keras.KerasTensor, kernel: int, stride: int, expansion: int, channels: int, name: str
) -> keras.KerasTensor:
    """An inverted residual: widen, convolve each channel alone, narrow."""
    before, count = x, x.shape[-1]
    if expansion > 1:
        x = _convolved(x, count * expansion, 1, 1, f"{name}_expand_conv", f"{name}_bn0")
    x = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv")(x)
    x = layers.ReLU(6.0)(_norm(f"{name}_bn1")(x))
    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _norm(f"{name}_bn2")(x)
    return layers.Add()([before, x]) if stride == 1 and count == channels else x


def _convolved(x: keras.KerasTensor, channels: int, kernel: int, stride: int, name: str, bn: str) -> keras.KerasTensor:
    x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return layers.ReLU(6.0)(_norm(bn)(x))


def _norm(name: str) -> keras.layers.Layer:
    # Not trainable: the statistics of millions of photos are kept, and ranks have nothing to agree on.
    return layers.BatchNormalization(epsilon=_EPSILON, name=name, trainable=False)


def _rounded(channels: float) -> int:
    """The nearest multiple of 8 that isn't more than a tenth smaller, as in MobileNet's code."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near if near >= 0.9 * channels else near + 8
