"""Batch normalization with the statistics of the whole batch, however ranks divide it."""

from __future__ import annotations

from typing import Any

from pawcast.runtime.tensorflow import keras, tf


class SyncBatchNorm(keras.layers.BatchNormalization):
    """Keras's batch normalization, in one fused operation, with statistics over all ranks of a run.

    The sums count photos, so N workers compute what one worker would, also where the batch doesn't
    divide evenly. The moving variance is the biased one, as Keras's. S. Ioffe and C. Szegedy, 2015,
    https://arxiv.org/abs/1502.03167.
    """

    def call(self, x: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalize [n, h, w, c] per channel; in training, by the statistics of this batch."""
        if not (training and self.trainable):
            return self._fused_batch_norm(x, False, mean=self.moving_mean, variance=self.moving_variance)[0]
        count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), tf.float32)
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            y, mean, variance = self._fused_batch_norm(x, True)
            # The operation returns the unbiased variance.
            self._update_moving_statistics(mean, variance * ((count - 1.0) / count))
            return y
        wide = tf.cast(x, tf.float32)
        sums = [tf.reduce_sum(wide, axis=[0, 1, 2]), tf.reduce_sum(tf.square(wide), axis=[0, 1, 2]), count[None]]
        # One message instead of three: the cost of a small all-reduce is its latency.
        total_sums = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.concat(sums, axis=0))
        total, squares, count = tf.split(total_sums, [self.gamma.shape[0], self.gamma.shape[0], 1])
        mean = total / count
        variance = tf.maximum(squares / count - tf.square(mean), 0.0)
        self._update_moving_statistics(mean, variance)
        scale = tf.math.rsqrt(variance + self.epsilon) * self.gamma
        return tf.cast(wide * scale + (self.beta - mean * scale), x.dtype)

    def _fused_batch_norm(self, x: Any, training: bool, **moving: Any) -> tuple[Any, Any, Any]:
        """Return the normalized batch, and its mean and variance."""
        moving = {name: tf.convert_to_tensor(statistic) for name, statistic in moving.items()}
        return tf.compat.v1.nn.fused_batch_norm(
            x, self.gamma, self.beta, epsilon=self.epsilon, is_training=training, **moving
        )

    def _update_moving_statistics(self, mean: Any, variance: Any) -> None:
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
