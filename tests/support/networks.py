"""Small, untrained networks of several kinds, and noise to feed them."""

from __future__ import annotations

import numpy as np

from pawcast.models import build
from pawcast.models.layers.batch_norm import SyncBatchNorm
from pawcast.recipes import resolve
from pawcast.runtime.tensorflow import configure_tensorflow, keras

layers = keras.layers


def flat(size: int = 48) -> keras.Model:
    """A recipe's network: convolutions, then dense layers, whose sums are long."""
    _start()
    return build.build_model(resolve("article" if size == 150 else "smoke", [f"image_size={size}"]))


def pooled() -> keras.Model:
    """Residual, with both batch normalizations and squeeze-and-excitation, for any photo size."""
    _start()
    pixels = keras.Input((None, None, 3))
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(pixels)
    x = layers.ReLU()(SyncBatchNorm()(x))
    y = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    y = layers.BatchNormalization()(y)
    share = layers.Dense(16, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(y))
    x = layers.ReLU()(layers.Add()([x, layers.Multiply()([y, share])]))
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    network = keras.Model(pixels, layers.Dense(1, activation="sigmoid")(x))
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            rng = np.random.default_rng(4)
            layer.set_weights([rng.uniform(0.5, 1.5, 16).astype(np.float32) for _ in range(4)])
    return network


def forked() -> keras.Model:
    """Two branches of cells, neither of which contains the other."""
    _start()
    pixels = keras.Input((50, 50, 3))
    x = layers.ReLU()(layers.MaxPooling2D(2)(layers.Conv2D(8, 3)(pixels)))
    y = layers.Conv2D(8, 3, activation="relu")(x)
    both = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.GlobalAveragePooling2D()(y)])
    return keras.Model(pixels, layers.Dense(1, activation="sigmoid")(both))


def sequential() -> keras.Model:
    """A Sequential network, which Keras clones without calls."""
    _start()
    return keras.Sequential(
        [
            keras.Input((48, 48, 3)),
            layers.Conv2D(8, 3, strides=2),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def noise(photos: int, size: int) -> np.ndarray:
    """Photos of random pixels: uint8 [n, size, size, 3]."""
    return np.random.default_rng(5).integers(0, 256, (photos, size, size, 3), np.uint8)


def _start() -> None:
    configure_tensorflow(2)
    keras.utils.set_random_seed(3)
