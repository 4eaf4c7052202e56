"""Resizing, and the preprocessing that a model version records."""

from __future__ import annotations

import numpy as np
import pytest

from pawcast.errors import ImageError
from pawcast.vision import decode, preprocess
from pawcast.vision.preprocess import Preprocessing
from tests.support.files import encode


def test_resize_makes_squares_and_keeps_what_has_the_size(picture):
    assert preprocess.resize(picture, 32).shape == (32, 32, 3)
    assert preprocess.resize(picture, 200).shape == (200, 200, 3)
    square = picture[:60, :60]
    assert preprocess.resize(square, 60) is square


@pytest.mark.parametrize("times", [2, 3, 6])
def test_shrinking_averages_all_pixels(picture, times):
    square = picture[:60, :60]
    size = 60 // times
    means = square.reshape(size, times, size, times, 3).mean((1, 3))
    assert np.abs(preprocess.resize(square, size) - means).max() <= 1


def test_shrinking_skips_no_pixel():
    for height, width in [(side, side) for side in range(61, 121)] + [(80, 170), (61, 300)]:
        for column in range(width):
            line = np.zeros((height, width, 3), np.uint8)
            line[:, column] = 255
            assert preprocess.resize(line, 60).any(), (height, width, column)


def test_apply_takes_bytes_or_pixels(picture):
    data = encode(picture, "PNG")
    preprocessing = Preprocessing(image_size=32)
    np.testing.assert_array_equal(preprocessing.apply(data), preprocessing.apply(decode.decode(data)))
    soft = Preprocessing(image_size=64, eval_downscale=25)
    np.testing.assert_array_equal(soft.apply(data), soft.apply(picture))
    np.testing.assert_array_equal(preprocessing.apply(picture), preprocess.resize(picture, 32))
    with pytest.raises(ImageError):
        preprocessing.apply(b"no photo")


def test_with_eval_downscale_large_photos_are_no_sharper_than_small_ones():
    large = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    small = preprocess.resize(large, 100)

    def mean_difference(preprocessing: Preprocessing) -> float:
        assert preprocessing.apply(large).shape == (64, 64, 3)
        return float(np.abs(preprocessing.apply(large).astype(int) - preprocessing.apply(small)).mean())

    soft, sharp = Preprocessing(image_size=64, eval_downscale=25), Preprocessing(image_size=64)
    assert mean_difference(soft) < 0.5 < mean_difference(sharp)
    np.testing.assert_array_equal(soft.apply(large), preprocess.resize(preprocess.resize(large, 25), 64))
    np.testing.assert_array_equal(sharp.apply(large), preprocess.resize(large, 64))
