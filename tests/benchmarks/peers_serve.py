"""Shared by the peers of `serve.py`: the network, and photos decoded by Pillow.

Each peer runs in the peers' environment (peers_serve.lock), with the network's file in
PAWCAST_BENCH_NETWORK, until it is killed: `python peers_litserve.py 8100`. It answers the
probability of class 1 of each photo in a form. FastAPI is the first service that many would write.
LitServe and BentoML have the network compiled as one function and the same largest batch as
Pawcast, as their documentation advises for throughput.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.update(TF_ENABLE_ONEDNN_OPTS="1", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")

import numpy as np
from PIL import Image

MAX_BATCH = 64


def load() -> Any:
    """Return the Keras model, float32 [n, S, S, 3] in [0, 1] to float32 [n, 1]."""
    import keras

    return keras.saving.load_model(os.environ["PAWCAST_BENCH_NETWORK"], compile=False)


def decode(photo: Any, size: int) -> np.ndarray:
    """Return uint8 [size, size, 3] of an open file."""
    return resize(Image.open(photo), size)


def resize(image: Image.Image, size: int) -> np.ndarray:
    """Return uint8 [size, size, 3]."""
    return np.asarray(image.convert("RGB").resize((size, size)))


def compiled(network: Any) -> Callable[[np.ndarray], list[float]]:
    """Return uint8 [n, S, S, 3] to n probabilities, traced once for all batch sizes."""
    import tensorflow as tf

    shape = network.input_shape[1:]

    @tf.function(input_signature=[tf.TensorSpec([None, *shape], tf.uint8)])
    def run(pixels: tf.Tensor) -> tf.Tensor:
        return network(tf.cast(pixels, tf.float32) * (1 / 255), training=False)[:, 0]

    for count in (1, MAX_BATCH):
        run(np.zeros((count, *shape), np.uint8))
    return lambda pixels: run(pixels).numpy().tolist()
