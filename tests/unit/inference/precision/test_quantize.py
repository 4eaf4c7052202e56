"""Weights in bfloat16: values that it holds, near the right ones, with kernels' sums kept."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from pawcast.inference.precision.quantize import quantize_bfloat16, round_to_bfloat16


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(0, 0.1, shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(3, 3, 3, 32), (5, 3, 8, 4), (1, 1, 16, 8), (3, 3, 24, 1), (64, 8), (8,)])
def test_all_values_are_bfloat16s_not_far_from_what_they_were(shape):
    weight = weights(*shape)
    found = quantize_bfloat16(weight)
    assert found.dtype == np.float32
    assert found.shape == shape
    np.testing.assert_array_equal(found, found.astype(ml_dtypes.bfloat16).astype(np.float32))
    # A step of bfloat16 is at most 1/128 of a value, and what a weight takes over is half a step of a larger one.
    assert np.abs(found - weight).max() <= np.abs(weight).max() / 128


def test_the_sum_of_each_kernel_is_kept():
    weight = weights(3, 3, 16, 32)
    exact = weight.sum((0, 1), dtype=np.float64)
    one_by_one, found = (
        np.abs(rounded.sum((0, 1), dtype=np.float64) - exact)
        for rounded in (round_to_bfloat16(weight).numpy(), quantize_bfloat16(weight))
    )
    # What is left is the rounding error of the smallest weight of each kernel.
    assert (found <= np.abs(weight).min((0, 1)) / 256 + np.abs(weight).max() / 2**23).all()
    assert found.mean() < one_by_one.mean() / 10


@pytest.mark.parametrize("shape", [(1, 1, 16, 8), (64, 8), (8,)])
def test_what_has_no_kernel_is_rounded_to_the_nearest(shape):
    weight = weights(*shape)
    np.testing.assert_array_equal(quantize_bfloat16(weight), weight.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_what_bfloat16_holds_stays_as_it_is():
    weight = weights(3, 3, 4, 4).astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(quantize_bfloat16(weight), weight)
