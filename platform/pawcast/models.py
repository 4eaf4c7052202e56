"""The CNNs: float32 pixels in [0, 1], shape [n, S, S, 3], to the probability of class 1, float32 [n, 1].

Importing this module imports TensorFlow, through Keras.
"""

from __future__ import annotations

import keras
from keras import layers

from pawcast.recipe import Recipe

# He et al., 2015 (https://arxiv.org/abs/1502.01852). With Keras's default, Glorot, these unnormalised stacks
# stay at a loss of 0.693 for their first hundred steps.
_RELU = {"activation": "relu", "kernel_initializer": "he_uniform"}


def build(recipe: Recipe) -> keras.Model:
    """Return the recipe's untrained network.

    Initial weights come from Keras's global seed; call `keras.utils.set_random_seed` first to fix them.

    Returns:
        A Keras model from float32 [n, S, S, 3] in [0, 1] to float32 [n, 1] in [0, 1].
    """
    trunk = {"article": _article, "small": _small}[recipe.model]
    pixels = keras.Input((recipe.image_size, recipe.image_size, 3), name="pixels")
    probability = layers.Dense(1, activation="sigmoid", name="probability")(trunk(pixels, recipe.dropout))
    return keras.Model(pixels, probability, name=recipe.model)


def _article(x: keras.KerasTensor, dropout: float) -> keras.KerasTensor:
    """Four convolution and pooling blocks, then one wide dense layer; 3.45 M parameters at 150 px.

    The network of F. Chollet, "Deep Learning with Python" (2017), section 5.2, as the article uses it.
    """
    for filters in (32, 64, 128, 128):
        x = layers.Conv2D(filters, 3, **_RELU)(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(dropout)(x)
    return layers.Dense(512, **_RELU)(x)


def _small(x: keras.KerasTensor, dropout: float) -> keras.KerasTensor:
    """Three blocks of the same kind, a tenth of the work: for drawn photos and tests."""
    for filters in (16, 32, 64):
        x = layers.Conv2D(filters, 3, **_RELU)(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(dropout)(x)
    return layers.Dense(64, **_RELU)(x)
