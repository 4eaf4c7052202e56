"""Batch normalization whose statistics are those of the whole batch, whoever holds which part of it."""

from __future__ import annotations

from typing import Any

import keras


class SyncBatchNorm(keras.layers.BatchNormalization):
    """Keras's batch normalization, fused into one operation on one rank, with statistics over all ranks of a run.

    Keras's layer is composed of a dozen elementwise operations, each a pass over the photos; and its own
    `synchronized=True` averages the ranks' means as if their parts were of one size. These sums count photos, so that
    N workers compute what one would, also where the batch doesn't divide among them. The moving variance is the biased
    one, as Keras's. S. Ioffe and C. Szegedy, 2015, https://arxiv.org/abs/1502.03167.
    """

    def call(self, x: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalize [n, h, w, c] over all but the channels; in training, by this batch's statistics."""
        import tensorflow as tf

        if not (training and self.trainable):
            return self._fused(x, training=False)[0]
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            y, mean, variance = self._fused(x, training=True)
            count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), tf.float32)
            # The operation tells Bessel's variance, that of a sample.
            self._remember(mean, variance * ((count - 1.0) / count))
            return y
        wide = tf.cast(x, tf.float32)
        count = tf.cast(tf.reduce_prod(tf.shape(wide)[:-1]), tf.float32)
        own = [tf.reduce_sum(wide, axis=[0, 1, 2]), tf.reduce_sum(tf.square(wide), axis=[0, 1, 2]), count[None]]
        # One message instead of three: a collective's cost is its latency.
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.concat(own, axis=0))
        total, squares, count = tf.split(summed, [self.gamma.shape[0], self.gamma.shape[0], 1])
        mean = total / count
        variance = tf.maximum(squares / count - tf.square(mean), 0.0)
        self._remember(mean, variance)
        scale = tf.math.rsqrt(variance + self.epsilon) * self.gamma
        return tf.cast(wide * scale + (self.beta - mean * scale), x.dtype)

    def _fused(self, x: Any, training: bool) -> tuple[Any, Any, Any]:
        import tensorflow as tf

        moving = {} if training else {"mean": self.moving_mean, "variance": self.moving_variance}
        found: tuple[Any, Any, Any] = tf.compat.v1.nn.fused_batch_norm(
            x,
            self.gamma,
            self.beta,
            epsilon=self.epsilon,
            is_training=training,
            **{name: tf.convert_to_tensor(value) for name, value in moving.items()},
        )
        return found

    def _remember(self, mean: Any, variance: Any) -> None:
        keep = self.momentum
        self.moving_mean.assign(self.moving_mean * keep + mean * (1.0 - keep))
        self.moving_variance.assign(self.moving_variance * keep + variance * (1.0 - keep))
