"""Batch normalization whose statistics are those of the whole batch, whoever holds which part of it."""

from __future__ import annotations

from typing import Any

import keras


class BatchNorm(keras.layers.BatchNormalization):
    """Keras's batch normalization, with training's statistics over all ranks of a data-parallel run.

    Keras's own `synchronized=True` averages the ranks' means as if their parts were of one size; these sums count
    photos, so that N workers compute what one would, also where the batch doesn't divide among them. On one rank it
    is Keras's layer itself, whose moving variance is the biased one. S. Ioffe and C. Szegedy, 2015, https://arxiv.org/abs/1502.03167.
    """

    def call(self, x: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalize [n, h, w, c] over all but the channels; in training, by this batch's statistics."""
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if not (training and self.trainable) or context is None or context.num_replicas_in_sync == 1:
            return super().call(x, training=training, mask=mask)
        wide = tf.cast(x, tf.float32)
        count = tf.cast(tf.reduce_prod(tf.shape(wide)[:-1]), tf.float32)
        own = [tf.reduce_sum(wide, axis=[0, 1, 2]), tf.reduce_sum(tf.square(wide), axis=[0, 1, 2]), count[None]]
        # One message instead of three: a collective's cost is its latency.
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.concat(own, axis=0))
        total, squares, count = tf.split(summed, [self.gamma.shape[0], self.gamma.shape[0], 1])
        mean = total / count
        variance = tf.maximum(squares / count - tf.square(mean), 0.0)
        keep = self.momentum
        self.moving_mean.assign(self.moving_mean * keep + mean * (1.0 - keep))
        self.moving_variance.assign(self.moving_variance * keep + variance * (1.0 - keep))
        scale = tf.math.rsqrt(variance + self.epsilon) * self.gamma
        return tf.cast(wide * scale + (self.beta - mean * scale), x.dtype)
