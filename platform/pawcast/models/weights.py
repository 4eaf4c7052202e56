"""A network's weights as the bytes of a file in Keras's format, which Keras itself only knows on disk."""

from __future__ import annotations

import tempfile
from pathlib import Path

import keras

# Keras tells its formats apart by the end of the name.
_NAME = "network.weights.h5"


def dump(network: keras.Model) -> bytes:
    """Return a built network's weights as a file."""
    with tempfile.TemporaryDirectory(prefix="pawcast-weights-") as folder:
        path = Path(folder) / _NAME
        network.save_weights(path)
        return path.read_bytes()


def load(network: keras.Model, data: bytes) -> None:
    """Set a built network's weights from such a file."""
    with tempfile.TemporaryDirectory(prefix="pawcast-weights-") as folder:
        path = Path(folder) / _NAME
        path.write_bytes(data)
        network.load_weights(path)
