"""Dropout whose masks belong to photos, not to workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


class Dropout(keras.layers.Dropout):
    """Keras's dropout, with a mask for each photo of the whole batch that is a function of seed and step.

    So N workers drop what one would, and a run that goes on drops what it would have dropped. Each rank draws the
    masks of the whole batch and uses those of its own photos: a few milliseconds where thousands of features are
    dropped, as in the article's network. Call `place` before each step. N. Srivastava et al., 2014,
    https://jmlr.org/papers/v15/srivastava14a.html.
    """

    def build(self, input_shape: Any) -> None:
        import tensorflow as tf

        super().build(input_shape)
        # Two words of seed, the first of this rank's photos, photos of the batch. No weight: files stay as Keras's.
        self.where = tf.Variable([0, 0, 0, 1], trainable=False, dtype=tf.int32)

    def call(self, x: Any, training: bool = False) -> Any:
        """Drop a share of the features [n, …] in training, and scale the others up."""
        import tensorflow as tf

        if not training or not self.rate:
            return x
        words, first, photos = self.where[:2], self.where[2], self.where[3]
        drawn = tf.random.stateless_uniform([photos, *x.shape[1:]], words)
        kept = drawn[first : first + tf.shape(x)[0]] >= self.rate
        return tf.where(kept, x / tf.cast(1 - self.rate, x.dtype), tf.zeros([], x.dtype))


def place(model: keras.Model, seed: int, step: int, first: int, photos: int) -> None:
    """Tell a network's dropouts which photos come next.

    Args:
        model: The network.
        seed: The run's.
        step: Of the whole run, from 0.
        first: Place of the rank's first photo in the whole batch.
        photos: In the whole batch.
    """
    for i, layer in enumerate(layer for layer in _layers(model) if isinstance(layer, Dropout)):
        words = np.random.SeedSequence(seed, spawn_key=(2, step, i)).generate_state(2).astype(np.int32)
        layer.where.assign([*words.tolist(), first, photos])


def seed_others(model: keras.Model, seed: int, epoch: int, rank: int) -> None:
    """Make Keras's own random layers in a user's network a function of seed, epoch and rank: nothing to checkpoint."""
    for i, layer in enumerate(_layers(model)):
        if generator := getattr(layer, "seed_generator", None):
            words = np.random.SeedSequence(seed, spawn_key=(3, epoch, rank, i)).generate_state(2)
            generator.state.assign(words.astype(generator.state.dtype))


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """All layers, also those of models within the model."""
    for layer in model.layers:
        yield from _layers(layer) if hasattr(layer, "layers") else [layer]
