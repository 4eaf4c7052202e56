"""Dropout whose masks belong to photos, not to workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pawcast.runtime.tensorflow import keras, tf


class Dropout(keras.layers.Dropout):
    """Keras's dropout with a mask for each photo of the global batch, from (seed, step, photo).

    Each rank draws the masks of the global batch and uses those of its own photos. Call
    `set_batch_position` before each step. N. Srivastava et al., 2014,
    https://jmlr.org/papers/v15/srivastava14a.html.
    """

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        # Two words of seed, the first of this rank's photos, photos in the global batch. A
        # tf.Variable, not a weight: weight files stay as Keras's.
        self.batch_position = tf.Variable([0, 0, 0, 1], trainable=False, dtype=tf.int32)

    def call(self, x: Any, training: bool = False) -> Any:
        """Drop a share of the features [n, …] in training, and scale the others up."""
        if not training or not self.rate:
            return x
        seed, first, photos = self.batch_position[:2], self.batch_position[2], self.batch_position[3]
        uniform = tf.random.stateless_uniform([photos, *x.shape[1:]], seed)
        kept = uniform[first : first + tf.shape(x)[0]] >= self.rate
        return tf.where(kept, x / tf.cast(1 - self.rate, x.dtype), tf.zeros([], x.dtype))


def set_batch_position(model: keras.Model, seed: int, step: int, first: int, photos: int) -> None:
    """Tell a network's dropout layers which photos come next.

    Args:
        model: The network.
        seed: The run's.
        step: Of the whole run, from 0.
        first: Index of the rank's first photo in the global batch.
        photos: Photos in the global batch.
    """
    for i, layer in enumerate(layer for layer in _leaf_layers(model) if isinstance(layer, Dropout)):
        words = np.random.SeedSequence(seed, spawn_key=(2, step, i)).generate_state(2).astype(np.int32)
        layer.batch_position.assign([*words.tolist(), first, photos])


def reseed_keras_layers(model: keras.Model, seed: int, epoch: int, rank: int) -> None:
    """Seed Keras's own random layers in a user's network by (seed, epoch, rank).

    Their state then needs no checkpoint.
    """
    for i, layer in enumerate(_leaf_layers(model)):
        if generator := getattr(layer, "seed_generator", None):
            words = np.random.SeedSequence(seed, spawn_key=(3, epoch, rank, i)).generate_state(2)
            generator.state.assign(words.astype(generator.state.dtype))


def _leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """All layers, also those of models within the model."""
    for layer in model.layers:
        yield from _leaf_layers(layer) if hasattr(layer, "layers") else [layer]
