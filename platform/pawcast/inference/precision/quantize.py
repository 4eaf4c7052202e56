"""Weights in bfloat16 with the sum of each kernel kept, which spares most of what rounding does to a score.

bfloat16 has 8 binary digits, so a weight is off by up to 1/256 of itself. Neighbouring pixels are much alike, so what
goes on through the network is the sum of a kernel's errors rather than each of them, and the errors of weights that are
rounded one by one add up. Here each weight takes over what the one before it lost, as error diffusion does with grey
levels (R. W. Floyd and L. Steinberg, "An adaptive algorithm for spatial greyscale", 1976). The largest goes first: what
the last one loses is lost, and the smallest has the finest steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def round_to_bfloat16(value: Any) -> Any:
    """Round a tensor to the nearest bfloat16; return float32 of the same shape."""
    from keras import ops

    return ops.cast(ops.cast(value, "bfloat16"), "float32")


def quantize_bfloat16(weight: np.ndarray) -> np.ndarray:
    """Return values that bfloat16 holds exactly, in float32, each at most a step or so from what it was.

    Args:
        weight: float32, of any shape. With four axes it is a convolution's kernels [height, width, in, out], and the
            sum of each is kept; everything else is rounded to the nearest.
    """
    if weight.ndim != 4:
        return np.asarray(round_to_bfloat16(weight))
    taps = weight.reshape(-1, weight.shape[2] * weight.shape[3])
    kernels = np.arange(taps.shape[1])
    rounded, carried = np.empty_like(taps), np.zeros_like(taps[0])
    for tap in np.argsort(-np.abs(taps), axis=0):
        wanted = taps[tap, kernels] + carried
        rounded[tap, kernels] = np.asarray(round_to_bfloat16(wanted))
        carried = wanted - rounded[tap, kernels]
    return rounded.reshape(weight.shape)
