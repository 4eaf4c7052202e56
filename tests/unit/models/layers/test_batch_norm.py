"""Batch normalization over all ranks."""

from __future__ import annotations

import numpy as np

from pawcast.models.layers.batch_norm import SyncBatchNorm
from pawcast.runtime.tensorflow import keras, tf


def test_on_one_rank_it_computes_what_keras_computes():
    rng = np.random.default_rng(0)
    # Few values a channel, where Bessel's correction of the variance would show.
    x = tf.constant(rng.normal(3, 2, (2, 3, 2, 5)).astype(np.float32))
    results = []
    for kind in (SyncBatchNorm, keras.layers.BatchNormalization):
        layer = kind(momentum=0.8)
        layer.build(x.shape)
        layer.gamma.assign(np.linspace(0.5, 2, 5))
        layer.beta.assign(np.linspace(-1, 1, 5))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(tf.sin(y))
        gradients = tape.gradient(loss, [x, *layer.trainable_variables])
        results.append([y, *gradients, *layer.non_trainable_variables, layer(x, training=False)])
        layer.trainable = False
        results[-1].append(layer(x, training=True))
    for own, expected in zip(*results, strict=True):
        np.testing.assert_allclose(np.asarray(own), np.asarray(expected), atol=1e-5, rtol=1e-4)
