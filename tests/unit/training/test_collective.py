"""A collective of one rank. Several ranks are tested in tests/integration/test_training.py."""

from __future__ import annotations

import numpy as np

from pawcast.runtime.tensorflow import keras, tf
from pawcast.training.collective import Collective


def test_a_single_rank_keeps_its_values():
    ranks = Collective(rank=0, world=1)
    (total,) = ranks.run(lambda: ranks.all_reduce([tf.constant([1.0, 2.0])]))
    np.testing.assert_array_equal(total, [1.0, 2.0])
    variable = keras.Variable([3.0])
    ranks.broadcast([variable])
    np.testing.assert_array_equal(variable.numpy(), [3.0])
