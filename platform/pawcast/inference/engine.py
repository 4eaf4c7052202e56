"""A model version in memory, ready to predict.

Networks are built by Pawcast's own code. Only weights come from the store, and only if their hash
matches.
"""

from __future__ import annotations

import numpy as np

from pawcast import registry
from pawcast.inference.batcher import MAX_CONCURRENT_BATCHES
from pawcast.inference.compiled import CompiledModel
from pawcast.inference.precision.fallback import needs_fallback
from pawcast.models import build
from pawcast.models import weights as weights_file
from pawcast.recipes.schema import Recipe
from pawcast.registry import WEIGHTS, ModelVersion
from pawcast.runtime.devices import Precision, usable_cpus
from pawcast.runtime.tensorflow import configure_tensorflow, keras, resolve_precision, tf
from pawcast.store import Store


def build_network(recipe: Recipe, weights: bytes) -> keras.Model:
    """Return a recipe's network, in float32, with the verified content of its weights file."""
    network = build.build_model(recipe)
    weights_file.load(network, weights)
    return network


def choose_precision(version: ModelVersion, requested: str = "auto") -> Precision:
    """Return the precision that a version is served in; raise `UsageError` for an unknown one.

    `float32` and `bfloat16` are taken as they are. `auto` is bfloat16 if this machine is faster in
    it and the version's parity in bfloat16 is acceptable, else float32.
    """
    parity = (version.parity or {}).get("bfloat16")
    if requested == "auto" and not (parity and parity.acceptable):
        return "float32"
    return resolve_precision(requested)


class Engine:
    """Runs one model version.

    Args:
        version: What to run.
        network: Its network, from `build_network`.
        precision: `float32`, `bfloat16` or `auto`; see `choose_precision`. In bfloat16, photos
            within the version's fallback margin are computed again in float32.

    Attributes:
        version: The version that it runs.
        size: Height and width in pixels of what `predict` takes.
        network: The Keras model, float32 [n, S, S, 3] in [0, 1] to float32 [n, 1]. Don't change it.
        precision: What it computes in, `float32` or `bfloat16`.
        batch_sizes: How many photos are computed at once, ascending; `predict` splits or pads
            others.

    Raises:
        UsageError: For any other precision.
    """

    def __init__(self, version: ModelVersion, network: keras.Model, precision: str = "auto") -> None:
        self.version = version
        self.size = version.preprocessing.image_size
        self.network = network
        self.precision = choose_precision(version, precision)
        self._model = CompiledModel(network, version.preprocessing, self.precision)
        self.batch_sizes = self._model.batch_sizes
        parity = (version.parity or {}).get(self.precision)
        self._margin, self._fallback_share = (parity.fallback_margin, parity.fallback_share) if parity else (0.0, 0.0)
        if self._margin:
            self._float32_model = CompiledModel(network, version.preprocessing, "float32")

    @classmethod
    def load(cls, store: Store, name: str, precision: str = "auto") -> Engine:
        """Load `MODEL@REF` from a store.

        Raises:
            NotFoundError: If there is no such version.
            IntegrityError: If its weights were changed.
            UsageError: For an unknown precision.
        """
        return cls.from_version(store, registry.resolve(store, name), precision)

    @classmethod
    def from_version(cls, store: Store, version: ModelVersion, precision: str = "auto") -> Engine:
        """Load a version that was resolved before. Raises as `load` does."""
        weights = registry.read_file(store, version, WEIGHTS)
        configure_tensorflow(usable_cpus() // MAX_CONCURRENT_BATCHES)
        return cls(version, build_network(version.recipe, weights), precision)

    @property
    def info(self) -> dict[str, str | int | float]:
        """What the engine runs on: framework, device, threads per batch, precision, limits.

        `fallback_share` is the share of validation photos that were computed again in float32.
        """
        return {
            "framework": f"Keras {keras.__version__} on TensorFlow {tf.__version__}",
            "device": "GPU" if tf.config.list_physical_devices("GPU") else "CPU",
            "threads": tf.config.threading.get_intra_op_parallelism_threads(),
            "precision": self.precision,
            "fallback_share": self._fallback_share,
            "max_concurrent_batches": MAX_CONCURRENT_BATCHES,
            "max_batch": self.batch_sizes[-1],
        }

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Return the probability of class 1. A photo's bits are the same in every batch and thread.

        Args:
            pixels: uint8 [n, S, S, 3] from `Preprocessing.apply`.

        Returns:
            float32 [n] in [0, 1].
        """
        scores = self._model(pixels)
        if self._margin and (unsure := needs_fallback(scores, self._margin)).any():
            scores[unsure] = self._float32_model(pixels[unsure])
        return scores
