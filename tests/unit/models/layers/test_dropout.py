"""Dropout whose masks belong to photos."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pawcast.models.layers import dropout
from pawcast.runtime.tensorflow import tf
from tests.support.training import network_and_optimizer


@pytest.mark.parametrize("world", [2, 3])
def test_a_photo_has_the_same_mask_on_any_rank(world):
    network, _ = network_and_optimizer("smoke", "image_size=32", "dropout=0.4")
    layer = next(layer for layer in network.layers if isinstance(layer, dropout.Dropout))
    ones = np.ones((10, *layer.output.shape[1:]), np.float32)
    call = tf.function(lambda x: layer(x, training=True))

    def dropped(step: int, first: int, last: int) -> np.ndarray:
        dropout.place(network, 0, step, first, 10)
        return call(tf.constant(ones[first:last])).numpy()

    whole = dropped(5, 0, 10)
    bounds = [10 * rank // world for rank in range(world + 1)]
    parts = [dropped(5, first, last) for first, last in pairwise(bounds)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert set(np.unique(whole)) == {np.float32(0), np.float32(1 / np.float32(0.6))}
    assert (whole == 0).mean() == pytest.approx(0.4, abs=0.05)
    # Other photos and other steps have other masks.
    assert not np.array_equal(whole[0], whole[1])
    assert not np.array_equal(dropped(6, 0, 10), whole)
    assert np.array_equal(layer(ones, training=False), ones)
