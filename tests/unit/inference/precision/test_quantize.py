"""Weights in bfloat16: values that it holds, near the right ones, with kernels' sums kept."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from pawcast.inference.precision.quantize import quantize_bfloat16, round_to_bfloat16, to_bfloat16_in_multiples


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


def test_a_first_kernel_is_rounded_in_the_multiple_that_loses_least_of_photos(picture):
    kernel, bias = weights(3, 3, 3, 32) / 255, weights(32)
    rounded, biases, multiples = to_bfloat16_in_multiples(kernel, bias)
    for values in (rounded, biases):
        np.testing.assert_array_equal(values, values.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert ((multiples >= 1) & (multiples < 2)).all()
    assert len(set(multiples)) > 8
    patches = np.lib.stride_tricks.sliding_window_view(picture.astype(np.float64), (3, 3), (0, 1))
    patches = patches.transpose(0, 1, 3, 4, 2).reshape(-1, 27)

    def lost(kernels: np.ndarray, biases: np.ndarray) -> np.ndarray:
        errors = patches @ (kernels.astype(np.float64) - kernel).reshape(27, 32) + biases.astype(np.float64) - bias
        return np.sqrt((errors**2).mean(0))

    as_they_are = lost(quantize_bfloat16(kernel), round_to_bfloat16(bias).numpy())
    assert lost(rounded / multiples, biases / multiples).mean() < as_they_are.mean() / 3
