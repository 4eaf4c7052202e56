"""A model version in memory. Its code is ours; only weights come from the store, and only if their hash matches."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from pawcast import registry
from pawcast.devices import configure_tensorflow, usable_cpus
from pawcast.registry import WEIGHTS, Version
from pawcast.store import Store

MAX_BATCH = 64
"""Photos in one call of the network: more gains nothing on a CPU and costs memory."""


class Engine:
    """Runs one model version.

    Args:
        version: What to run.
        weights: The content of its weights file, verified.
        threads: CPU threads for one call; all that this process may use if None.

    Attributes:
        version: The version that it runs.
        size: Height and width in pixels that `predict` takes.
        network: The Keras model, float32 [n, S, S, 3] in [0, 1] to float32 [n, 1]; not to be changed.
    """

    def __init__(self, version: Version, weights: bytes, threads: int | None = None) -> None:
        configure_tensorflow(threads or usable_cpus())
        import tensorflow as tf

        from pawcast import models
        from pawcast.augment import to_unit

        self.version = version
        self.size = version.preprocessing.image_size
        network = models.build(version.recipe)
        with tempfile.TemporaryDirectory(prefix="pawcast-model-") as folder:
            path = Path(folder) / WEIGHTS
            path.write_bytes(weights)
            network.load_weights(path)

        # One trace for every batch size.
        @tf.function(input_signature=[tf.TensorSpec([None, self.size, self.size, 3], tf.uint8)])
        def run(pixels: tf.Tensor) -> tf.Tensor:
            return network(to_unit(pixels), training=False)[:, 0]

        self.network = network
        self._run = run

    @classmethod
    def load(cls, store: Store, name: str, threads: int | None = None) -> Engine:
        """Load `MODEL@REF` from a store.

        Raises:
            NotFoundError: If there is no such version.
            IntegrityError: If its weights were changed.
        """
        return cls.from_version(store, registry.resolve(store, name), threads)

    @classmethod
    def from_version(cls, store: Store, version: Version, threads: int | None = None) -> Engine:
        """Load a version that was looked up before. Raises as `load` does."""
        return cls(version, registry.read_file(store, version, WEIGHTS), threads)

    @property
    def facts(self) -> dict[str, str | int]:
        """What it runs on, for people: framework, device, threads, photos in a batch."""
        import keras
        import tensorflow as tf

        return {
            "framework": f"Keras {keras.__version__} on TensorFlow {tf.__version__}",
            "device": "GPU" if tf.config.list_physical_devices("GPU") else "CPU",
            "threads": tf.config.threading.get_intra_op_parallelism_threads(),
            "max_batch": MAX_BATCH,
        }

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Return the probability of class 1.

        Args:
            pixels: uint8 [n, S, S, 3] from `images.load`.

        Returns:
            float32 [n] in [0, 1].
        """
        parts = [self._run(pixels[i : i + MAX_BATCH]).numpy() for i in range(0, len(pixels), MAX_BATCH)]
        return np.concatenate([*parts, np.zeros(0, np.float32)])

    def warm_up(self) -> None:
        """Run once with one photo and once with a full batch, so that the first caller doesn't wait for that."""
        for count in (1, MAX_BATCH):
            self.predict(np.zeros((count, self.size, self.size, 3), np.uint8))
