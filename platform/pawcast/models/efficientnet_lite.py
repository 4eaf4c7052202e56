"""EfficientNet-Lite: EfficientNet without squeeze and excitation, and with ReLU6 instead of swish.

M. Tan and Q. Le, 2019, https://arxiv.org/abs/1905.11946; Lite as published in
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. The stem and the
last convolution have the same width in all sizes. Layers are named as in the published weights, so
`models.pretrained` finds them.
"""

from __future__ import annotations

import math

from pawcast.models.layers.dropout import Dropout
from pawcast.recipes.schema import Recipe
from pawcast.runtime.tensorflow import keras

layers = keras.layers

# Kernel, stride, expansion ratio, channels and repeats of each of the seven stages.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


# Width and depth. Made for 224, 240 and 260 px, with 3.4, 4.2 and 4.9 M parameters; 75.1, 76.7 and
# 77.6% on ImageNet.
_SCALES = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite1": (1.0, 1.1), "efficientnet_lite2": (1.1, 1.2)}


def efficientnet_lite(x: keras.KerasTensor, recipe: Recipe) -> keras.KerasTensor:
    """The network that `recipe.model` names, up to the last dense layer."""
    width, depth = _SCALES[recipe.model]
    # The published weights expect (byte - 127) / 128.
    x = layers.Rescaling(255 / 128, offset=-127 / 128, name="rescale")(x)
    x = _convolution(x, 32, 3, 2, "_conv_stem", "_bn0")
    block = 0
    for stage, (kernel, stride, ratio, channels, repeats) in enumerate(_STAGES):
        # The first and the last stage keep their one block, whatever the depth.
        scales_with_depth = 0 < stage < len(_STAGES) - 1
        for repeat in range(math.ceil(repeats * depth) if scales_with_depth else repeats):
            name = f"_blocks_{block}"
            x = _block(x, kernel, stride if repeat == 0 else 1, ratio, _round_channels(channels * width), name)
            block += 1
    x = _convolution(x, 1280, 1, 1, "_conv_head", "_bn1")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return Dropout(recipe.dropout, name="head_dropout")(x)


def _block(x: keras.KerasTensor, kernel: int, stride: int, ratio: int, channels: int, name: str) -> keras.KerasTensor:
    """An inverted residual: widen, convolve each channel alone, narrow."""
    shortcut, count = x, x.shape[-1]
    if ratio > 1:
        x = _convolution(x, count * ratio, 1, 1, f"{name}_expand_conv", f"{name}_bn0")
    x = layers.DepthwiseConv2D(kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv")(x)
    x = layers.ReLU(6.0)(_batch_norm(f"{name}_bn1")(x))
    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _batch_norm(f"{name}_bn2")(x)
    return layers.Add()([shortcut, x]) if stride == 1 and count == channels else x


def _convolution(
    x: keras.KerasTensor, channels: int, kernel: int, stride: int, name: str, norm: str
) -> keras.KerasTensor:
    x = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return layers.ReLU(6.0)(_batch_norm(norm)(x))


def _batch_norm(name: str) -> keras.layers.Layer:
    # Frozen: the statistics of millions of photos are kept, and ranks have no sums to exchange.
    return layers.BatchNormalization(epsilon=1e-3, name=name, trainable=False)


def _round_channels(channels: float) -> int:
    """Round to a multiple of 8 that is at most a tenth smaller, as MobileNet's code does."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8
