"""Weights in bfloat16 with the sum of each kernel kept, which spares most of what rounding does to a score.

bfloat16 has 8 binary digits, so a weight is off by up to 1/256 of itself. Neighbouring pixels are much alike, so what
goes on through the network is the sum of a kernel's errors rather than each of them, and the errors of weights that are
rounded one by one add up. Here each weight takes over what the one before it lost, as error diffusion does with grey
levels (R. W. Floyd and L. Steinberg, "An adaptive algorithm for spatial greyscale", 1976). The largest goes first: what
the last one loses is lost, and the smallest has the finest steps.

The first convolution's weights would still do most of the harm. Where the next one can make up for it, each of its
kernels is rounded in a multiple of its own, since times 1.3 it meets other steps: of many, the one that loses least.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_MULTIPLES = 64
# What photos have in common, measured on Dogs vs. Cats: mean and deviation of values in [0, 255], and how a pixel
# correlates with the next one, and a colour with another one.
_MEAN, _DEVIATION, _NEXT, _COLOURS = 116.0, 64.0, 0.97, 0.93


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


def to_bfloat16_in_multiples(kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round what a network's pixels meet first, each kernel and its bias times what makes them lose least.

    Least, that is, of the mean square of the kernel's answers to photos.

    Args:
        kernel: float32 [height, width, in, out], for pixels in [0, 255].
        bias: float32 [out].

    Returns:
        Kernels and biases, values that bfloat16 holds, and the multiples that they are: float32 [out] in [1, 2).
    """
    multiples = np.exp2(np.arange(_MULTIPLES, dtype=np.float32) / _MULTIPLES)
    # Weights of one kernel lie in a column, and its bias is the last one, whose pixel is always 1.
    taps = np.concatenate([kernel.reshape(-1, len(bias)), bias[None]])
    tried = taps[..., None] * multiples
    kernels = tried[:-1].reshape(*kernel.shape[:3], -1)
    rounded = np.concatenate([quantize_bfloat16(kernels).reshape(tried[:-1].shape), round_to_bfloat16(tried[-1:])])
    errors = (rounded - tried) / multiples
    lost = np.einsum("iom,ij,jom->om", errors, _moments(*kernel.shape[:3]), errors, optimize=True)
    best = lost.argmin(1)
    chosen = np.take_along_axis(rounded, best[None, :, None], 2)[..., 0]
    return chosen[:-1].reshape(kernel.shape), chosen[-1], multiples[best]


def _moments(height: int, width: int, colours: int) -> np.ndarray:
    """The mean products of any two of a patch's values, in the order of a kernel's, and of a last one, which is 1."""
    y, x, colour = (axis.ravel() for axis in np.indices((height, width, colours)))
    apart = np.hypot(y[:, None] - y, x[:, None] - x)
    alike = _NEXT**apart * np.where(colour[:, None] == colour, 1, _COLOURS)
    means = np.append(np.full(len(y), _MEAN), 1)
    return np.outer(means, means) + np.pad(_DEVIATION**2 * alike, (0, 1))
