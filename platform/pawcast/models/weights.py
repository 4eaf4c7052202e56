"""A network's weights as the bytes of a Keras weights file; Keras only reads and writes paths."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pawcast.runtime.tensorflow import keras


def dump(network: keras.Model) -> bytes:
    """Return a built network's weights as the content of a weights file."""
    with _temporary_path() as path:
        network.save_weights(path)
        return path.read_bytes()


def load(network: keras.Model, data: bytes) -> None:
    """Set a built network's weights from what `dump` returned."""
    with _temporary_path() as path:
        path.write_bytes(data)
        network.load_weights(path)


@contextmanager
def _temporary_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pawcast-weights-") as folder:
        # Keras tells its formats apart by the end of the name.
        yield Path(folder) / "network.weights.h5"
