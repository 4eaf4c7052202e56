"""A network's weights as the bytes of a Keras weights file; Keras only reads and writes paths."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pawcast.runtime.tensorflow import keras


def dump(network: keras.Model) -> bytes:
    """Return a built network's weights as the content of a weights file."""
    with tempfile.TemporaryDirectory(prefix="pawcast-weights-") as folder:
        path = Path(folder) / "network.weights.h5"
        network.save_weights(path)
        return path.read_bytes()


def load(network: keras.Model, data: bytes, suffix: str = ".weights.h5", **options: bool) -> None:
    """Set a built network's weights from the content of a weights file, such as `dump` returned.

    Args:
        network: The network.
        data: The file's content.
        suffix: By which Keras tells its formats apart; `.h5` is the legacy one.
        options: Of Keras's `load_weights`.
    """
    with tempfile.TemporaryDirectory(prefix="pawcast-weights-") as folder:
        path = Path(folder) / f"network{suffix}"
        path.write_bytes(data)
        network.load_weights(path, **options)
