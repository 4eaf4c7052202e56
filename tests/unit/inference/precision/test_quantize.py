"""Quantized weights: bfloat16 values, close to the originals, with the sum of each kernel kept."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from pawcast.inference.precision.quantize import quantize_bfloat16, round_to_bfloat16


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(0, 0.1, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 3, 3, 32), (5, 3, 8, 4), (1, 1, 16, 8), (3, 3, 24, 1), (64, 8), (8,)])
def test_quantized_values_are_bfloat16_and_close_to_the_originals(shape):
    weight = weights(*shape)
    quantized = quantize_bfloat16(weight)
    assert quantized.dtype == np.float32
    assert quantized.shape == shape
    np.testing.assert_array_equal(quantized, quantized.astype(ml_dtypes.bfloat16).astype(np.float32))
    # A bfloat16 step is at most 1/128 of a value; a weight takes over half a step of a larger one.
    assert np.abs(quantized - weight).max() <= np.abs(weight).max() / 128


def test_the_sum_of_each_kernel_is_kept():
    weight = weights(3, 3, 16, 32)
    exact = weight.sum((0, 1), dtype=np.float64)
    to_nearest, quantized = (
        np.abs(rounded.sum((0, 1), dtype=np.float64) - exact)
        for rounded in (round_to_bfloat16(weight).numpy(), quantize_bfloat16(weight))
    )
    # The remaining error is the rounding of the smallest weight of each kernel.
    assert (quantized <= np.abs(weight).min((0, 1)) / 256 + np.abs(weight).max() / 2**23).all()
    assert quantized.mean() < to_nearest.mean() / 10


@pytest.mark.parametrize("shape", [(1, 1, 16, 8), (64, 8), (8,)])
def test_weights_other_than_kernels_are_rounded_to_the_nearest(shape):
    weight = weights(*shape)
    np.testing.assert_array_equal(quantize_bfloat16(weight), weight.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_values_that_bfloat16_holds_do_not_change():
    weight = weights(3, 3, 4, 4).astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(quantize_bfloat16(weight), weight)
