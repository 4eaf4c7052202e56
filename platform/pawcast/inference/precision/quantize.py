"""Weights in bfloat16, rounded so that the sum of each convolution kernel is kept.

bfloat16 has 8 significant bits, so rounding moves a weight by up to 1/256 of itself. Neighboring
pixels are alike, so a kernel's response changes by the sum of its errors. If each weight were
rounded to the nearest, these errors would add up. Here each weight takes over the error of the
weight before it, as error diffusion does with gray levels (R. W. Floyd and L. Steinberg, "An
adaptive algorithm for spatial greyscale", 1976). The largest weight goes first, because the error
of the last one is lost, and the smallest weight has the finest steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pawcast.runtime.tensorflow import keras


def round_to_bfloat16(value: Any) -> Any:
    """Round a tensor to the nearest bfloat16; return float32 of the same shape."""
    return keras.ops.cast(keras.ops.cast(value, "bfloat16"), "float32")


def quantize_bfloat16(weight: np.ndarray) -> np.ndarray:
    """Return float32 values that bfloat16 holds exactly, each within about a step of the original.

    Args:
        weight: float32, any shape. Four axes are a convolution's kernels [height, width, in, out]:
            the sum over height and width is kept for each. Anything else is rounded to the nearest.
    """
    if weight.ndim != 4:
        return np.asarray(round_to_bfloat16(weight))
    taps = weight.reshape(-1, weight.shape[2] * weight.shape[3])
    kernels = np.arange(taps.shape[1])
    rounded, error = np.empty_like(taps), np.zeros_like(taps[0])
    for tap in np.argsort(-np.abs(taps), axis=0):
        wanted = taps[tap, kernels] + error
        rounded[tap, kernels] = np.asarray(round_to_bfloat16(wanted))
        error = wanted - rounded[tap, kernels]
    return rounded.reshape(weight.shape)
